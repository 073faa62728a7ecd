"""A listing brings those along that a walk comes to next: what they would say by themselves, in the
order in which it comes to them, and no more than is asked for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from files_server.catalog.following import WEIGHT

KEYS = (
    "a/f", "b-/f", "b/1/x/f", "b/1/x/g", "b/2/f", "b/f", "b.txt", "b0/f", "c/1/2/3/f", "d/e/f",
)  # fmt: skip
# Depth first, by the bytes of keys.
WALK = ("a/", "b-/", "b/", "b/1/", "b/1/x/", "b/2/", "b0/", "c/", "c/1/", "c/1/2/", "c/1/2/3/",
        "d/", "d/e/")  # fmt: skip
WALKED = {"Files-Rows": "1", "Files-Walk-Levels": "9", "Files-Walk": "1000"}


def listed(client: httpx.Client, bucket: str, directory: str, **fields: str) -> dict[str, Any]:
    query = {"prefix": directory, "delimiter": "/", "view": "full", "limit": "1000"}
    headers = {"Files-Rows": "1"} | {name.replace("_", "-"): text for name, text in fields.items()}
    answer = client.get(f"/files/{bucket}", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def followed(
    client: httpx.Client, bucket: str, directory: str, levels: int, most: int
) -> list[str]:
    """The keys; each listing is held against its own."""
    fields = {"Files_Walk": str(most), "Files_Walk_Levels": str(levels)}
    body = listed(client, bucket, directory, **fields)
    alone = listed(client, bucket, directory)
    assert "walk" not in alone
    assert body["rows"] == alone["rows"]
    for key, resource, rows in body.get("walk", []):
        assert rows == listed(client, bucket, key)["rows"]
        entry = client.get(f"/files/{bucket}/{key}?view=full").json()
        assert entry["resource_id"] == resource
    return [key for key, _, _ in body.get("walk", [])]


@pytest.fixture
def tree(client: httpx.Client, bucket: str) -> str:
    for key in KEYS:
        client.put(f"/files/{bucket}/{key}?alt=media", content=b"x").raise_for_status()
    return bucket


def test_what_is_below_comes_then_what_is_behind_then_behind_those_above(
    client: httpx.Client, tree: str
) -> None:
    for at, key in enumerate(("", *WALK)):
        below = [each for each in WALK if each.startswith(key) and each != key]
        assert followed(client, tree, key, 0, 1000) == below, key
        assert followed(client, tree, key, 9, 1000) == list(WALK[at:]), key
    assert followed(client, tree, "b/1/x/", 1, 1000) == []
    assert followed(client, tree, "b/1/x/", 2, 1000) == ["b/2/"]
    assert followed(client, tree, "b/1/x/", 3, 1000) == list(WALK[5:])


def test_only_whole_directories_come_within_what_is_asked_for(
    client: httpx.Client, tree: str
) -> None:
    sizes = {key: len(listed(client, tree, key)["rows"]) for key in ("", *WALK)}
    for most in range(200):
        left, expected = most - sizes[""], []
        for key in WALK:
            left -= sizes[key] + WEIGHT
            if left < 0:
                break
            expected.append(key)
        assert followed(client, tree, "", 0, most) == expected, most


def test_who_asks_for_too_much_has_what_takes_a_millisecond(
    client: httpx.Client, bucket: str
) -> None:
    for number in range(120):
        path = f"/files/{bucket}/d{number:03}/?alt=media"
        client.put(path, content=b"", headers={"Content-Length": "0"}).raise_for_status()
    assert len(followed(client, bucket, "d000/", 1, 999_999_999)) == 1000 // WEIGHT
    assert followed(client, bucket, "", 1, 130) == ["d000/"]


def test_it_comes_with_whole_listings_in_rows_alone(client: httpx.Client, tree: str) -> None:
    query = {"prefix": "", "delimiter": "/", "view": "full", "limit": "9"}
    whole = client.get(f"/files/{tree}", params=query, headers=WALKED)
    assert "walk" in whole.json()
    assert "Files-Walk" in whole.headers["vary"]
    for change in ({"limit": "2"}, {"after": "a"}):
        body = client.get(f"/files/{tree}", params=query | change, headers=WALKED).json()
        assert "rows" in body
        assert "walk" not in body
    plain = client.get(f"/files/{tree}", params=query, headers=WALKED | {"Files-Rows": "0"})
    assert set(plain.json()) == {"data", "common_prefixes", "has_more"}
    wrong = client.get(f"/files/{tree}", params=query, headers=WALKED | {"Files-Walk": "-1"})
    assert wrong.status_code == 400


def test_a_directory_that_is_not_there_is_followed_by_nothing(
    client: httpx.Client, tree: str
) -> None:
    assert followed(client, tree, "none/", 9, 1000) == []
    assert followed(client, tree, "a/f/", 9, 1000) == []


def test_it_goes_down_a_chain_and_up_again(client: httpx.Client, bucket: str) -> None:
    """Deeper than SQLite joins tables."""
    chain = [f"{'x/' * depth}" for depth in range(1, 81)]
    client.put(f"/files/{bucket}/{chain[-1]}f?alt=media", content=b"x").raise_for_status()
    client.put(f"/files/{bucket}/y/f?alt=media", content=b"x").raise_for_status()
    assert followed(client, bucket, "x/", 1, 1000) == [*chain[1:], "y/"]
    assert followed(client, bucket, chain[-1], 79, 1000) == []
    assert followed(client, bucket, chain[-1], 80, 1000) == ["y/"]

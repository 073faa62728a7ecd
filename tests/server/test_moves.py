"""MOVE: files and trees, replacing, exchanging, and what is refused."""

from __future__ import annotations

import httpx
import pytest

from tests.server.test_extensions import full, keys, put


def move(client: httpx.Client, source: str, destination: str, **headers: str) -> httpx.Response:
    given = {"Destination": f"/v1/files/{destination}", **headers}
    return client.request("MOVE", f"/files/{source}", headers=given)


def test_a_directory_moves_whole(client: httpx.Client, bucket: str) -> None:
    for key in ("d/a", "d/e/f", "d/e/g"):
        put(client, f"{bucket}/{key}", key.encode())
    rid = full(client, f"{bucket}/d/")["resource_id"]
    assert move(client, f"{bucket}/d/", f"{bucket}/new/place").status_code == 200
    assert keys(client, bucket) == ["new/place/a", "new/place/e/f", "new/place/e/g"]
    assert full(client, f"{bucket}/new/place/")["resource_id"] == rid
    other = f"{bucket}-other"
    assert move(client, f"{bucket}/new/place/", f"{other}/x/").status_code == 404
    client.put(f"/files/{other}")
    assert move(client, f"{bucket}/new/place/", f"{other}/x/").status_code == 200
    assert keys(client, other) == ["x/a", "x/e/f", "x/e/g"]
    assert keys(client, bucket) == []
    assert client.get(f"/files/{other}/x/e/f?alt=media").content == b"d/e/f"


@pytest.mark.parametrize(
    "destination",
    [
        "http://[::1/v1/files/b/k",
        "http://elsewhere/v1/files/b/k",
        "//[x/v1/files/b/k",
        "b/k",
        "",
        "/",
    ],
)
def test_a_destination_that_is_none_of_this_server_is_400(
    client: httpx.Client, bucket: str, destination: str
) -> None:
    put(client, f"{bucket}/a")
    for method in ("MOVE", "BIND"):
        answer = client.request(method, f"/files/{bucket}/a", headers={"Destination": destination})
        assert answer.status_code == 400
        assert "Destination" in answer.json()["detail"]
    assert keys(client, bucket) == ["a"]


@pytest.mark.parametrize(
    ("source", "destination", "status", "reason"),
    [
        ("d/", "d/e/x", 400, None),
        ("d/", "d/", 200, None),
        ("f", "f", 200, None),
        ("f", "d", 409, "is-directory"),
        ("f", "d/", 400, None),
        ("d/", "f", 409, "not-directory"),
        ("d/", "full", 409, "not-empty"),
        ("d/", "empty", 200, None),
        ("f", "f/x", 409, "not-directory"),
        ("d", "y", 404, None),
        ("absent", "y", 404, None),
    ],
)
def test_what_may_replace_what(
    client: httpx.Client, bucket: str, source: str, destination: str, status: int, reason: str
) -> None:
    for key in ("d/e/file", "f", "full/x", "empty/"):
        put(client, f"{bucket}/{key}")
    answer = move(client, f"{bucket}/{source}", f"{bucket}/{destination}")
    assert (answer.status_code, answer.headers.get("files-error")) == (status, reason)
    if status != 200:
        assert keys(client, bucket) == ["d/e/file", "f", "full/x"]


def test_overwrite(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/a", b"a")
    put(client, f"{bucket}/b", b"b")
    assert move(client, f"{bucket}/a", f"{bucket}/b", Overwrite="F").status_code == 412
    assert move(client, f"{bucket}/a", f"{bucket}/b").status_code == 200
    assert client.get(f"/files/{bucket}/b?alt=media").content == b"a"
    assert keys(client, bucket) == ["b"]


def test_exchange(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/f", b"file")
    put(client, f"{bucket}/x/d/inner", b"inner")
    assert move(client, f"{bucket}/f", f"{bucket}/x/d/", Exchange="T").status_code == 200
    assert keys(client, bucket) == ["f/inner", "x/d"]
    assert client.get(f"/files/{bucket}/x/d?alt=media").content == b"file"
    assert move(client, f"{bucket}/f/", f"{bucket}/no", Exchange="T").status_code == 404
    assert move(client, f"{bucket}/f/", f"{bucket}/f/inner", Exchange="T").status_code == 400
    assert move(client, f"{bucket}/x/d", f"{bucket}/x/", Exchange="T").status_code == 400


def test_a_bucket_does_not_move(client: httpx.Client, bucket: str) -> None:
    client.put(f"/files/{bucket}")
    assert move(client, bucket, f"{bucket}2/x").status_code == 501


def test_parents_are_stamped(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/from/x")
    put(client, f"{bucket}/from/stays")
    put(client, f"{bucket}/to/y")
    old, new = full(client, f"{bucket}/from/"), full(client, f"{bucket}/to/")
    move(client, f"{bucket}/from/x", f"{bucket}/to/x")
    for before, path in ((old, "from/"), (new, "to/")):
        assert int(str(full(client, f"{bucket}/{path}")["modified_ns"])) > int(
            str(before["modified_ns"])
        )


def test_an_upload_by_resource_follows_the_rename(client: httpx.Client, bucket: str) -> None:
    entry = put(client, f"{bucket}/a", b"1").json()
    body = {"bucket": bucket, "key": "a", "mime_type": "x", "size": 3,
            "resource_id": entry["resource_id"]}  # fmt: skip
    first = client.post("/files", json=body).json()
    second = client.post("/files", json=body).json()
    move(client, f"{bucket}/a", f"{bucket}/b")
    assert client.post(first["url"], content=b"new").json()["key"] == "b"
    assert keys(client, bucket) == ["b"]
    client.delete(f"/files/{bucket}/b")
    assert client.post(second["url"], content=b"new").status_code == 410
    assert keys(client, bucket) == []


def test_a_repeated_change_is_done_once(client: httpx.Client, bucket: str) -> None:
    origin = {"Files-Origin": "me"}
    since = put(client, f"{bucket}/a", b"1").headers["files-cursor"]
    again = {**origin, "Files-Repeat": since}
    for headers in (origin, again):
        assert move(client, f"{bucket}/a", f"{bucket}/b", **headers).status_code == 200
        put(client, f"{bucket}/a", b"another's")
    assert client.get(f"/files/{bucket}/b?alt=media").content == b"1"
    for headers in (origin, again):
        assert client.delete(f"/files/{bucket}/a", headers=headers).status_code == 200
        put(client, f"{bucket}/a", b"another's")
    assert keys(client, bucket) == ["a", "b"]
    others = {"Files-Origin": "you", "Files-Repeat": since}
    assert client.delete(f"/files/{bucket}/a", headers=others).status_code == 200
    restored = {**origin, "Files-Repeat": "00-0"}
    assert client.delete(f"/files/{bucket}/b", headers=restored).status_code == 200
    assert keys(client, bucket) == []
    bad = {**origin, "Files-Repeat": "now"}
    assert client.delete(f"/files/{bucket}/a", headers=bad).status_code == 400

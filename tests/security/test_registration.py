"""Registered locations: what may be registered, and that no link leads out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from files_server.errors import ApiError
from files_server.registration import locations
from files_server.registration.locations import Location
from tests.server.running import running_server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root/{data,rw,other}, and a secret outside of the root."""
    folder = tmp_path_factory.mktemp("places")
    data = folder / "root" / "data"
    (data / "sub").mkdir(parents=True)
    (data / "a.txt").write_text("alpha")
    (data / "sub" / "b.txt").write_text("beta")
    (data / "not valid").write_text("x")
    (folder / "secret").write_text("secret")
    (data / "out").symlink_to(folder / "secret")
    (data / "outdir").symlink_to(folder)
    (data / "in").symlink_to("sub/b.txt")
    (data / "indir").symlink_to("sub")
    (folder / "root" / "escape").symlink_to(folder)
    for name in ("rw", "other", "gone", "rw/odd name"):
        (folder / "root" / name).mkdir()
    os.mkfifo(data / "fifo")
    return folder


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[httpx.Client]:
    with (
        running_server(place / "server", file_root=[str(place / "root")]) as server,
        httpx.Client(base_url=f"{server.url}/v1/files/") as client,
    ):
        yield client


def _put(client: httpx.Client, uri: str, key: str = "", **params: str) -> httpx.Response:
    path = quote(uri, safe="") + (f"/{key}" if key else "")
    return client.put(path, params=params)


def test_a_location_is_registered_once_and_listed_under_its_alias(
    client: httpx.Client, place: Path
) -> None:
    uri = f"file://{place}/root/data"
    first = _put(client, uri)
    assert first.status_code == 200
    assert set(first.json()) == {"bucket", "created_at", "status"}
    assert (first.json()["bucket"], first.json()["status"]) == (uri, "available")
    assert _put(client, uri).json() == first.json()
    assert "data" in [entry["name"] for entry in client.get("").json()["data"]]
    keys = [entry["key"] for entry in client.get("data").json()["data"]]
    assert keys == ["_-not_20valid", "a.txt", "in", "sub/b.txt"]
    assert client.get("data/sub/b.txt?alt=media").text == "beta"
    ranged = client.get("data/a.txt?alt=media", headers={"Range": "bytes=1-2"})
    assert (ranged.status_code, ranged.text) == (206, "lp")
    assert set(client.get("data/a.txt").json()) == {
        "bucket", "key", "mime_type", "url", "bytes", "created_at",
    }  # fmt: skip


def test_links_within_work_and_links_that_lead_out_are_403(
    client: httpx.Client, place: Path
) -> None:
    _put(client, f"file://{place}/root/data").raise_for_status()
    assert client.get("data/in?alt=media").text == "beta"
    assert client.get("data/indir/b.txt?alt=media").text == "beta"
    for key in ("out", "outdir/secret", "outdir/root/rw"):
        for query in ("", "?alt=media"):
            answer = client.get(f"data/{key}{query}")
            assert answer.status_code == 403, key
            assert answer.json()["status"] == 403
    assert client.get("data/fifo?alt=media").status_code == 404


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("file:///etc", 403),
        ("file://{root}/../secret", 403),
        ("file://{root}/escape", 403),
        ("file://{root}/escape/secret", 403),
        ("file://{root}/%2e%2e/secret", 403),
        ("file://{root}/absent", 404),
        ("file://{root}/data/a.txt", 400),
        ("file://{root}/data?x=1", 400),
        ("file://elsewhere{root}/data", 400),
        ("file://{root}/da%00ta", 400),
        ("s3://bucket", 501),
        ("gs://bucket/prefix", 501),
    ],
)
def test_what_may_not_be_registered(
    client: httpx.Client, place: Path, uri: str, status: int
) -> None:
    answer = _put(client, uri.format(root=place / "root"))
    assert answer.status_code == status, answer.text
    assert answer.json()["status"] == status


def test_an_alias_is_for_one_location(client: httpx.Client, place: Path) -> None:
    _put(client, f"file://{place}/root/data").raise_for_status()
    taken = _put(client, f"file://{place}/root/other", name="data")
    assert (taken.status_code, taken.headers["files-error"]) == (409, "alias")
    client.put("managed").raise_for_status()
    taken = _put(client, f"file://{place}/root/other", name="managed")
    assert (taken.status_code, taken.headers["files-error"]) == (409, "alias")
    assert _put(client, f"file://{place}/root/other", name="mine").status_code == 200
    assert client.get("mine").json() == {"data": []}


def test_op_9_shows_one_file_and_forgets_it_without_harm(client: httpx.Client, place: Path) -> None:
    uri = f"file://{place}/root/rw"
    (place / "root" / "rw" / "one").write_text("1")
    (place / "root" / "rw" / "two").write_text("2")
    answer = _put(client, uri, "one", name="single")
    assert set(answer.json()) == {"bucket", "key", "created_at", "status"}
    assert [entry["key"] for entry in client.get("single").json()["data"]] == ["one"]
    assert client.get("single/two?alt=media").status_code == 404
    assert _put(client, uri, "absent").status_code == 404
    assert client.delete("single/one").status_code == 200
    assert (place / "root" / "rw" / "one").read_text() == "1"
    assert client.get("single").status_code == 404


def test_writing_needs_rw(client: httpx.Client, place: Path) -> None:
    _put(client, f"file://{place}/root/data").raise_for_status()
    assert client.put("data/new?alt=media", content=b"x").status_code == 403
    assert client.delete("data/a.txt").status_code == 403
    body = {"bucket": "data", "key": "new", "mime_type": "text/plain", "size": 1}
    assert client.post("", json=body).status_code == 403
    _put(client, f"file://{place}/root/rw", mode="rw").raise_for_status()
    client.put("rw/deep/new.txt?alt=media", content=b"new").raise_for_status()
    assert (place / "root" / "rw" / "deep" / "new.txt").read_text() == "new"
    first = client.get("rw/deep/new.txt?alt=media").headers["etag"]
    client.put("rw/deep/new.txt?alt=media", content=b"newer").raise_for_status()
    assert client.get("rw/deep/new.txt?alt=media").headers["etag"] != first
    headers = {"If-Match": first}
    assert client.put("rw/deep/new.txt?alt=media", headers=headers).status_code == 412
    client.delete("rw/deep/new.txt").raise_for_status()
    assert not (place / "root" / "rw" / "deep" / "new.txt").exists()
    assert (
        client.request(
            "MOVE", "rw/deep/", headers={"Destination": "/v1/files/rw/other"}
        ).status_code
        == 501
    )


def test_writing_goes_through_no_link(client: httpx.Client, place: Path) -> None:
    _put(client, f"file://{place}/root/rw", mode="rw").raise_for_status()
    link = place / "root" / "rw" / "lead"
    link.symlink_to(place)
    answer = client.put("rw/lead/planted?alt=media", content=b"x")
    assert answer.status_code in (403, 409)
    assert not (place / "planted").exists()
    answer = client.delete("rw/lead/secret")
    assert answer.status_code == 403
    assert (place / "secret").read_text() == "secret"


def test_what_cannot_be_reached_is_503_never_404_or_empty(
    client: httpx.Client, place: Path
) -> None:
    gone = place / "root" / "gone"
    uri = f"file://{gone}"
    before = _put(client, uri).json()
    gone.rename(place / "away")
    try:
        for path in ("gone", "gone/x", "gone/x?alt=media", "gone?delimiter=/&view=full"):
            assert client.get(path).status_code == 503, path
        again = _put(client, uri).json()
        assert again == {**before, "status": "unavailable"}
    finally:
        (place / "away").rename(gone)
    assert client.get("gone").json() == {"data": []}


def test_a_change_in_between_two_reads_is_noticed(place: Path) -> None:
    path = place / "root" / "other" / "changing"
    path.write_text("one")
    opened = locations.open_file(Location(place / "root" / "other"), "changing")
    assert opened.read(0, 3) == b"one"
    path.write_text("two!")
    with pytest.raises(ApiError) as changed:
        opened.read(0, 3)
    assert changed.value.status == 410


def test_a_link_swapped_in_at_any_moment_does_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    outside.mkdir()
    (root / "d" / "f").write_text("inside")
    (outside / "f").write_text("outside")
    (root / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(root / "d", root / "x")
            os.rename(root / "link", root / "d")
            os.rename(root / "d", root / "link")
            os.rename(root / "x", root / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[bytes | int] = set()
    try:
        for _ in range(2000):
            try:
                seen.add(locations.open_file(Location(root), "d/f").read(0, 10))
            except ApiError as error:
                seen.add(error.status)
    finally:
        done.set()
        swapper.join()
    assert b"outside" not in seen
    assert b"inside" in seen

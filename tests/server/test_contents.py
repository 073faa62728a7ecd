"""Many small files in one answer: what is in it, what is left out, and that nothing is torn."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from crc32c import crc32c

from tests.server.running import RunningServer, running_server

KIB = 1024


class Told(NamedTuple):
    rows: list[list[Any]]
    contents: dict[str, bytes]
    more: bool


def ask(client: httpx.Client, bucket: str, **body: object) -> httpx.Response:
    return client.post(f"/files/{bucket}?contents=1", json=body)


def told(answer: httpx.Response) -> Told:
    """What an answer tells; its content is of the lengths and sums that its rows say."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.files.contents"
    body = answer.content
    at = 4 + int.from_bytes(body[:4], "big")
    head = json.loads(body[4:at])
    contents = {}
    for row in head["rows"]:
        content = contents[row[0]] = body[at : at + row[2]]
        at += row[2]
        assert crc32c(content) == row[-1]
    assert at == len(body)
    return Told(head["rows"], contents, head["has_more"])


def put(client: httpx.Client, path: str, content: bytes, **headers: str) -> httpx.Response:
    answer = client.put(f"/files/{path}?alt=media", content=content, headers=headers)
    return answer.raise_for_status()


def test_entries_and_content_come_in_the_order_asked_for(client: httpx.Client, bucket: str) -> None:
    files = {"z": b"last", "a": b"", "m": os.urandom(64 * KIB + 1), "n": os.urandom(128 * KIB)}
    for name, content in files.items():
        put(client, f"{bucket}/d/{name}", content)
    found = told(ask(client, bucket, prefix="d/", names=["z", "m", "a", "n", "z"]))
    assert [row[0] for row in found.rows] == ["z", "m", "a", "n"]
    assert found.contents == files
    assert not found.more
    page = f"/files/{bucket}?prefix=d/&delimiter=/&view=full&limit=9"
    listed = client.get(page, headers={"Files-Rows": "1"}).json()["rows"]
    assert sorted(row[:-1] for row in found.rows) == listed


def test_files_of_the_bucket_itself(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/top", b"here")
    assert told(ask(client, bucket, names=["top"])).contents == {"top": b"here"}
    assert told(ask(client, bucket, names=[])).contents == {}


def test_what_is_no_small_file_is_left_out(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/d/large", bytes(128 * KIB + 1))
    put(client, f"{bucket}/d/below/f", b"x")
    put(client, f"{bucket}/d/link", b"f", **{"Content-Type": "inode/symlink"})
    put(client, f"{bucket}/d/f", b"x")
    names = ["missing", "large", "below", "link", "..", ".", "f"]
    found = told(ask(client, bucket, prefix="d/", names=names))
    assert found.contents == {"f": b"x"}
    assert not found.more


def test_it_ends_where_the_next_one_would_be_too_much(client: httpx.Client, bucket: str) -> None:
    for number in range(40):
        put(client, f"{bucket}/f{number:02}", bytes(50 * KIB))
    names = [f"f{number:02}" for number in range(40)]
    found = told(ask(client, bucket, names=names))
    assert list(found.contents) == names[:20]  # 1 MiB
    assert found.more
    found = told(ask(client, bucket, names=names, limit=100 * KIB))
    assert list(found.contents) == names[:2]
    assert found.more
    assert not told(ask(client, bucket, names=names[:2], limit=100 * KIB)).more


def test_the_cursor_is_of_no_later_change_than_the_answer(
    client: httpx.Client, bucket: str
) -> None:
    before = put(client, f"{bucket}/f", b"1").headers["files-cursor"]
    answer = ask(client, bucket, names=["f"])
    after = put(client, f"{bucket}/f", b"2").headers["files-cursor"]
    numbers = [int(each.rpartition("-")[2]) for each in (before, answer.headers["files-cursor"])]
    assert numbers[0] <= numbers[1] < int(after.rpartition("-")[2])


@pytest.mark.parametrize(
    "body",
    [
        {}, {"names": "f"}, {"names": [1]}, {"names": ["a/b"]}, {"names": [""]},
        {"names": ["ä"]}, {"names": ["a\n"]}, {"names": ["a" * 1025]}, {"names": ["f"] * 257},
        {"names": [], "limit": 0}, {"names": [], "limit": (1 << 20) + 1},
        {"names": [], "limit": "1"}, {"names": [], "prefix": "d"}, {"names": [], "prefix": "/"},
        {"names": [], "prefix": "d//"}, {"names": [], "prefix": "../"}, [], None,
    ],
)  # fmt: skip
def test_what_is_no_such_request_is_400(client: httpx.Client, bucket: str, body: object) -> None:
    put(client, f"{bucket}/d/f", b"x")
    answer = client.post(f"/files/{bucket}?contents=1", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["status"] == 400


def test_what_is_not_there_is_404(client: httpx.Client, bucket: str) -> None:
    assert ask(client, "nothing-here", names=["f"]).status_code == 404
    put(client, f"{bucket}/f", b"x")
    for prefix in ("d/", "f/"):
        assert ask(client, bucket, prefix=prefix, names=["f"]).status_code == 404


def test_a_registered_location_has_it_not(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "f").write_bytes(b"x")
    root = {"file_root": str(tmp_path / "files")}
    with running_server(tmp_path / "data", **root) as server:
        uri = f"file:%2F%2F{str(tmp_path / 'files').replace('/', '%2F')}"
        url = f"{server.url}/v1/files"
        httpx.put(f"{url}/{uri}?name=located").raise_for_status()
        answer = httpx.post(f"{url}/located?contents=1", json={"names": ["f"]})
        assert answer.status_code == 501, answer.text


def test_damaged_content_is_left_out(server: RunningServer, client: httpx.Client) -> None:
    folder = server.data_dir / "blobs"
    put(client, "damaged/whole", os.urandom(100 * KIB))
    before = set(folder.glob("??/*"))
    put(client, "damaged/rotten", os.urandom(100 * KIB))
    put(client, "damaged/gone", os.urandom(100 * KIB))
    rotten, gone = sorted(set(folder.glob("??/*")) - before, key=lambda path: path.stat().st_ino)
    rotten.write_bytes(bytes(100 * KIB))
    gone.unlink()
    found = told(ask(client, "damaged", names=["rotten", "gone", "whole"]))
    assert list(found.contents) == ["whole"]


def test_no_content_is_torn_nor_of_another_entry(client: httpx.Client, bucket: str) -> None:
    """Each version says its number over and over; some are in the catalog, some in blobs."""
    names = [f"f{number}" for number in range(4)]
    sizes = (80, 100 * KIB, 4 * KIB, 70 * KIB)

    def content(number: int) -> bytes:
        return number.to_bytes(4, "big") * (sizes[number % len(sizes)] // 4)

    for name in names:
        put(client, f"{bucket}/d/{name}", content(0))
    stopped, etags = threading.Event(), {}

    def write() -> None:
        with httpx.Client(base_url=client.base_url, trust_env=False) as own:
            for number in range(1, 200):
                name = names[number % len(names)]
                answer = put(own, f"{bucket}/d/{name}", content(number))
                etags[answer.headers["etag"]] = number
        stopped.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: dict[str, bytes] = {}
    while not stopped.is_set():
        for row in (found := told(ask(client, bucket, prefix="d/", names=names))).rows:
            seen[row[4]] = found.contents[row[0]]
    writer.join()
    for etag, data in seen.items():
        assert data == content(etags.get(etag, 0))
    assert len(seen) > 10


def test_the_server_says_that_it_can(client: httpx.Client) -> None:
    assert "contents" in client.options("/files").headers["files-extensions"].split(", ")
    assert client.post("/files/some-bucket", json={"names": []}).status_code == 405


@contextlib.contextmanager
def listening(client: httpx.Client, origin: str) -> Iterator[None]:
    """A client that follows the change feed, and confirms nothing."""
    with (
        httpx.Client(base_url=client.base_url, trust_env=False) as own,
        own.stream("GET", "/files?changes=1", headers={"Files-Origin": origin}) as feed,
    ):
        feed.raise_for_status()
        yield


def test_all_files_of_an_answer_are_leased_or_none(client: httpx.Client, bucket: str) -> None:
    names = [f"f{number}" for number in range(40)]
    for name in names:
        put(client, f"{bucket}/d/{name}", b"x")
    body = {"prefix": "d/", "names": [*names, "missing"]}
    headers = {"Files-Origin": "holder", "Files-Lease": "1"}

    def asked() -> httpx.Headers:
        return client.post(f"/files/{bucket}?contents=1", json=body, headers=headers).headers

    assert "files-lease" not in asked()
    with listening(client, "holder"):
        del headers["Files-Lease"]
        assert "files-lease" not in asked()
        headers["Files-Lease"] = "1"
        give_up = time.monotonic() + 5  # the very first one is granted once that is on disk
        while (lease := asked().get("files-lease")) is None:
            assert time.monotonic() < give_up
        term, milliseconds = lease.split()
        began = time.monotonic()
        put(client, f"{bucket}/d/f39", b"new")
        waited = time.monotonic() - began
        assert 0.5 < waited < int(milliseconds) / 1000 + 2
        again = asked()["files-lease"]
        assert again.split()[0] != term
        client.delete("/files?leases=1", headers={**headers, "Files-Lease": again.split()[0]})
        began = time.monotonic()
        put(client, f"{bucket}/d/f0", b"new")
        assert time.monotonic() - began < 0.5

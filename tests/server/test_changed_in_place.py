"""A change in the middle of a large file: one block is written, the rest is shared, and each
version stays what it is."""

from __future__ import annotations

import base64
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import httpx
import pytest

from files_server import fsck
from files_server.backup import backup
from files_server.blobs.checksums import BLOCK, checksums
from tests.server.running import RunningServer, running_server

BASE = random.Random(7).randbytes(9 * BLOCK + 12_345)
FILES = "/v1/files"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "data", keep_deleted=3600) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def put(client: httpx.Client, data: bytes = BASE) -> str:
    answer = client.put(f"{FILES}/b/f?alt=media", content=data)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


def begin(client: httpx.Client, base: str, size: int = len(BASE)) -> httpx.Response:
    wish = {"bucket": "b", "key": "f", "mime_type": "text/plain", "size": size}
    headers = {"Files-Base": base, "If-Match": base}
    answer = client.post(FILES, json=wish, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def step(
    client: httpx.Client, url: str, at: int, copy: int = 0, data: bytes = b""
) -> httpx.Response:
    headers = {"Upload-Offset": str(at)} | ({"Files-Copy-Base": str(copy)} if copy else {})
    path = httpx.URL(url).raw_path.decode()
    return client.post(path, content=data, headers=headers)


def change(client: httpx.Client, base: str, at: int, data: bytes) -> httpx.Response:
    """As the mount does it; the last answer."""
    url, behind = begin(client, base).json()["url"], at + len(data)
    assert step(client, url, 0, copy=at).status_code == 200
    assert step(client, url, at, data=data).status_code == 200
    return step(client, url, behind, copy=len(BASE) - behind)


def content(client: httpx.Client, etag: str = "", part: str = "") -> bytes:
    version = f"&version={etag.strip(chr(34))}" if etag else ""
    headers = {"Range": part} if part else {}
    answer = client.get(f"{FILES}/b/f?alt=media{version}", headers=headers)
    assert answer.status_code in (200, 206), answer.text
    return answer.content


def changed(at: int, data: bytes, old: bytes = BASE) -> bytes:
    return old[:at] + data + old[at + len(data) :]


def files_of(server: RunningServer) -> dict[int, int]:
    """Bytes on the disk by inode."""
    found = [path.stat() for path in (server.data_dir / "blobs").glob("??/*")]
    return {status.st_ino: status.st_blocks * 512 for status in found}


def check(server: RunningServer) -> None:
    server.stop()
    assert fsck.check(server.data_dir, True, False) == []


AT = 4 * BLOCK + 5_000
NEW = b"n" * 4096


def test_one_block_is_written(server: RunningServer, client: httpx.Client) -> None:
    base = put(client)
    (before,) = files_of(server).values()
    answer = begin(client, base)
    assert answer.headers["files-shares-base"] == "1"
    assert client.delete(answer.json()["url"]).status_code == 200
    etag = change(client, base, AT, NEW).headers["etag"]
    ((_, after),) = files_of(server).items()
    assert after - before <= 2 * BLOCK
    assert content(client) == changed(AT, NEW)
    assert content(client, base) == BASE
    assert (
        content(client, etag, f"bytes={AT - 10}-{AT + 4999}") == changed(AT, NEW)[AT - 10 :][:5010]
    )
    check(server)


def test_ranges_have_the_sums_of_their_blocks(client: httpx.Client) -> None:
    whole = changed(AT, NEW)
    change(client, put(client), AT, NEW)
    for first, last in ((0, 10), (3, 6), (4, 5), (8, 10)):
        start, end = first * BLOCK, min(last * BLOCK, len(whole))
        headers = {"Range": f"bytes={start}-{end - 1}", "Files-Origin": "me"}
        answer = client.get(f"{FILES}/b/f?alt=media", headers=headers)
        assert answer.content == whole[start:end]
        if last - first > 1:
            sums = base64.b64decode(answer.headers["files-block-digests"])
            assert sums == checksums(whole[start:end])
    asked = {"Want-Repr-Digest": "sha-256=10", "Range": "bytes=0-0"}
    with_digest = client.get(f"{FILES}/b/f?alt=media", headers=asked).headers["repr-digest"]
    put(client, whole)
    assert client.get(f"{FILES}/b/f?alt=media", headers=asked).headers["repr-digest"] == with_digest


def test_many_changes_and_what_they_take(server: RunningServer, client: httpx.Client) -> None:
    chosen, whole, etag = random.Random(1), BASE, put(client)
    kept = []
    for number in range(30):
        at = chosen.randrange(len(BASE) - 4096)
        data = chosen.randbytes(chosen.randrange(1, 4096))
        etag = change(client, etag, at, data).headers["etag"]
        whole = changed(at, data, whole)
        kept.append((etag, whole))
        assert content(client) == whole, number
    for version, data in kept:
        assert content(client, version) == data
    assert max(files_of(server).values()) <= 2 * len(BASE) + 2 * BLOCK
    assert len(files_of(server)) == 3  # twice a copy was due
    check(server)


def test_it_may_be_cut_and_go_on(server: RunningServer, client: httpx.Client) -> None:
    base = put(client)
    short = begin(client, base, 8 * BLOCK + 7)
    etag = step(client, short.json()["url"], 0, copy=8 * BLOCK + 7).headers["etag"]
    assert content(client) == BASE[: 8 * BLOCK + 7]
    longer = begin(client, etag, 8 * BLOCK + 11).json()["url"]
    assert step(client, longer, 0, copy=8 * BLOCK + 7).status_code == 200
    assert step(client, longer, 8 * BLOCK + 7, data=b"more").status_code == 200
    assert content(client) == BASE[: 8 * BLOCK + 7] + b"more"
    assert content(client, base) == BASE
    assert len(files_of(server)) == 1
    check(server)


def test_of_two_on_one_base_the_second_is_refused(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client)
    first, second = begin(client, base), begin(client, base)
    assert "files-shares-base" not in second.headers  # it copies: the file is another's to write
    for url, data in ((first.json()["url"], b"first"), (second.json()["url"], b"other")):
        assert step(client, url, 0, copy=AT).status_code == 200
        assert step(client, url, AT, data=data).status_code == 200
    done = step(client, first.json()["url"], AT + 5, copy=len(BASE) - AT - 5)
    assert done.status_code == 200
    refused = step(client, second.json()["url"], AT + 5, copy=len(BASE) - AT - 5)
    assert refused.status_code == 412
    assert content(client) == changed(AT, b"first")
    assert content(client, base) == BASE
    check(server)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_session_goes_on_after_a_kill(
    server: RunningServer, client: httpx.Client, steps: int
) -> None:
    base = put(client)
    url = begin(client, base).json()["url"]
    assert step(client, url, 0, copy=AT).status_code == 200
    if steps == 2:
        assert step(client, url, AT, data=NEW).status_code == 200
    server.kill()
    server.start()
    path = httpx.URL(url).raw_path.decode()
    at = int(client.head(path).headers["upload-offset"])
    assert at == (AT if steps == 1 else AT + len(NEW))
    if steps == 1:
        assert step(client, url, AT, data=NEW).status_code == 200
    done = step(client, url, AT + len(NEW), copy=len(BASE) - AT - len(NEW))
    assert done.status_code == 200, done.text
    assert content(client) == changed(AT, NEW)
    assert content(client, base) == BASE
    assert len(files_of(server)) == 1
    check(server)


def test_while_another_has_the_file_one_goes_on_in_its_own(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client)
    url = begin(client, base).json()["url"]
    assert step(client, url, 0, copy=AT).status_code == 200
    assert step(client, url, AT, data=NEW).status_code == 200
    server.kill()
    server.start()
    other = begin(client, base)
    assert other.headers["files-shares-base"] == "1"
    assert step(client, other.json()["url"], 0, data=b"other").status_code == 200
    done = step(client, url, AT + len(NEW), copy=len(BASE) - AT - len(NEW))
    assert done.status_code == 200, done.text
    assert client.delete(httpx.URL(other.json()["url"]).raw_path.decode()).status_code == 200
    assert content(client) == changed(AT, NEW)
    assert content(client, base) == BASE
    assert len(files_of(server)) == 2
    check(server)


def test_deleted_versions_come_back(server: RunningServer, client: httpx.Client) -> None:
    base = put(client)
    etag = change(client, base, AT, NEW).headers["etag"]
    assert client.delete(f"{FILES}/b/f").status_code == 200
    back = client.post(f"{FILES}/b/f", params={"undelete": etag.strip('"')})
    assert back.status_code == 200, back.text
    assert content(client) == changed(AT, NEW)
    assert client.post(f"{FILES}/b/f", params={"purge": base.strip('"')}).status_code == 200
    assert content(client) == changed(AT, NEW)
    again = change(client, etag, 0, b"again")
    assert again.status_code == 200
    assert content(client) == changed(0, b"again", changed(AT, NEW))
    check(server)


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "another-disk"])
def test_a_backup_during_it(
    server: RunningServer, client: httpx.Client, tmp_path: Path, linked: bool
) -> None:
    base = put(client)
    etag = change(client, base, AT, NEW).headers["etag"]
    url = begin(client, etag).json()["url"]
    assert step(client, url, 0, copy=AT + BLOCK).status_code == 200
    assert step(client, url, AT + BLOCK, data=b"later").status_code == 200
    if linked:
        backup(server.data_dir, tmp_path / "copy")
    else:
        with mock.patch.object(os, "link", side_effect=links_within(tmp_path / "copy")):
            backup(server.data_dir, tmp_path / "copy")
    rest = len(BASE) - AT - BLOCK - 5
    assert step(client, url, AT + BLOCK + 5, copy=rest).status_code == 200
    assert content(client) == changed(AT + BLOCK, b"later", changed(AT, NEW))
    check(server)
    copies = [path.stat() for path in (tmp_path / "copy" / "blobs").glob("??/*")]
    assert len(copies) == 2
    assert len({status.st_ino for status in copies}) == 1
    assert fsck.check(tmp_path / "copy", True, False) == []
    with running_server(tmp_path / "copy") as other, httpx.Client(base_url=other.url) as restored:
        assert content(restored) == changed(AT, NEW)
        assert content(restored, base) == BASE


def links_within(folder: Path):  # type: ignore[no-untyped-def]  # stands in for os.link
    """As if that folder were on another disk."""
    link = os.link

    def only_there(source: Path, target: Path) -> None:
        if not Path(source).is_relative_to(folder):
            raise OSError(18, "another disk")
        link(source, target)

    return only_there


def test_fsck_says_what_is_damaged(server: RunningServer, client: httpx.Client) -> None:
    base = put(client)
    change(client, base, AT, NEW)
    server.stop()
    with closing(sqlite3.connect(server.data_dir / "catalog.sqlite")) as catalog:
        row = catalog.execute("SELECT blob, etag FROM versions WHERE blocks IS NOT NULL").fetchone()
    path = next((server.data_dir / "blobs").glob(f"??/{row[0]}"))
    shutil.copy(path, server.data_dir / "was")
    with path.open("r+b") as file:
        file.seek(10 * BLOCK + 77)  # in the block that was written again
        file.write(b"rotten")
    (problem,) = fsck.check(server.data_dir, True, False)
    assert row[1] in problem.text
    os.truncate(path, 10 * BLOCK)
    (problem,) = fsck.check(server.data_dir, False, False)
    assert "bytes, not" in problem.text
    server.start()
    answer = client.get(f"{FILES}/b/f?alt=media", headers={"Range": f"bytes={AT}-{AT + 9}"})
    assert answer.status_code == 500
    assert answer.headers["files-error"] == "damaged"
    assert content(client, base) == BASE


def test_the_base_may_be_damaged(server: RunningServer, client: httpx.Client) -> None:
    base = put(client)
    (path,) = (server.data_dir / "blobs").glob("??/*")
    with path.open("r+b") as file:
        file.seek(AT - 100)
        file.write(b"rotten")
    url = begin(client, base).json()["url"]
    refused = step(client, url, 0, copy=AT)
    assert refused.status_code == 500
    assert refused.headers["files-error"] == "damaged"


def test_a_damaged_block_does_not_count_where_it_is_copied(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client)
    begin(client, base)  # has the file
    url = begin(client, base).json()["url"]
    (path,) = (server.data_dir / "blobs").glob("??/*")
    with path.open("r+b") as file:
        file.seek(3 * BLOCK + 77)
        file.write(b"rotten")
    at, asked = 0, httpx.URL(url).raw_path.decode()
    for _ in range(2):  # the client asks how far it came, and goes on there
        refused = step(client, url, at, copy=len(BASE) - at)
        assert refused.status_code == 500
        assert refused.headers["files-error"] == "damaged"
        at = int(client.head(asked).headers["upload-offset"])
        assert at == 3 * BLOCK


def test_a_copy_and_what_comes_with_it_stay_within_the_size(client: httpx.Client) -> None:
    url = begin(client, put(client)).json()["url"]
    assert step(client, url, 0, copy=len(BASE) - 10, data=b"x" * 11).status_code == 413
    assert step(client, url, 0, copy=len(BASE) - 10, data=b"x" * 10).status_code == 200
    assert content(client) == BASE[:-10] + b"x" * 10


def test_fsck_leaves_what_was_published_of_an_open_session(
    server: RunningServer, client: httpx.Client
) -> None:
    url = begin(client, put(client)).json()["url"]
    assert step(client, url, 0, copy=AT).status_code == 200
    server.kill()
    (upload,) = (server.data_dir / "uploads").iterdir()
    upload.rename(server.data_dir / "blobs" / "00" / f"{upload.name}.0123")  # as a commit does
    assert fsck.check(server.data_dir, True, True) == []
    server.start()
    assert step(client, url, AT, copy=len(BASE) - AT).status_code == 200
    assert content(client) == BASE

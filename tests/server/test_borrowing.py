"""An upload that continues a version shares that version's bytes, and never changes them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from files_server import fsck, services
from files_server.blobs import local, upload
from files_server.blobs.checksums import BLOCK
from files_server.blobs.layout import Layout
from files_server.blobs.pieces import Stored
from files_server.blobs.upload import UploadFile
from files_server.catalog import tree
from files_server.catalog.commits import Conditions
from files_server.catalog.sessions import Wish
from files_server.parts import Part
from files_server.settings import Settings
from tests.server.running import RunningServer, running_server

BASE = os.urandom(2 * BLOCK + 12_345)
MORE = os.urandom(BLOCK + 777)
FILES = "/v1/files"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "data") as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.post(f"{FILES}", json={"bucket": "b", "key": "x", "mime_type": "a/b", "size": 0})
        yield client


def put(client: httpx.Client, key: str, data: bytes) -> str:
    answer = client.put(f"{FILES}/b/{key}?alt=media", content=data)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


def continue_(client: httpx.Client, key: str, base: str, size: int, begin: int) -> tuple[str, int]:
    """A session on the file: its URL, and where it begins."""
    wish = {"bucket": "b", "key": key, "mime_type": "text/plain", "size": size}
    headers = {"Files-Base": base, "Upload-Offset": str(begin)}
    answer = client.post(FILES, json=wish, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["url"], int(answer.headers["upload-offset"])


def send(client: httpx.Client, url: str, data: bytes, offset: int) -> httpx.Response:
    return client.post(url, content=data, headers={"Upload-Offset": str(offset)})


def content(client: httpx.Client, key: str, etag: str = "") -> bytes:
    version = f"&version={etag.strip(chr(34))}" if etag else ""
    answer = client.get(f"{FILES}/b/{key}?alt=media{version}")
    assert answer.status_code == 200, answer.text
    return answer.content


def blobs(server: RunningServer) -> list[os.stat_result]:
    return [path.stat() for path in (server.data_dir / "blobs").glob("??/*")]


def check(server: RunningServer) -> None:
    server.stop()
    assert fsck.check(server.data_dir, True, False) == []


def test_what_is_appended_is_all_that_is_written(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client, "log", BASE)
    url, at = continue_(client, "log", base, len(BASE + MORE), len(BASE))
    assert at == len(BASE)
    assert send(client, url, MORE, at).status_code == 200
    assert content(client, "log") == BASE + MORE
    assert content(client, "log", base) == BASE
    tail = client.get(
        f"{FILES}/b/log?alt=media&version={base.strip(chr(34))}",
        headers={"Range": f"bytes={len(BASE) - 5}-"},
    )
    assert tail.content == BASE[-5:]
    assert len({found.st_ino for found in blobs(server)}) == 1
    check(server)


def test_it_goes_on_for_many_versions(server: RunningServer, client: httpx.Client) -> None:
    whole, etag = BASE, put(client, "log", BASE)
    for number in range(20):
        line = f"line {number}\n".encode()
        url, at = continue_(client, "log", etag, len(whole + line), len(whole))
        assert at == len(whole)
        etag = send(client, url, line, at).headers["etag"]
        whole += line
    assert content(client, "log") == whole
    assert len({found.st_ino for found in blobs(server)}) == 1
    check(server)


def test_of_two_that_continue_one_version_each_has_its_own_end(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client, "log", BASE)
    first, first_at = continue_(client, "log", base, len(BASE) + 4, len(BASE))
    second, second_at = continue_(client, "log", base, len(BASE) + 4, len(BASE))
    assert (first_at, second_at) == (len(BASE), 0)
    assert send(client, first, b"one.", first_at).status_code == 200
    copied = {"Files-Copy-Base": str(len(BASE)), "Upload-Offset": "0"}
    assert client.post(second, headers=copied).status_code == 200
    etag = client.get(f"{FILES}/b/log").headers["etag"]
    assert send(client, second, b"two.", len(BASE)).status_code == 200
    assert content(client, "log") == BASE + b"two."
    assert content(client, "log", etag) == BASE + b"one."
    assert content(client, "log", base) == BASE
    check(server)


def test_what_one_left_that_was_given_up_is_not_taken_for_content(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client, "log", BASE)
    url, at = continue_(client, "log", base, len(BASE) + 9, len(BASE))
    assert send(client, url, b"lost", at).headers["upload-offset"] == str(len(BASE) + 4)
    server.kill()  # its lock is gone, and what it left may be anybody's
    server.start()
    assert client.delete(httpx.URL(url).raw_path.decode()).status_code == 200
    assert content(client, "log") == BASE
    url, at = continue_(client, "log", base, len(BASE) + 4, len(BASE))
    assert at == len(BASE)
    assert send(client, url, b"kept", at).status_code == 200
    assert content(client, "log") == BASE + b"kept"
    check(server)


def test_what_was_given_up_takes_no_space(server: RunningServer, client: httpx.Client) -> None:
    base = put(client, "log", BASE)
    url, at = continue_(client, "log", base, len(BASE + MORE) + 1, len(BASE))
    assert send(client, url, MORE, at).status_code == 200
    assert client.delete(url).status_code == 200
    assert [found.st_size for found in blobs(server)] == [len(BASE)]
    url, at = continue_(client, "log", base, len(BASE) + 4, len(BASE))
    assert at == len(BASE)
    assert send(client, url, b"kept", at).status_code == 200
    assert client.delete(url).status_code == 200  # after its commit: it takes nothing back
    assert content(client, "log") == BASE + b"kept"
    check(server)


def test_of_a_refused_upload_nothing_stays(server: RunningServer, client: httpx.Client) -> None:
    base = put(client, "log", BASE)
    wish = {"bucket": "b", "key": "log", "mime_type": "a/b", "size": len(BASE) + 1}
    headers = {"Files-Base": base, "Upload-Offset": str(len(BASE)), "If-Match": '"other"'}
    assert client.post(FILES, json=wish, headers=headers).status_code == 412
    url, at = continue_(client, "log", base, len(BASE) + 1, len(BASE))
    assert at == len(BASE)
    assert client.post(FILES, json=wish, headers=headers).status_code == 412  # the end is taken
    assert len(list((server.data_dir / "uploads").iterdir())) == 1
    assert client.delete(url).status_code == 200
    check(server)


def test_sessions_that_nobody_sends_to_hold_few_files_open(
    server: RunningServer, client: httpx.Client
) -> None:
    last = ("", b"", "")
    for number in range(300):
        data = os.urandom(66_000)
        etag = put(client, f"{number}", data)
        url, at = continue_(client, f"{number}", etag, len(data) + 1, len(data))
        assert at == len(data)
        last = last if last[0] else (url, data, f"{number}")
    assert len(os.listdir(f"/proc/{server.pid}/fd")) < 300
    url, data, key = last  # its file was closed meanwhile
    assert send(client, url, b"!", len(data)).status_code == 200
    assert content(client, key) == data + b"!"
    check(server)


def test_the_same_request_twice_at_once_begins_one_file(tmp_path: Path) -> None:
    """The first is slow with its link: the second may not have a file meanwhile that this link
    then replaces."""
    asyncio.run(_twice_at_once(tmp_path / "data"))


async def _twice_at_once(data_dir: Path) -> None:
    async with services.opened(Settings(data_dir=data_dir)) as opened:
        uploads, blobs = opened.uploads, opened.blobs
        conditions = Conditions("", "")
        first = Wish("b", "log", "a/b", conditions)
        await opened.catalog.write(lambda tx: tree.make_bucket(tx, "b"))
        etag = (await uploads.put(first, _part(BASE), "")).node.etag
        wish, size = Wish("b", "log", "a/b", conditions, base=etag), len(BASE) + 4
        held, real = threading.Event(), blobs.borrow

        def slow(*asked: Any) -> UploadFile | None:
            if held.is_set():
                return None  # as while another session has the end
            held.set()
            time.sleep(0.5)
            return real(*asked)

        with mock.patch.object(blobs, "borrow", slow):
            one = asyncio.create_task(uploads.create(wish, size, "", "key", len(BASE)))
            await asyncio.to_thread(held.wait)
            session = await uploads.create(wish, size, "", "key", len(BASE))
            whole = BASE + b"mine"
            if session.offset == 0:  # half of it is there when the first one comes to its link
                await uploads.append(session.id, _part(whole[:BLOCK], 0), "")
            await one
        at = uploads.find(session.id).offset
        outcome = await uploads.append(session.id, _part(whole[at:], at), "")
        assert outcome is not None
        version = opened.catalog.version_by_etag(outcome.node.etag, "b", "log")
        assert blobs.read(version.blob or "", Layout(), 0, size) == whole


def _part(data: bytes, offset: int | None = None) -> Part:
    async def stream() -> AsyncIterator[bytes]:
        yield data

    return Part(stream(), len(data), offset)


def test_a_file_of_its_own_is_used_though_its_folder_cannot_be_synced(tmp_path: Path) -> None:
    blobs = local.LocalBlobs(tmp_path)
    blobs.prepare()
    with contextlib.closing(blobs.open_upload("first")) as file:
        file.write(memoryview(BASE))
        stored = Stored(len(BASE), file.sums.value())
        blobs.publish(file, "blob")
    with contextlib.closing(blobs.open_upload("second")) as shared:
        assert shared.borrow(blobs.path("blob"), stored, len(BASE), len(BASE))
        at = (len(BASE), *shared.shared)
        shared.write(memoryview(b"lost"))
    with blobs.path("blob").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another upload has it while this one comes back
        failing = mock.patch.object(upload, "sync_folder", side_effect=OSError(errno.EMFILE, "no"))
        with failing, pytest.raises(OSError, match="no"):
            blobs.resume_upload("second", *at)
        with contextlib.closing(blobs.resume_upload("second", *at)) as own:
            own.back(own.mark())
            own.write(memoryview(b"mine"))
            blobs.publish(own, "other")
            places = Layout(own.blocks)
    assert blobs.read("other", places, 0, len(BASE) + 9) == BASE + b"mine"
    assert blobs.path("blob").read_bytes()[: len(BASE)] == BASE


def test_after_a_crash_it_goes_on_in_the_same_file(
    server: RunningServer, client: httpx.Client
) -> None:
    base = put(client, "log", BASE)
    url, at = continue_(client, "log", base, len(BASE + MORE), len(BASE))
    half = len(MORE) // 2
    assert send(client, url, MORE[:half], at).status_code == 200
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()
    with httpx.Client(base_url=server.url, timeout=30) as again:
        path = httpx.URL(url).raw_path.decode()
        found = again.head(path).headers["upload-offset"]
        assert found == str(len(BASE) + half)
        assert send(again, path, MORE[half:], int(found)).status_code == 200
        assert content(again, "log") == BASE + MORE
        assert content(again, "log", base) == BASE
    assert len({found.st_ino for found in blobs(server)}) == 1
    check(server)


@pytest.mark.parametrize("begin", [1, len(BASE) - 1, len(BASE) + 1, 10 * len(BASE)])
def test_another_beginning_is_no_beginning(client: httpx.Client, begin: int) -> None:
    base = put(client, "log", BASE)
    assert continue_(client, "log", base, 11 * len(BASE), begin)[1] == 0


def test_a_version_that_is_no_more_or_small_is_not_shared(client: httpx.Client) -> None:
    base = put(client, "small", b"small")
    assert continue_(client, "small", base, 10, 5)[1] == 0
    assert continue_(client, "small", '"none"', 10, 5)[1] == 0

"""A byte that is flipped in a stored blob is never served, in whatever way it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from files_server.blobs import checked, resident
from files_server.blobs.checked import CheckedRanges, DamagedError, stamp_of
from files_server.blobs.checksums import checksums
from files_server.blobs.pieces import Stored
from tests.server.running import RunningServer, running_server

MIB = 1 << 20
SMALL = random.Random(1).randbytes(3 * MIB + 5)
LARGE = random.Random(2).randbytes(MIB) * 65 + b"and some"  # more than what is summed in advance
WITH_ORIGIN = {"Files-Origin": "mount"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("damaged") / "data") as server:
        yield server


class OnServer:
    """A file on the server, and its blob."""

    def __init__(self, server: RunningServer, key: str, data: bytes) -> None:
        before = set(_blobs(server))
        self.url = f"{server.url}/v1/files/b/{key}?alt=media"
        self.data = data
        httpx.put(self.url, content=data, timeout=30).raise_for_status()
        (self.blob,) = set(_blobs(server)) - before

    def flip(self, at: int) -> None:
        """As rot does: the file's times stay."""
        status = self.blob.stat()
        with self.blob.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))
        os.utime(self.blob, ns=(status.st_atime_ns, status.st_mtime_ns))

    def get(self, **headers: str) -> httpx.Response:
        return httpx.get(self.url, headers=headers, timeout=30)

    def broken_off(self, **headers: str) -> bytes:
        """What comes of an answer that is 200 or 206, and ends too early."""
        got = bytearray()
        with httpx.stream("GET", self.url, headers=headers, timeout=30) as answer:
            assert answer.is_success
            with pytest.raises(httpx.RemoteProtocolError):
                _take(answer, got)
        return bytes(got)


def _take(answer: httpx.Response, got: bytearray) -> None:
    for chunk in answer.iter_raw():
        got += chunk


def _blobs(server: RunningServer) -> Iterator[Path]:
    return (server.data_dir / "blobs").glob("??/*")


def test_a_whole_file_is_a_500_where_that_can_still_be_told(server: RunningServer) -> None:
    small, large = OnServer(server, "small", SMALL), OnServer(server, "large", LARGE)
    assert small.get().content == SMALL
    assert small.get().content == SMALL  # of what is known to be right
    assert large.get().content == LARGE
    assert large.get().content == LARGE
    small.flip(3 * MIB + 2)
    large.flip(5)
    for file, name in ((small, "small"), (large, "large")):
        answer = file.get()
        assert (answer.status_code, answer.headers["Files-Error"]) == (500, "damaged")
        assert f"{name}' are damaged" in answer.json()["detail"]
        assert f"'{name}' is damaged on disk" in server.log()


def test_a_long_answer_breaks_off_ahead_of_the_damage(server: RunningServer) -> None:
    file = OnServer(server, "long", LARGE)
    assert file.get().content == LARGE
    file.flip(60 * MIB + 100)
    for headers in ({}, {"Range": f"bytes=1000-{len(LARGE) - 10}"}, {"Range": f"bytes={MIB}-"}):
        begin = int(headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
        got = file.broken_off(**headers)
        assert len(got) <= 60 * MIB - begin
        assert got == LARGE[begin : begin + len(got)]
    assert "'long' is damaged on disk: bytes 62914560-" in server.log()
    assert "Traceback" not in server.log()
    whole = file.get(Range=f"bytes=0-{60 * MIB - 1}")
    assert (whole.status_code, whole.content) == (206, LARGE[: 60 * MIB])


def test_ranges_are_checked_but_for_those_who_do_it_themselves(server: RunningServer) -> None:
    file = OnServer(server, "ranges", SMALL)
    file.flip(MIB)
    for part in (f"{MIB}-{2 * MIB - 1}", f"{MIB - 5}-{MIB + 5}", f"{MIB}-"):
        assert file.get(Range=f"bytes={part}").status_code == 500
    assert file.get(Range=f"bytes=0-{MIB - 1}").content == SMALL[:MIB]
    sums = file.get(Range=f"bytes={MIB}-{2 * MIB - 1}", **WITH_ORIGIN)
    assert sums.status_code == 206
    assert "content-digest" in sums.headers


def test_one_that_was_cut_or_is_lost_is_a_500(server: RunningServer) -> None:
    cut, lost = OnServer(server, "cut", LARGE), OnServer(server, "lost", SMALL)
    os.truncate(cut.blob, len(LARGE) - 1)
    lost.blob.unlink()
    for file in (cut, lost):
        assert file.get().status_code == 500
        assert file.get(Range="bytes=-5").status_code == 500


def test_fsck_names_what_the_server_does_not_serve(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        file = OnServer(server, "k", LARGE)
        file.flip(60 * MIB)
        file.broken_off()
    command = [sys.executable, "-m", "files_server.fsck", "--digests", str(server.data_dir)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert str(file.blob) in found.stdout


def test_who_is_known_to_be_right_is_not_read_again_while_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(SMALL)
    stored = Stored(len(SMALL), checksums(SMALL))
    monkeypatch.setattr(checked, "_AHEAD", 0)  # as a large file: its sender sums it
    in_memory = True
    monkeypatch.setattr(checked, "is_resident", lambda *_: in_memory)

    async def scenario() -> None:
        nonlocal in_memory
        ranges = CheckedRanges()
        assert not await ranges.is_right(str(path), stored)
        ranges.note(str(path), stamp_of(path.stat()), 0, 2 * MIB)
        assert not await ranges.is_right(str(path), stored)
        ranges.note(str(path), stamp_of(path.stat()), 2 * MIB, len(SMALL))
        assert await ranges.is_right(str(path), stored)
        in_memory = False
        assert not await ranges.is_right(str(path), stored)
        in_memory = True
        os.utime(path)
        assert not await ranges.is_right(str(path), stored)

    asyncio.run(scenario())


def test_a_short_file_is_read_and_summed_ahead(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(SMALL + b"a later version's")
    assert asyncio.run(CheckedRanges().is_right(str(path), Stored(len(SMALL), checksums(SMALL))))
    with pytest.raises(DamagedError):
        asyncio.run(CheckedRanges().is_right(str(path), Stored(len(SMALL) + 1, checksums(SMALL))))


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_whether_a_file_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    if kernel == "old":
        monkeypatch.setattr(resident, "_CACHESTAT", 100_000)  # no system call
    path = tmp_path / "file"
    path.write_bytes(SMALL)
    with path.open("rb") as file:
        number = file.fileno()
        assert resident.is_resident(number, len(SMALL))
        assert not resident.is_resident(number, len(SMALL) + 10 * MIB)
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.stat(path).st_dev != os.stat("/dev/shm").st_dev:  # nothing of a tmpfs leaves it
            assert not resident.is_resident(number, len(SMALL))


def test_clients_that_take_nothing_cost_little_memory(server: RunningServer) -> None:
    """Two pieces of 2 MiB each, and what the HTTP server holds beside."""
    file = OnServer(server, "slow", LARGE)
    file.blob.touch()  # so that it is read, and not handed to the HTTP server
    host, _, port = server.url.partition("//")[2].partition(":")
    head = f"GET /v1/files/b/slow?alt=media HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    before = _resident(server)
    with contextlib.ExitStack() as open_ones:
        for _ in range(24):
            client = open_ones.enter_context(socket.create_connection((host, int(port)), 30))
            client.sendall(head)
            assert client.recv(12) == b"HTTP/1.1 200"
        time.sleep(1)
        assert _resident(server) - before < 24 * 9 * MIB


def _resident(server: RunningServer) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10

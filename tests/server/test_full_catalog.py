"""A disk that small files fill, which are kept in the catalog: removals go on, and make room."""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from files_server import fsck
from files_server.catalog import disk
from tests.server.running import RunningServer, running_server

_REFUSED = 20  # answers of 507 after which the disk is taken for full


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of so many MiB."""
    folder = tmp_path / "disk"

    def mounted(size: int) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "filesfs-test", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting a tmpfs needs root")
        return folder

    yield mounted
    if folder.exists():
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Files:
    """What a client put, and is to find."""

    def __init__(self, server: RunningServer, size: int) -> None:
        self._base = f"{server.url}/v1/files/b"
        self._size = size
        self._client = httpx.Client(timeout=30)
        self.there: dict[str, bytes] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def put(self, name: str) -> int:
        data = os.urandom(self._size)
        answer = self._client.put(f"{self._base}/{name}?alt=media", content=data)
        if answer.status_code == 200:
            self.there[name] = data
        return answer.status_code

    def delete(self, name: str) -> int:
        status = self._client.delete(f"{self._base}/{name}").status_code
        if status == 200:
            del self.there[name]
        return status

    def fill(self, clients: int) -> None:
        refused, number = 0, 0
        with ThreadPoolExecutor(clients) as pool:
            while refused < _REFUSED:
                names = [str(number + each) for each in range(clients)]
                answers = list(pool.map(self.put, names))
                assert set(answers) <= {200, 507}
                refused += answers.count(507)
                number += clients

    def delete_half(self, clients: int) -> None:
        with ThreadPoolExecutor(clients) as pool:
            for status in pool.map(self.delete, list(self.there)[::2]):
                assert status == 200

    def check(self) -> None:
        for name, data in self.there.items():
            assert self._client.get(f"{self._base}/{name}?alt=media").content == data


def fill_up(path: Path) -> None:
    """With one file, to the last block."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize(
    ("mib", "length", "clients", "end"),
    [
        (24, 9000, 1, RunningServer.stop),
        (40, 30_000, 16, RunningServer.kill),
    ],
)
def test_removals_go_on(
    disk_of: Callable[[int], Path],
    mib: int,
    length: int,
    clients: int,
    end: Callable[[RunningServer], object],
) -> None:
    folder = disk_of(mib)
    with running_server(folder, superseded_seconds=0) as server, Files(server, length) as files:
        files.fill(clients)
        assert len(files.there) * length > mib << 18  # the log did not take the most
        files.delete_half(clients)
        assert end(server) in (0, None)
        fill_up(folder / "filler")
        server.start()
        files.check()
        files.delete_half(clients)
        (folder / "filler").unlink()
        assert {files.put(f"again{number}") for number in range(50)} == {200}
        files.check()
        files.fill(clients)
        assert server.stop() == 0
        assert "Traceback" not in server.log()
    assert fsck.check(folder, True, False) == []


def test_what_could_be_undeleted_gives_way_to_small_files(disk_of: Callable[[int], Path]) -> None:
    folder = disk_of(24)
    with running_server(folder, keep_deleted="7d") as server, Files(server, 30_000) as files:
        files.fill(1)
        for number in range(3):  # each of which needs the place of what was removed before
            files.delete_half(1)
            for each in range(len(files.there) // 2):
                assert files.put(f"{number}.{each}") == 200
        files.check()


def test_where_the_disk_cannot_allocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked what is free, and nothing is written to the catalog's file behind SQLite."""
    path = tmp_path / "catalog"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (data BLOB)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = path.stat().st_size
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
        place = disk.Place(path)
        monkeypatch.setattr(disk, "_libc", Unable)
        place.take(connection)
        free = os.statvfs_result((4096, 4096, 999, 100, 100, 9, 9, 9, 0, 255))
        monkeypatch.setattr(os, "fstatvfs", lambda _: free)
        with pytest.raises(OSError, match="No space"):
            place.take(connection)
        monkeypatch.undo()
        assert path.stat().st_size == size
        place.take(connection)
        assert path.stat().st_size > 1_000_000
        connection.execute("ROLLBACK")
    place.close()


class Unable:
    """A kernel that has it, and a file system that has not."""

    @staticmethod
    def fallocate(*_: int) -> int:
        ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

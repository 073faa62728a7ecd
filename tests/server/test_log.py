"""The catalog's log as a file: as long as it will be, and in memory, before commits need it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from files_server.catalog import database, log
from files_server.catalog.log import Log

_PAGES = 200


@pytest.fixture
def opened(tmp_path: Path) -> sqlite3.Connection:
    """A catalog's connection, with one change in the log."""
    path = tmp_path / "catalog"
    database.prepare(path)
    connection = database.connect(path)
    _change(connection, 0)
    return connection


def _change(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO meta VALUES (?, '')", (f"change{number}",))


def _changes(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM meta WHERE name LIKE 'change%'").fetchone()
    return int(row[0])


def _used(found: Log) -> None:
    for _ in range(log._UNTIL):
        found.before_commit()


def _in_memory(path: Path) -> bool:
    """All of a file, as the kernel tells it."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        found = (ctypes.c_ubyte * (-(-len(mapped) // mmap.PAGESIZE)))()
        first = ctypes.c_char.from_buffer(mapped)
        at, length = ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped))
        assert ctypes.CDLL(None).mincore(at, length, found) == 0
        del first  # or it could not be unmapped
        return all(page & 1 for page in found)


def test_a_log_that_is_used_is_as_long_as_it_will_be(
    tmp_path: Path, opened: sqlite3.Connection
) -> None:
    file = tmp_path / "catalog-wal"
    found, before = Log(tmp_path / "catalog", _PAGES), file.stat().st_size
    for _ in range(log._UNTIL - 1):
        found.before_commit()
    assert file.stat().st_size == before
    found.before_commit()
    length = file.stat().st_size
    assert length >= _PAGES * 4096
    assert file.stat().st_blocks * 512 >= length  # written, not a hole
    for number in range(1, 100):
        _change(opened, number)
    assert file.stat().st_size == length
    found.close()
    opened.close()


def test_zeros_behind_the_log_are_its_end_after_a_crash(
    tmp_path: Path, opened: sqlite3.Connection
) -> None:
    found = Log(tmp_path / "catalog", _PAGES)
    _used(found)
    for number in range(1, 10):
        _change(opened, number)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("catalog", "catalog-wal"):
        shutil.copy(tmp_path / name, crashed / name)
    again = database.connect(crashed / "catalog")
    assert _changes(again) == 10
    _change(again, 10)
    again.close()
    assert _changes(sqlite3.connect(crashed / "catalog")) == 11
    found.close()
    opened.close()


def test_a_disk_with_little_room_is_left_alone(
    tmp_path: Path, opened: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_ROOM", 1 << 62)
    before = (tmp_path / "catalog-wal").stat().st_size
    found = Log(tmp_path / "catalog", _PAGES)
    _used(found)
    assert (tmp_path / "catalog-wal").stat().st_size == before
    found.close()
    opened.close()


def test_a_disk_that_is_full_meanwhile_gets_back_what_was_taken(
    tmp_path: Path, opened: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.pwrite, [3]

    def full(descriptor: int, data: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    before = (tmp_path / "catalog-wal").stat().st_size
    found = Log(tmp_path / "catalog", _PAGES)
    _used(found)
    assert left[0] < 0
    assert (tmp_path / "catalog-wal").stat().st_size == before
    _change(opened, 1)
    found.close()
    opened.close()


def test_what_the_kernel_dropped_of_it_is_read_again(
    tmp_path: Path, opened: sqlite3.Connection
) -> None:
    found = Log(tmp_path / "catalog", _PAGES)
    _used(found)
    file = tmp_path / "catalog-wal"
    with file.open("rb") as opened_again:
        os.fsync(opened_again.fileno())
        os.posix_fadvise(opened_again.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found.after_commit()
    end = time.monotonic() + 10
    while not _in_memory(file) and time.monotonic() < end:
        time.sleep(0.01)
    assert _in_memory(file)
    found.close()
    opened.close()

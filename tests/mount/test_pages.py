"""The kernel's pages of a file: kept while the version is the same, and never of another one."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MIB = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def resident(path: Path) -> float:
    """The part of a file that the kernel has in memory, without reading any of it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        pages = (len(mapped) + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        found = (ctypes.c_ubyte * pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), found) == 0
        del address
        return sum(page & 1 for page in found) / pages


def test_what_was_written_is_not_read_again(bucket: Path) -> None:
    """Though its mtime moved with each write, which was seen in between."""
    path, data = bucket / "file", os.urandom(3 * MIB)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), MIB):
            file.write(data[start : start + MIB])
            os.fstat(file.fileno())
    path.stat()
    assert resident(path) == 1
    assert path.read_bytes() == data
    with path.open("r+b", buffering=0) as file:
        file.write(b"changed")
    path.stat()
    assert resident(path) == 1
    os.utime(path, ns=(1, 1))
    assert resident(path) == 1
    assert path.read_bytes() == b"changed" + data[7:]


def test_what_another_client_wrote_is(bucket: Path, elsewhere: Path) -> None:
    """Of the same length, so that only its version tells; and longer within the last page."""
    path = bucket / "file"
    path.write_bytes(b"a" * 10_000)
    there = elsewhere / "file"
    for content in (b"b" * 10_000, b"c" * 10_010, b"d" * 4096, b"e" * 10_000):
        there.write_bytes(content)
        assert path.read_bytes() == content
        assert path.read_bytes() == content


def test_a_new_length_is_a_new_inode(bucket: Path, elsewhere: Path) -> None:
    """Else what the kernel was told before, and hears late, would cut the new content."""
    path = bucket / "file"
    path.write_bytes(b"a" * 4096)
    there = elsewhere / "file"
    for content, stays in ((b"b" * 4096, True), (b"c" * 64, False), (b"d" * 4032, False)):
        known = os.open(path, os.O_PATH)  # so that its number stays in use
        there.write_bytes(content)
        assert path.read_bytes() == content
        assert (path.stat().st_ino == os.stat(f"/proc/self/fd/{known}").st_ino) is stays
        os.close(known)


def test_lengths_that_change_within_a_page_are_never_mixed(bucket: Path, elsewhere: Path) -> None:
    """Readers that ask for the length, and such that do not, while another client writes."""
    path = bucket / "file"
    path.write_bytes(b"-" * 64)
    end = time.monotonic() + 5
    with ThreadPoolExecutor(6) as threads:
        there = elsewhere / "file"
        asked = (_all_by_4_kib, _all_by_its_length)
        readers = [threads.submit(_odd, path, end, asked[n % 2]) for n in range(6)]
        number = 0
        while time.monotonic() < end:
            number += 1
            length = (4096, 4032, 3968, 64)[number * number % 7 % 4]
            with there.open("r+b", buffering=0) as file:
                file.truncate(0)
                file.write(b"%15d " % length * (length // 16))
        assert [odd for reader in readers for odd in reader.result()] == []


def _all_by_4_kib(file: int) -> bytes:
    return b"".join(iter(lambda: os.read(file, 4096), b""))


def _all_by_its_length(file: int) -> bytes:
    return os.read(file, os.fstat(file).st_size)


def _odd(path: Path, end: float, read: Callable[[int], bytes]) -> list[bytes]:
    """What was read until `end` and is no whole version, which would tell its length."""
    odd = []
    while time.monotonic() < end:
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.ESTALE:  # it changed twice within one call
                raise
            continue
        try:
            data = read(file)
        finally:
            os.close(file)
        whole = data == b"-" * 64 or data == b"%15d " % len(data) * (len(data) // 16)
        if not whole:
            odd.append(data[:16] + b"... %d" % len(data))
    return odd

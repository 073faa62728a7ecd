"""The kernel's pages of a file: kept while the version is the same, and never of another one."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

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


def test_what_another_client_wrote_is(
    server: RunningServer, mount: MountedFilesystem, bucket: Path, tmp_path: Path
) -> None:
    """Of the same length, so that only its version tells; and longer within the last page."""
    path = bucket / "file"
    path.write_bytes(b"a" * 10_000)
    with mounted(server.url, tmp_path) as other:
        there = other.path / bucket.name / "file"
        for content in (b"b" * 10_000, b"c" * 10_010, b"d" * 4096, b"e" * 10_000):
            there.write_bytes(content)
            assert path.read_bytes() == content
            assert path.read_bytes() == content

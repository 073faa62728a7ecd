"""Small ranges of blobs: from blocks that are right, which are not read as a whole each time."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from files_server.blobs import checked, pieces
from files_server.blobs.checked import CheckedRanges, DamagedError
from files_server.blobs.checksums import BLOCK, checksums
from files_server.blobs.pieces import Stored

CONTENT = random.Random(3).randbytes(2 * BLOCK + 5000)
STORED = Stored(len(CONTENT), checksums(CONTENT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return path


def test_any_range(path: Path) -> None:
    async def read_all() -> None:
        ranges = CheckedRanges()
        for start, end in ((5, 4101), (0, BLOCK), (BLOCK - 1, BLOCK + 1), (7, len(CONTENT))) * 2:
            assert await ranges.read(str(path), STORED, start, end) == CONTENT[start:end]

    asyncio.run(read_all())


def test_a_block_is_summed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summed = []

    def counted(data: bytes) -> bytes:
        summed.append(len(data))
        return checksums(data)

    monkeypatch.setattr(pieces, "checksums", counted)
    # tmpfs, where tests may lie, does not tell whether something is in memory.
    monkeypatch.setattr(
        checked, "_from_page_cache", lambda _, start, length: CONTENT[start : start + length]
    )

    async def read_often() -> None:
        ranges = CheckedRanges()
        for start in range(0, BLOCK, 50_000):
            await ranges.read(str(path), STORED, start, start + 4096)
        await ranges.read(str(path), STORED, 0, 4096, afresh=True)

    asyncio.run(read_often())
    assert summed == [BLOCK, BLOCK]


def test_a_file_that_was_touched_is_summed_again(path: Path) -> None:
    async def read_twice() -> None:
        ranges = CheckedRanges()
        await ranges.read(str(path), STORED, 0, 4096)
        with path.open("r+b") as file:
            file.write(b"damaged")
        os.utime(path, ns=(1, 1))
        await ranges.read(str(path), STORED, 0, 4096)

    with pytest.raises(DamagedError):
        asyncio.run(read_twice())


def test_a_file_that_was_cut(path: Path) -> None:
    os.truncate(path, BLOCK + 100)
    with pytest.raises(DamagedError):
        asyncio.run(CheckedRanges().read(str(path), STORED, BLOCK, BLOCK + 50))


def test_what_comes_from_the_disk_is_summed_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the block has left the page cache, and its bits have rotted on the disk since."""
    status = path.stat()

    async def read_twice() -> None:
        ranges, stamp = CheckedRanges(), checked.stamp_of(status)
        await ranges.read(str(path), STORED, 0, 4096)
        with path.open("r+b") as file:
            file.write(b"damaged")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        monkeypatch.setattr(checked, "_from_page_cache", lambda *_: None)
        # Nobody has written to the file that rots.
        monkeypatch.setattr(checked, "stamp_of", lambda _: stamp)
        await ranges.read(str(path), STORED, 0, 4096)

    with pytest.raises(DamagedError):
        asyncio.run(read_twice())

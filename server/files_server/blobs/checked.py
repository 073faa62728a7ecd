"""Content of blobs that the client does not check against whole blocks: checked here.

It must not know requests. A block that was right is not read as a whole again for each small range
of it, nor for each answer with the whole file, for a while, as long as its file is the same and
what is asked for is in the page cache: a random reader would have 1 MiB read and summed for every
4 KiB. What has to come from the disk is always checked, since that is where bits rot.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Iterable

from crc32c import crc32c

from files_server.blobs.checksums import BLOCK
from files_server.blobs.pieces import PIECE, DamagedError, Stored, piece
from files_server.blobs.resident import is_resident

__all__ = ["CheckedRanges", "DamagedError"]

_TRUSTED_SECONDS = 600.0
_TRUSTED_BLOCKS = 16_384  # 16 GiB of content; 3 MiB of memory
_INLINE = 256 << 10  # bytes that are copied from the page cache without a thread
_AHEAD = 64 << 20  # bytes that are read and summed before a client gets impatient

Stamp = tuple[int, int]  # a file's mtime and ctime in nanoseconds
_Block = tuple[str, Stamp, int]  # the file's path and state, the block's index


class CheckedRanges:
    """Owner of the knowledge which blocks were right lately. Event loop only."""

    def __init__(self) -> None:
        self._right: OrderedDict[_Block, float] = OrderedDict()  # until when (monotonic)

    async def read(
        self, path: str, stored: Stored, start: int, end: int, *, afresh: bool = False
    ) -> bytes:
        """Bytes [start, end) of a version in a file, from blocks that are what was stored.

        `afresh`: whatever was known of them. FileNotFoundError, DamagedError.
        """
        stamp = stamp_of(os.stat(path))
        if not afresh and end - start <= _INLINE and self._are_right(path, stamp, start, end):
            places = list(stored.layout.runs(start, end))
            known = _from_page_cache(path, *places[0]) if len(places) == 1 else None
            if known is not None:
                return known
        data = await asyncio.to_thread(_checked, path, stored, start, end)
        self.note(path, stamp, start, end)
        return data

    async def check(self, path: str, stored: Stored, start: int, end: int) -> int:
        """The crc32c of bytes [start, end), from blocks that are what was stored. They can be sent
        unread then: they have just come into the page cache. FileNotFoundError, DamagedError.
        """
        stamp = stamp_of(os.stat(path))
        found = await asyncio.to_thread(_check, path, stored, start, end)
        self.note(path, stamp, start, end)
        return found

    async def is_right(self, path: str, stored: Stored) -> bool:
        """Whether a whole version can be sent unread: it is in the page cache, in order, and is
        what was stored. A short one is read and checked for that. FileNotFoundError, DamagedError.
        """
        if stored.layout.blocks is not None:
            return False
        stamp, size = stamp_of(os.stat(path)), stored.size
        if self._are_right(path, stamp, 0, size) and await _is_resident(path, size):
            return True
        if size > _AHEAD:
            return False
        await asyncio.to_thread(_check, path, stored, 0, size)
        self.note(path, stamp, 0, size)
        return True

    def note(self, path: str, stamp: Stamp, start: int, end: int) -> None:
        """All blocks of [start, end) were right when the file's state was `stamp`."""
        until = time.monotonic() + _TRUSTED_SECONDS
        for block in _blocks(path, stamp, start, end):
            self._right[block] = until
            self._right.move_to_end(block)
        while len(self._right) > _TRUSTED_BLOCKS:
            self._right.popitem(last=False)

    def _are_right(self, path: str, stamp: Stamp, start: int, end: int) -> bool:
        now = time.monotonic()
        return all(self._right.get(block, 0.0) > now for block in _blocks(path, stamp, start, end))


def stamp_of(status: os.stat_result) -> Stamp:
    """Another one after each change of the file, also one that sets its time back."""
    return status.st_mtime_ns, status.st_ctime_ns


def _blocks(path: str, stamp: Stamp, start: int, end: int) -> Iterable[_Block]:
    return ((path, stamp, number) for number in range(start // BLOCK, -(-end // BLOCK)))


async def _is_resident(path: str, size: int) -> bool:
    def look() -> bool:
        with open(path, "rb", buffering=0) as file:
            return is_resident(file.fileno(), size)

    return look() if size <= _AHEAD else await asyncio.to_thread(look)


def _from_page_cache(path: str, start: int, length: int) -> bytes | None:
    """What needs no disk; None if some of it does."""
    data = bytearray(length)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        count = os.preadv(descriptor, [data], start, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or a file system that cannot tell
        return None
    finally:
        os.close(descriptor)
    return bytes(data) if count == len(data) else None


def _checked(path: str, stored: Stored, start: int, end: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return piece(file.fileno(), stored, start, end)


def _check(path: str, stored: Stored, start: int, end: int) -> int:
    found = 0
    with open(path, "rb", buffering=0) as file:
        while start < end:
            behind = min(end, start - start % BLOCK + PIECE)
            found = crc32c(piece(file.fileno(), stored, start, behind), found)
            start = behind
    return found

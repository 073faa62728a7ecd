"""Ranges of blobs that their client cannot check against whole blocks: checked here.

It must not know requests. A block that was right is not read as a whole again for each small range
of it, for a while, as long as its file is the same and the range is in the page cache: a random
reader would have 1 MiB read and summed for every 4 KiB. What has to come from the disk is always
checked, since that is where bits rot.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict

from files_server.blobs.checksums import BLOCK, checksums

_TRUSTED_SECONDS = 600.0
_TRUSTED_BLOCKS = 16_384  # 16 GiB of content; 3 MiB of memory
_INLINE = 256 << 10  # bytes that are copied from the page cache without a thread

_Block = tuple[str, int, int]  # the file's path, its mtime in nanoseconds, the block's index


class DamagedError(Exception):
    """The stored bytes from `first` up to `last` are not what was received."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first, self.last = first, last


class CheckedRanges:
    """Owner of the knowledge which blocks were right lately. Event loop only."""

    def __init__(self) -> None:
        self._right: OrderedDict[_Block, float] = OrderedDict()  # until when (monotonic)

    async def read(
        self, path: str, sums: bytes, start: int, end: int, *, afresh: bool = False
    ) -> bytes:
        """Bytes [start, end) of a file, from blocks that are what was stored: `sums` of them all.

        `afresh`: whatever was known of them. FileNotFoundError, DamagedError.
        """
        stamp = os.stat(path).st_mtime_ns
        numbers = range(start // BLOCK, -(-end // BLOCK))
        blocks = [(path, stamp, number) for number in numbers]
        if not afresh and end - start <= _INLINE and all(map(self._is_right, blocks)):
            known = _from_page_cache(path, start, end)
            if known is not None:
                return known
        data = await asyncio.to_thread(_checked, path, sums, start, end)
        self._note(blocks)
        return data

    def _is_right(self, block: _Block) -> bool:
        return self._right.get(block, 0.0) > time.monotonic()

    def _note(self, blocks: list[_Block]) -> None:
        until = time.monotonic() + _TRUSTED_SECONDS
        for block in blocks:
            self._right[block] = until
            self._right.move_to_end(block)
        while len(self._right) > _TRUSTED_BLOCKS:
            self._right.popitem(last=False)


def _from_page_cache(path: str, start: int, end: int) -> bytes | None:
    """What needs no disk; None if some of it does."""
    data = bytearray(end - start)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        count = os.preadv(descriptor, [data], start, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or a file system that cannot tell
        return None
    finally:
        os.close(descriptor)
    return bytes(data) if count == len(data) else None


def _checked(path: str, sums: bytes, start: int, end: int) -> bytes:
    number, behind = start // BLOCK, -(-end // BLOCK)
    first = number * BLOCK
    with open(path, "rb") as file:
        data = os.pread(file.fileno(), behind * BLOCK - first, first)
    if checksums(data) != sums[4 * number : 4 * behind]:
        raise DamagedError(first, first + len(data))
    return data[start - first : end - first]

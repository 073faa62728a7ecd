"""A file's bytes, read in threads, a piece ahead of who sends them, and checked if that is asked.

It must not know requests, nor hand out a byte of a block that is not what was stored.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from files_server.blobs.checksums import BLOCK, checksums
from files_server.blobs.layout import Layout

PIECE = 2 << 20  # bytes, whole blocks; fewer cost more in hand-over than in copying


AHEAD = 16 << 20  # bytes that the disk is told of before they are read
IN_ORDER = Layout()


class DamagedError(Exception):
    """The stored bytes from `first` up to `last` are not what was received."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first, self.last = first, last


@dataclass(frozen=True, slots=True)
class Stored:
    """What a version's content has to be: its length, the checksums of all its blocks, empty where
    nobody knows them or they are not to be compared, and where in its file it is, which may hold
    other versions' bytes, too."""

    size: int
    sums: bytes
    layout: Layout = IN_ORDER


class Pieces:
    """Bytes [start, end) of one version. Owns its file's descriptor."""

    def __init__(self, descriptor: int, start: int, end: int, stored: Stored) -> None:
        self._descriptor = descriptor
        self._at, self._end = start, end
        self._stored = stored
        self._told = end if stored.layout.blocks is None else start
        self._running: asyncio.Future[list[bytes]] | None = None
        self._ready: list[bytes] = []  # the last first

    async def next(self) -> bytes:
        """The next bytes; empty at the end. DamagedError, also where the file was cut short."""
        if self._ready:
            return self._ready.pop()
        if self._running is None:
            self._begin()
        if self._running is None:
            return b""
        await asyncio.wait({self._running})
        running, self._running = self._running, None
        self._ready = running.result()
        self._begin()  # while these are sent
        return self._ready.pop()

    def _begin(self) -> None:
        start = self._at
        if start < self._end:
            end = self._at = min(self._end, start - start % BLOCK + PIECE)
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(None, self._read, start, end)

    def _read(self, start: int, end: int) -> list[bytes]:
        """In a thread. What is not in order is not read ahead, if the kernel is not told of it."""
        if self._told < min(self._end, start + AHEAD // 2):
            first, self._told = max(start, self._told), min(self._end, start + AHEAD)
            tell_ahead(self._descriptor, self._stored, first, self._told)
        found: list[bytes] = []  # to join them costs a copy
        for _, length in self._stored.layout.runs(start, end):
            found.insert(0, piece(self._descriptor, self._stored, start, start + length))
            start += length
        return found

    def close(self) -> None:
        """Once no thread reads any more: the number may be another file's afterwards."""
        if self._running is None:
            os.close(self._descriptor)
        else:
            self._running.add_done_callback(self._closed)

    def _closed(self, running: asyncio.Future[list[bytes]]) -> None:
        os.close(self._descriptor)
        if not running.cancelled():
            running.exception()


def tell_ahead(descriptor: int, stored: Stored, start: int, end: int) -> None:
    """Have the disk begin with bytes [start, end), as the kernel does by itself for what is in
    order. Blocks while the disk has much to do."""
    for offset, length in stored.layout.runs(start, min(end, stored.size)):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)


def piece(descriptor: int, stored: Stored, start: int, end: int) -> bytes:
    """Bytes [start, end); held against what is to be there, with the rest of their blocks."""
    if not stored.sums:
        data = stored.layout.read(descriptor, start, end)
        if len(data) < end - start:
            raise DamagedError(start, end)
        return data
    number, behind = start // BLOCK, -(-end // BLOCK)
    first, last = number * BLOCK, min(behind * BLOCK, stored.size)
    data = stored.layout.read(descriptor, first, last)
    if checksums(data) != stored.sums[4 * number : 4 * behind]:
        raise DamagedError(first, last)
    return data if (first, last) == (start, end) else data[start - first : end - first]

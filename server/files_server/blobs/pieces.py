"""A file's bytes, read in threads, a piece ahead of who sends them, and checked if that is asked.

It must not know requests, nor hand out a byte of a block that is not what was stored.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from files_server.blobs.checksums import BLOCK, checksums

PIECE = 2 << 20  # bytes, whole blocks; fewer cost more in hand-over than in copying


class DamagedError(Exception):
    """The stored bytes from `first` up to `last` are not what was received."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first, self.last = first, last


@dataclass(frozen=True, slots=True)
class Stored:
    """What a version's content has to be: its length, and the checksums of all its blocks, empty
    where nobody knows them. Behind `size` its file may hold a later version's bytes."""

    size: int
    sums: bytes


class Pieces:
    """Bytes [start, end) of one file. Owns the descriptor. `stored` None: not checked."""

    def __init__(self, descriptor: int, start: int, end: int, stored: Stored | None) -> None:
        self._descriptor = descriptor
        self._at, self._end = start, end
        self._stored = stored
        self._running: asyncio.Future[bytes] | None = None

    async def next(self) -> bytes:
        """The next bytes; empty at the end. DamagedError, also where the file was cut short."""
        if self._running is None:
            self._begin()
        if self._running is None:
            return b""
        await asyncio.wait({self._running})
        running, self._running = self._running, None
        data = running.result()
        self._begin()  # while these are sent
        return data

    def _begin(self) -> None:
        start = self._at
        if start < self._end:
            end = self._at = min(self._end, start - start % BLOCK + PIECE)
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(
                None, piece, self._descriptor, self._stored, start, end
            )

    def close(self) -> None:
        """Once no thread reads any more: the number may be another file's afterwards."""
        if self._running is None:
            os.close(self._descriptor)
        else:
            self._running.add_done_callback(self._closed)

    def _closed(self, running: asyncio.Future[bytes]) -> None:
        os.close(self._descriptor)
        if not running.cancelled():
            running.exception()


def piece(descriptor: int, stored: Stored | None, start: int, end: int) -> bytes:
    """Bytes [start, end); held against what is to be there, with the rest of their blocks."""
    if stored is None:
        data = os.pread(descriptor, end - start, start)
        if len(data) < end - start:
            raise DamagedError(start, end)
        return data
    number, behind = start // BLOCK, -(-end // BLOCK)
    first, last = number * BLOCK, min(behind * BLOCK, stored.size)
    data = os.pread(descriptor, last - first, first)
    if checksums(data) != stored.sums[4 * number : 4 * behind]:
        raise DamagedError(first, last)
    return data if (first, last) == (start, end) else data[start - first : end - first]

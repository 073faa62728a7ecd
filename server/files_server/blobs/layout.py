"""Where in its file each MiB of a version is.

A file that several versions share holds their blocks in the order in which they were written: a
version that changed some of them has the others where they were. Pure but for `read`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from files_server.blobs.checksums import BLOCK


@dataclass(frozen=True, slots=True)
class Layout:
    """`blocks`: for each MiB of the version its place in the file, counted in MiB, 4 bytes,
    big-endian. None: all are in order, as in a file of one's own."""

    blocks: bytes | None = None

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Bytes [start, end) of the version as (offset in the file, length), in order."""
        if self.blocks is None:
            yield start, end - start
            return
        while start < end:
            number = start // BLOCK
            shift, behind = self._shift(number), number + 1
            while behind * BLOCK < end and self._shift(behind) == shift:
                behind += 1
            till = min(end, behind * BLOCK)
            yield start + shift, till - start
            start = till

    def end(self, start: int, end: int) -> int:
        """How long the file has to be to hold these bytes."""
        return max((offset + length for offset, length in self.runs(start, end)), default=0)

    def first(self, length: int) -> bytes:
        """Where the blocks of the first `length` bytes are, as `blocks`."""
        count = -(-length // BLOCK)
        return in_order(0, count) if self.blocks is None else self.blocks[: 4 * count]

    def read(self, descriptor: int, start: int, end: int) -> bytes:
        """Bytes [start, end) of the version; fewer where the file is too short."""
        if self.blocks is None:
            return os.pread(descriptor, end - start, start)
        found = [os.pread(descriptor, length, at) for at, length in self.runs(start, end)]
        return found[0] if len(found) == 1 else b"".join(found)

    def _shift(self, number: int) -> int:
        """Bytes from where a block would be in order to where it is."""
        assert self.blocks is not None
        place = int.from_bytes(self.blocks[4 * number : 4 * number + 4], "big")
        return (place - number) * BLOCK


def in_order(first: int, count: int) -> bytes:
    """The `blocks` of `count` that follow on each other from the place `first` on."""
    return struct.pack(f">{count}I", *range(first, first + count))


def stored_form(blocks: bytes | None) -> bytes | None:
    """As the catalog keeps it: None where all are in order."""
    return None if blocks is None or blocks == in_order(0, len(blocks) // 4) else blocks

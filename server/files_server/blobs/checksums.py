"""crc32c of each aligned MiB, computed as bytes go by. Pure; no I/O."""

from __future__ import annotations

import struct

from crc32c import crc32c

BLOCK = 1 << 20


class BlockSums:
    """Running checksums of a byte stream that only grows."""

    __slots__ = ("_current", "_done", "_filled")

    def __init__(self) -> None:
        self._done = b""
        self._current = 0
        self._filled = 0  # invariant: less than BLOCK

    def copy(self) -> BlockSums:
        """The state as of now, to go back to."""
        other = BlockSums()
        other._done, other._current, other._filled = self._done, self._current, self._filled
        return other

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: BLOCK - self._filled]
            self._current = crc32c(part, self._current)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == BLOCK:
                self._done += struct.pack(">I", self._current)
                self._current = self._filled = 0

    def value(self) -> bytes:
        """4 bytes, big-endian, for each block; the last one may be short."""
        return self._done + (struct.pack(">I", self._current) if self._filled else b"")


def checksums(data: bytes) -> bytes:
    """The block sums of bytes that are there already."""
    sums = BlockSums()
    sums.update(data)
    return sums.value()

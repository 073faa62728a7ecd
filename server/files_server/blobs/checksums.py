"""crc32c of each aligned MiB, computed as bytes go by. Pure; no I/O."""

from __future__ import annotations

import struct
from functools import lru_cache

from crc32c import crc32c

BLOCK = 1 << 20
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest power in the highest bit
_ONE = 1 << 31  # x^0 in that order


class BlockSums:
    """Running checksums of a byte stream that only grows."""

    __slots__ = ("_current", "_done", "_filled")

    def __init__(self) -> None:
        self._done = b""
        self._current = 0
        self._filled = 0  # invariant: less than BLOCK

    @classmethod
    def resumed(cls, sums: bytes, length: int) -> BlockSums:
        """Those of `length` bytes whose `value` was this, to go on from."""
        whole, filled = divmod(length, BLOCK)
        if len(sums) != 4 * (whole + bool(filled)):
            raise ValueError(f"{len(sums)} bytes of sums are not those of {length} bytes")
        other = cls()
        other._done, other._filled = sums[: 4 * whole], filled
        other._current = struct.unpack(">I", sums[4 * whole :])[0] if filled else 0
        return other

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

    def follow(self, sums: bytes, length: int) -> None:
        """Take bytes whose `value` is known; only where a block begins."""
        if self._filled:
            raise ValueError("a block has begun")
        other = BlockSums.resumed(sums, length)
        self._done += other._done
        self._current, self._filled = other._current, other._filled

    def last(self) -> bytes:
        """The last 4 bytes of `value`."""
        return struct.pack(">I", self._current) if self._filled else self._done[-4:]

    def value(self) -> bytes:
        """4 bytes, big-endian, for each block; the last one may be short."""
        return self._done + (struct.pack(">I", self._current) if self._filled else b"")

    def since(self, start: int) -> int | None:
        """The crc32c of all bytes from `start` on; None where no block begins there."""
        number, inside = divmod(start, BLOCK)
        if inside or 4 * number > len(self._done):
            return None
        total = 0
        for (block,) in struct.iter_unpack(">I", self._done[4 * number :]):
            total = followed(total, block, BLOCK)
        return followed(total, self._current, self._filled)


def checksums(data: bytes) -> bytes:
    """The block sums of bytes that are there already."""
    if 0 < len(data) <= BLOCK:
        return struct.pack(">I", crc32c(data))
    sums = BlockSums()
    sums.update(data)
    return sums.value()


def followed(first: int, second: int, length: int) -> int:
    """The crc32c of bytes with `first` before `length` bytes with `second`.

    A crc is the rest of a division of polynomials over two elements: bytes that come before are
    multiplied by x to the number of bits that follow them.
    """
    return _product(_power(8 * length), first) ^ second


@lru_cache(maxsize=64)
def _power(exponent: int) -> int:
    """x to that power, modulo the polynomial."""
    result, square = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            result = _product(square, result)
        square = _product(square, square)
        exponent >>= 1
    return result


def _product(left: int, right: int) -> int:
    """Two polynomials multiplied, modulo the polynomial."""
    result = 0
    while left:
        if left & _ONE:
            result ^= right
        left = left << 1 & 0xFFFFFFFF
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return result

"""Which bytes of a file come from where: a set of ranges, and the layout of dirty over base over
zeros.

Pure: holds no bytes and does no I/O. All numbers are byte offsets; ranges are half open, [start,
end).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class RangeSet:
    """Disjoint ranges in order; neighbours that touch are one range."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        # Same length; _starts[i] < _ends[i] < _starts[i + 1].
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Include [start, end)."""
        if start >= end:
            return
        if self._starts and start < self._starts[-1]:
            self._merge(start, end)
        elif not self._starts or start > self._ends[-1]:
            self._starts.append(start)
            self._ends.append(end)
        elif end > self._ends[-1]:  # the common case, a sequential writer: the last range grows
            self._ends[-1] = end

    def _merge(self, start: int, end: int) -> None:
        left = bisect_left(self._ends, start)  # the first range that touches
        right = bisect_right(self._starts, end)  # one after the last that does
        if left < right:
            start = min(start, self._starts[left])
            end = max(end, self._ends[right - 1])
        self._starts[left:right] = [start]
        self._ends[left:right] = [end]

    def cut(self, size: int) -> None:
        """Forget everything from `size` on."""
        keep = bisect_left(self._starts, size)
        del self._starts[keep:], self._ends[keep:]
        if self._ends and self._ends[-1] > size:
            self._ends[-1] = size

    def clear(self) -> None:
        self._starts.clear()
        self._ends.clear()

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of this set that lie in [start, end)."""
        if start >= end:
            return
        for index in range(bisect_right(self._ends, start), bisect_left(self._starts, end)):
            yield max(start, self._starts[index]), min(end, self._ends[index])

    def run_from(self, start: int) -> int:
        """Where the unbroken run that begins at `start` ends; `start` itself if it is not in the
        set.
        """
        index = bisect_right(self._starts, start) - 1
        return max(start, self._ends[index]) if index >= 0 else start

    @property
    def total(self) -> int:
        """Bytes in the set."""
        return sum(self._ends) - sum(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __len__(self) -> int:
        return len(self._starts)

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"


class Source(Enum):
    """Where the bytes of a segment are."""

    DIRTY = "dirty"
    BASE = "base"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Segment:
    """The bytes [start, end), all from one source."""

    source: Source
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def layout(dirty: RangeSet, base_end: int, start: int, end: int) -> Iterator[Segment]:
    """The segments of [start, end) in order: dirty ranges, the base below `base_end`, zeros.

    The base's valid part is always a prefix: only a truncate takes bytes of it away, and it takes
    the tail.
    """
    position = start
    for first, last in dirty.within(start, end):
        yield from _clean(base_end, position, first)
        yield Segment(Source.DIRTY, first, last)
        position = last
    yield from _clean(base_end, position, end)


def _clean(base_end: int, start: int, end: int) -> Iterator[Segment]:
    middle = min(max(start, base_end), end)
    if start < middle:
        yield Segment(Source.BASE, start, middle)
    if middle < end:
        yield Segment(Source.ZERO, middle, end)

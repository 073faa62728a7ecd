"""How an upload session is filled: which ranges travel, and which the server takes from the
version it has.

Pure. It must not read bytes or talk to the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from filesfs.write.extents import Segment, Source

# A copy costs a round trip of its own; below this, sending the bytes along with their neighbours
# is cheaper.
COPY_AT_LEAST = 256 << 10


@dataclass(frozen=True, slots=True)
class Step:
    """One request: bytes [start, end) of the file, sent, or copied from the base at the server."""

    start: int
    end: int
    copy: bool = False

    @property
    def length(self) -> int:
        return self.end - self.start


def plan(segments: Iterable[Segment], part_bytes: int, *, copy: bool) -> list[Step]:
    """The steps for `segments`, which follow on each other without gaps; `copy`: the server can
    copy.
    """
    steps: list[Step] = []
    first = last = -1  # the range to send that is being gathered
    for segment in segments:
        if copy and segment.source is Source.BASE and segment.length >= COPY_AT_LEAST:
            steps += _pieces(first, last, part_bytes)
            steps.append(Step(segment.start, segment.end, copy=True))
            first = last = segment.end
        else:
            first, last = (segment.start if first < 0 else first), segment.end
    steps += _pieces(first, last, part_bytes)
    return steps


def _pieces(start: int, end: int, most: int) -> Iterator[Step]:
    while start < end:
        yield Step(start, min(end, start + most))
        start += most

"""What is learned of the line from the answers that came over it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from filesfs.read.blocks import BlockCache
from filesfs.read.pace import Pace
from filesfs.read.stream import ReadStream
from filesfs.read.window import GRAIN, KIB, MIB, PIECE
from tests.unit.stream_rig import FakeReader, entry_of


def test_nothing_is_known_before_both_kinds_came() -> None:
    pace = Pace()
    assert pace.small_ones(PIECE) is None
    pace.took(4 * KIB, 0.01)
    assert pace.small_ones(PIECE) is None
    pace.took(MIB, 0.1)
    assert pace.small_ones(PIECE) == pytest.approx(40)


def test_the_quickest_range_tells_most() -> None:
    """Those that share the line are late for that alone; a line that slows down shows in time."""
    pace = Pace()
    pace.took(4 * KIB, 0.01)
    pace.took(MIB, 1.0)
    pace.took(MIB, 0.1)
    assert pace.small_ones(MIB) == pytest.approx(10)
    for _ in range(20):
        pace.took(MIB, 1.0)
    assert pace.small_ones(MIB) == pytest.approx(100, rel=0.01)


@pytest.mark.trio
async def test_streams_tell_of_what_they_fetched(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    reader, cache = FakeReader(bytes(32 * MIB)), BlockCache(64 * MIB)
    stream = ReadStream(reader, cache, nursery, entry_of(32 * MIB))
    for offset in (1 * MIB, 9 * MIB, 17 * MIB, 25 * MIB, 5 * MIB):
        await stream.read(offset, 4 * KIB)
    # Each took a second: four small ones, and the block that shows the line.
    assert [length for _, length in reader.asked] == [GRAIN] * 4 + [MIB]
    assert cache.pace.small_ones(MIB) == pytest.approx(1, rel=0.2)
    await stream.aclose()

"""The server's clock, as far as its answers tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from filesfs.domain import Attributes, Entry, Kind, Location
from tests.unit.filesystem_rig import Rig, rig

pytestmark = pytest.mark.trio


def saw(mine: Rig, *, asked: int, stamped: int, answered: int) -> int:
    """The offset after a change that was asked for and answered by our clock, stamped by theirs."""
    core = mine.fs.core
    core.clock = lambda: answered
    entry = Entry(
        Location("b", "a"), Kind.FILE, 0, "", 0, attributes=Attributes(changed_ns=stamped)
    )
    core.saw_commit(entry, asked)
    return core.clock_offset


async def test_one_clock_is_taken_for_one_however_long_answers_take(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        mine.fs.core.clock_offset = 0
        assert saw(mine, asked=1000, stamped=1001, answered=1900) == 0
        assert saw(mine, asked=2000, stamped=2899, answered=2900) == 0
        mine.fs.core.ticks = lambda: 2896
        assert mine.fs.core.now() == 2896


async def test_a_clock_that_differs_is_followed(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        mine.fs.core.clock_offset = 0
        assert saw(mine, asked=1000, stamped=6050, answered=1100) == 4950
        assert saw(mine, asked=2000, stamped=7001, answered=2100) == 4950
        assert saw(mine, asked=3000, stamped=7999, answered=3010) == 4989
        assert saw(mine, asked=9000, stamped=4000, answered=9100) == -5000

"""Write-back: what close() acknowledged from the journal survives a kill at any moment, and goes up
in order.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import Location
from filesfs.errors import Unavailable
from tests.fakes.memory_tree import MemoryTree
from tests.unit.writeback_rig import (
    SIZES,
    after_a_kill,
    filled,
    overwrite,
    sent,
    soon,
    stored,
    under_way,
    writing,
)

__all__ = ["soon"]

pytestmark = pytest.mark.trio


async def test_close_waits_for_the_journal_alone_and_files_go_up_in_order(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        mine.backend.faults.always("put", Unavailable("down"))
        for name in (b"c", b"a", b"b"):
            await mine.store(name, name)
        assert await mine.content(b"a") == b"a"
        assert await mine.names() == [b"a", b"b", b"c"]
        mine.backend.faults.clear()
        assert list(await after_a_kill(mine, tmp_path / "next")) == ["a", "b", "c"]
        puts = [where.key for what, where in mine.backend.faults.calls if what == "put"]
        assert puts[0] == "c"


async def test_fsync_is_the_journals_too(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        mine.backend.faults.always("put", Unavailable("down"))
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"synced")
        await mine.fs.files.flush(handle)  # FSYNC and FLUSH are one
        await mine.fs.files.write(handle, 0, b"nobody waited for this")
        assert await after_a_kill(mine, tmp_path / "next") == {"a": b"synced"}


@pytest.mark.parametrize("size", SIZES)
async def test_a_kill_between_the_upload_and_its_note(tmp_path: Path, size: int) -> None:
    """The server has it, and the mount died before it heard so."""
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        mine.backend.faults.fail("put", Unavailable("lost"), after=True)
        await mine.store(b"a", filled("1", size))
        await trio.testing.wait_all_tasks_blocked()
        assert await after_a_kill(mine, tmp_path / "next") == {"a": filled("1", size)}


@pytest.mark.parametrize("size", SIZES)
async def test_a_close_during_the_upload_of_an_earlier_version(tmp_path: Path, size: int) -> None:
    """The upload lands unheard: the later close is a change of that version, not a conflict."""
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        mine.backend.faults.fail("put", Unavailable("lost"), after=True)
        await mine.store(b"a", filled("1", size))
        await trio.testing.wait_all_tasks_blocked()
        await overwrite(mine, b"a", filled("2", size))
        await overwrite(mine, b"a", filled("3", size - 1), flags=0)
        assert len(mine.fs.core.journal.pending()) == 2
        expected = filled("3", size - 1) + b"2"
        assert await after_a_kill(mine, tmp_path / "next") == {"a": expected}


@pytest.mark.parametrize("size", SIZES)
async def test_a_version_that_landed_is_the_base_of_the_next(tmp_path: Path, size: int) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        gate = await under_way(mine, data=filled("1", size))
        await overwrite(mine, b"a", b"2", flags=0)
        second = mine.backend.faults.hold("put")
        gate.open()
        await second.reached.wait()
        (record,) = mine.fs.core.journal.pending()
        assert record.payload is not None
        there = await mine.backend.stat(Location("b", "a"))
        assert record.payload.base is not None
        assert record.payload.base.etag == there.etag
        expected = b"2" + filled("1", size - 1)
        assert await after_a_kill(mine, tmp_path / "next") == {"a": expected}


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_written_after_a_close_is_not_in_its_snapshot(
    tmp_path: Path, size: int
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        gate = await under_way(mine, data=filled("1", size))
        node = await mine.lookup(b"a")
        assert node is not None
        handle = await mine.open(node, os.O_WRONLY)
        await mine.fs.files.write(handle, 1, b"half")
        assert await after_a_kill(mine, tmp_path / "next") == {"a": filled("1", size)}
        gate.open()
        await trio.testing.wait_all_tasks_blocked()
        assert (await stored(mine.backend))["a"] == filled("1", size)
        await mine.close(handle)
        await sent(mine)
        assert (await stored(mine.backend))["a"] == b"1half" + filled("1", size - 5)

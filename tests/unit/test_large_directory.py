"""A large directory is listed once: what others change in it is asked for name by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from filesfs.domain import AttributeChange, Kind
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import Rig, rig

pytestmark = pytest.mark.trio

MANY = 300


async def filled(mine: Rig) -> None:
    for number in range(MANY):
        place = mine.fs.tree.place(mine.bucket, b"%d" % number)
        await mine.backend.put(place, b"x", "text/plain", AttributeChange())
    mine.fs.core.directories.drop(mine.bucket)  # it was made here, and taken to be empty
    assert len(await mine.names()) == MANY
    mine.backend.faults.calls.clear()


def doubt(mine: Rig, *numbers: int) -> None:
    for number in numbers:
        mine.fs.core.directories.doubt(mine.bucket, b"%d" % number)


async def test_few_doubts_are_asked_for_one_by_one(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with rig(tmp_path, tree, feed=True) as mine:
        await filled(mine)
        other = MemoryBackend(tree, origin="other")
        await other.connect()
        for number in (7, 8):
            await other.remove(mine.fs.tree.place(mine.bucket, b"%d" % number), Kind.FILE)
        doubt(mine, 7, 8, 9)
        assert len(await mine.names()) == MANY - 2
        assert set(mine.calls) == {"stat"}


async def test_many_doubts_list_it_anew(tmp_path: Path) -> None:
    async with rig(tmp_path, feed=True) as mine:
        await filled(mine)
        doubt(mine, *range(MANY // 10))
        assert len(await mine.names()) == MANY
        assert mine.calls == ["list_directory"]


async def test_single_names_of_a_large_directory_do_not_list_it(tmp_path: Path) -> None:
    async with rig(tmp_path, feed=True) as mine:
        await filled(mine)
        for number in range(5):
            doubt(mine, number)
            assert await mine.lookup(b"%d" % number) is not None
        assert mine.calls == ["stat"] * 5

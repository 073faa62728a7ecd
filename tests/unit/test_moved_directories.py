"""Directories that others have moved: what is asked of them is asked of another place."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from filesfs.domain import AttributeChange, Kind, Location
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, rig

pytestmark = pytest.mark.trio


async def test_what_is_not_in_it_is_not_for_the_kernel_to_keep(tmp_path: Path) -> None:
    """The kernel would keep the name for a minute: of a directory that it does not find under its
    old name any more, it hears nothing, and when that comes back, its names do, too.
    """
    tree = MemoryTree()
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as o,
    ):
        directory = await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        mine.fs.core.inodes.remember(directory)
        strayed = mine.fs.core.directories.has_strayed
        assert await mine.fs.tree.child(directory, b"f") is None
        assert not strayed(directory)
        here, there = Location("b", "d"), Location("b", "e")
        await o.backend.move(here, there, Kind.DIRECTORY)
        await trio.testing.wait_all_tasks_blocked()
        assert strayed(directory)  # an event told of it
        assert await mine.lookup(b"d") is None
        assert await mine.fs.tree.child(directory, b"f") is None
        assert strayed(directory)  # the server did
        await o.backend.put(there.child("f"), b"", "text/plain", AttributeChange())
        await o.backend.move(there, here, Kind.DIRECTORY)
        await trio.testing.wait_all_tasks_blocked()
        assert await mine.lookup(b"d") is directory
        assert not strayed(directory)
        assert await mine.fs.tree.child(directory, b"f") is not None

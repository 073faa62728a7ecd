"""What others change while our own request is under way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Entry, Location
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, rig

pytestmark = pytest.mark.trio


async def test_what_comes_into_a_new_directory_before_its_answer_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = MemoryTree()
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as other,
    ):
        make = mine.backend.make_directory

        async def made(location: Location, change: AttributeChange) -> Entry:
            entry = await make(location, change)
            await other.backend.put(location.child("theirs"), b"1", "text/plain", change)
            await trio.testing.wait_all_tasks_blocked()  # its event overtakes our answer
            return entry

        monkeypatch.setattr(mine.backend, "make_directory", made)
        node = await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        assert await mine.fs.tree.snapshot(node) == [b"theirs"]

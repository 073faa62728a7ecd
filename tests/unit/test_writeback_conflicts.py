"""Write-back: what other clients stored meanwhile is never overwritten, and ours lies beside it."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Location
from filesfs.errors import FileSystemError, Unavailable
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import rig
from tests.unit.writeback_rig import (
    after_a_kill,
    overwrite,
    sent,
    settled,
    soon,
    stored,
    writing,
)

__all__ = ["soon"]

pytestmark = pytest.mark.trio


def _beside(files: dict[str, bytes]) -> list[bytes]:
    return [data for name, data in files.items() if re.match(r"a\.conflict-[^/]+$", name)]


@pytest.mark.parametrize("new", [True, False])
async def test_another_clients_version_is_kept_and_ours_lies_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, new: bool
) -> None:
    tree = MemoryTree()
    async with writing(tmp_path / "mine", tree) as mine, rig(tmp_path / "o", tree) as other:
        if not new:
            await mine.store(b"a", b"base")
            await sent(mine)
        mine.backend.faults.fail("put", Unavailable("down"))
        if new:
            await mine.store(b"a", b"ours")
        else:
            await overwrite(mine, b"a", b"ours")
        if new:
            await other.store(b"a", b"theirs")
        else:
            await overwrite(other, b"a", b"theirs")
        shutil.copytree(tmp_path / "mine", tmp_path / "killed")
        await sent(mine)
        files = await stored(mine.backend)
        assert (files["a"], _beside(files)) == (b"theirs", [b"ours"])
        assert await mine.content(b"a") == b"theirs"
        assert len(await mine.names()) == 2
        assert mine.fs.files.commits.backlog.conflicts == 1
        assert [each.levelno for each in caplog.records if "conflict" in each.message] == [
            logging.ERROR
        ]


async def test_after_a_kill_too_and_only_the_latest_of_ours_lies_there(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with writing(tmp_path / "mine", tree) as mine, rig(tmp_path / "o", tree) as other:
        mine.backend.faults.fail("put", Unavailable("down"))
        await mine.store(b"a", b"ours")
        await trio.testing.wait_all_tasks_blocked()
        await overwrite(mine, b"a", b"later")
        await other.store(b"a", b"theirs")
        files = await after_a_kill(mine, tmp_path / "next")
        assert (files["a"], _beside(files)) == (b"theirs", [b"later"])


async def test_a_program_that_has_the_file_open_hears_of_it(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with writing(tmp_path / "mine", tree) as mine, rig(tmp_path / "o", tree) as other:
        mine.backend.faults.fail("put", Unavailable("down"))
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"ours")
        await mine.fs.files.flush(handle)
        await other.store(b"a", b"theirs")
        await settled(mine)
        with pytest.raises(FileSystemError) as raised:
            await mine.close(handle)
        assert raised.value.code == errno.ESTALE
        assert await mine.content(b"a") == b"theirs"
        files = await stored(mine.backend)
        assert (files["a"], _beside(files)) == (b"theirs", [b"ours"])


@pytest.mark.parametrize("closed_again", [False, True])
async def test_a_chmod_before_the_conflict_is_found_leaves_nothing_behind(
    tmp_path: Path, closed_again: bool
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        node = await mine.store(b"a", b"theirs")
        await sent(mine)
        other = MemoryBackend(mine.backend.tree, origin="other")
        gate = mine.backend.faults.hold("put")
        await overwrite(mine, b"a", b"mine")
        await gate.reached.wait()
        await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
        await other.put(Location("b", "a"), b"newer", "text/plain", AttributeChange())
        gate.open()
        beside = mine.backend.faults.hold("put")  # the first put is past it, and is refused
        await beside.reached.wait()
        if closed_again:
            await overwrite(mine, b"a", b"mine again")
        beside.open()
        await sent(mine)
        with trio.fail_after(5):
            await mine.fs.files.commits.backlog.clear(node)
        found = await stored(mine.backend)
        assert found.pop("a") == b"newer"
        assert (b"mine again" if closed_again else b"mine") in found.values()
        assert await mine.content(b"a") == b"newer"


async def test_a_chmod_that_lands_on_anothers_version_does_not_mix_it_with_ours(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        node = await mine.store(b"a", b"base-base-base")
        await sent(mine)
        puts = mine.backend.faults.hold("put")
        chmods = mine.backend.faults.hold("set_attributes")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"MINE")
        await mine.fs.files.flush(handle)
        await puts.reached.wait()
        await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
        puts.open()
        await chmods.reached.wait()
        other = MemoryBackend(mine.backend.tree, origin="other")
        await other.put(Location("b", "a"), b"theirs-theirs-", "text/plain", AttributeChange())
        await mine.fs.files.write(handle, 5, b"MORE")
        chmods.open()
        await settled(mine)
        assert await mine.fs.files.read(handle, 0, 100) == b"MINE-MORE-base"
        await mine.close(handle)
        await settled(mine)
        files = await stored(mine.backend)
        assert (files["a"], _beside(files)) == (b"theirs-theirs-", [b"MINE-MORE-base"])


async def test_what_is_written_after_a_conflict_is_not_taken_for_what_met_it(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        node = await mine.store(b"a", b"base")
        await sent(mine)
        handle = await mine.open(node, os.O_RDWR)
        mine.backend.faults.fail("put", Unavailable("down"))
        await mine.fs.files.write(handle, 0, b"one!")
        await mine.fs.files.flush(handle)
        other = MemoryBackend(mine.backend.tree, origin="other")
        await other.put(Location("b", "a"), b"theirs", "text/plain", AttributeChange())
        await settled(mine)
        await mine.fs.files.write(handle, 0, b"two!")
        await mine.close(handle)
        await settled(mine)
        files = await stored(mine.backend)
        assert (files["a"], sorted(_beside(files))) == (b"theirs", [b"one!", b"two!"])

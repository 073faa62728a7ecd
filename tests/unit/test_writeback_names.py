"""Write-back: names and attributes of what is pending change in the journal, or once its
upload that is under way has ended.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Location
from filesfs.errors import AccessDenied, Unavailable
from filesfs.filesystem.rename import EXCHANGE
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig
from tests.unit.writeback_rig import (
    after_a_kill,
    overwrite,
    sent,
    soon,
    stored,
    under_way,
    writing,
)

__all__ = ["soon"]

pytestmark = pytest.mark.trio


async def test_a_new_file_that_waits_is_renamed_in_the_journal(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        gate = await under_way(mine)
        await mine.store(b"new.tmp", b"data")
        await mine.fs.renaming.rename((mine.bucket, b"new.tmp"), (mine.bucket, b"new"), 0)
        assert "move" not in mine.calls
        shutil.copytree(tmp_path / "mine", tmp_path / "killed")
        gate.open()
        await sent(mine)
        assert await stored(mine.backend) == {"a": b"first", "new": b"data"}
    async with writing(tmp_path / "killed", MemoryTree()) as again:
        await again.fs.files.commits.backlog.send_all()
        assert await stored(again.backend) == {"a": b"first", "new": b"data"}


async def test_a_file_changes_places_with_a_directory_while_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = trio.Event()

    async def slow(*_: object) -> None:
        await disk.wait()

    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"old")
        await mine.fs.files.flush(handle)
        await sent(mine)
        await mine.fs.files.write(handle, 0, b"new")
        monkeypatch.setattr("filesfs.write.buffer.WriteBuffer.sync", slow)
        with trio.fail_after(5):
            async with trio.open_nursery() as both:
                both.start_soon(mine.close, handle)
                await trio.testing.wait_all_tasks_blocked()
                places = (mine.bucket, b"a"), (mine.bucket, b"d")
                both.start_soon(mine.fs.renaming.rename, *places, EXCHANGE)
                await trio.testing.wait_all_tasks_blocked()
                disk.set()
        await sent(mine)
        assert await mine.content(b"d") == b"new"


async def test_a_rename_that_the_journal_cannot_take_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        first = await under_way(mine, b"first")
        await mine.store(b"a", b"data")
        with monkeypatch.context() as patch:
            patch.setattr("filesfs.write.log.RecordLog.append", full)
            with pytest.raises(OSError, match="full"):
                await mine.fs.renaming.rename((mine.bucket, b"a"), (mine.bucket, b"z"), 0)
        assert await mine.names() == [b"a", b"first"]
        first.open()
        await sent(mine)
        assert await mine.content(b"a") == b"data"
        assert await mine.names() == [b"a", b"first"]


@pytest.mark.parametrize("over", [None, b"old"])
async def test_a_rename_waits_for_the_upload_that_is_under_way(
    tmp_path: Path, over: bytes | None
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        if over is not None:
            await mine.store(b"new", over)
            await sent(mine)
        gate = await under_way(mine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                mine.fs.renaming.rename, (mine.bucket, b"a"), (mine.bucket, b"new"), 0
            )
            await trio.testing.wait_all_tasks_blocked()
            assert "move" not in mine.calls
            gate.open()
        assert await stored(mine.backend) == {"new": b"first"}
        assert await mine.names() == [b"new"]
        assert await after_a_kill(mine, tmp_path / "next") == {"new": b"first"}


async def test_a_file_that_waits_goes_up_before_it_replaces_another(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        await mine.store(b"target", b"old")
        await mine.store(b"new", b"data")
        await mine.fs.renaming.rename((mine.bucket, b"new"), (mine.bucket, b"target"), 0)
        assert await stored(mine.backend) == {"target": b"data"}


async def test_an_unclosed_file_that_took_anothers_name_replaces_it_at_close(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        await mine.store(b"target", b"old")
        await sent(mine)
        _, handle = await mine.create(b"new")
        await mine.fs.files.write(handle, 0, b"data")
        await mine.fs.renaming.rename((mine.bucket, b"new"), (mine.bucket, b"target"), 0)
        await mine.close(handle)
        await sent(mine)
        assert await stored(mine.backend) == {"target": b"data"}


async def test_a_directory_moves_after_what_waits_below_it(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        top = mine.bucket
        directory = await mine.fs.namespace.mkdir(top, b"d", 0o755, ROOT_USER)
        mine.bucket = directory
        gate = await under_way(mine)
        await mine.store(b"b", b"second")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.fs.renaming.rename, (top, b"d"), (top, b"e"), 0)
            await trio.testing.wait_all_tasks_blocked()
            assert "move" not in mine.calls
            gate.open()
        assert await stored(mine.backend) == {"e/a": b"first", "e/b": b"second"}
        await overwrite(mine, b"a", b"later")
        await sent(mine)
        assert (await stored(mine.backend))["e/a"] == b"later"


async def test_a_new_file_that_waits_is_removed_from_the_journal(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        gate = await under_way(mine)
        await mine.store(b"gone", b"data")
        await mine.fs.namespace.unlink(mine.bucket, b"gone")
        assert "remove" not in mine.calls
        gate.open()
        await sent(mine)
        assert await stored(mine.backend) == {"a": b"first"}
        assert await after_a_kill(mine, tmp_path / "next") == {"a": b"first"}


async def test_an_unlink_waits_for_the_upload_that_is_under_way(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        gate = await under_way(mine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.fs.namespace.unlink, mine.bucket, b"a")
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert await stored(mine.backend) == {}
        assert mine.fs.core.journal.pending() == ()
        assert await after_a_kill(mine, tmp_path / "next") == {}


async def test_a_file_that_the_server_refuses_can_be_removed(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        node, handle = await mine.create(b"a")
        mine.backend.faults.always("put", AccessDenied("not yours"))
        await mine.fs.files.write(handle, 0, b"x")
        await mine.fs.files.flush(handle)
        await trio.testing.wait_all_tasks_blocked()
        await mine.fs.namespace.unlink(mine.bucket, b"a")
        await mine.close(handle)
        assert not node.names
        assert mine.fs.core.journal.pending() == ()


async def _waiting(mine: Rig) -> None:
    await under_way(mine, b"z")
    await mine.store(b"a", b"data")


async def _lost_answer(mine: Rig) -> None:
    mine.backend.faults.fail("put", Unavailable("lost"), after=True)
    await mine.store(b"a", b"data")
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("begin", [_waiting, _lost_answer])
async def test_a_chmod_of_what_is_pending_is_in_the_journal(
    tmp_path: Path, begin: Callable[[Rig], Awaitable[None]]
) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        await begin(mine)
        node = await mine.lookup(b"a")
        assert node is not None
        await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
        await mine.fs.attributes.set(node, AttributeChange(mode=0o640, uid=7))
        assert mine.fs.attributes.stat(node).mode == 0o640
        assert (await after_a_kill(mine, tmp_path / "next"))["a"] == b"data"
        attributes = (await mine.backend.stat(Location("b", "a"))).attributes
        assert (attributes.mode, attributes.uid) == (0o640, 7)


async def test_a_chmod_during_the_upload_follows_it_without_the_content(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        gate = await under_way(mine)
        node = await mine.lookup(b"a")
        assert node is not None
        await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
        gate.open()
        await sent(mine)
        assert mine.backend.faults.count("put") == 1
        assert (await mine.backend.stat(Location("b", "a"))).attributes.mode == 0o600
        assert mine.fs.attributes.stat(node).mode == 0o600


async def test_a_hard_link_is_made_once_the_file_is_there(tmp_path: Path) -> None:
    async with writing(tmp_path / "mine", MemoryTree()) as mine:
        await mine.store(b"a", b"data")
        node = await mine.lookup(b"a")
        assert node is not None
        await mine.fs.namespace.link(node, mine.bucket, b"b")
        assert await stored(mine.backend) == {"a": b"data", "b": b"data"}

"""Write-back: what close() acknowledged from the journal survives a kill at any moment, goes up in
order, and never over another client's version.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Kind, Location
from filesfs.errors import AccessDenied, FileSystemError, Unavailable
from filesfs.filesystem.rename import EXCHANGE
from tests.fakes.memory_backend import Gate, MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

pytestmark = pytest.mark.trio

SIZES = (5, 100_000)  # in the journal itself, and in a spool file


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filesfs.filesystem.backlog._RETRY_SECONDS", 0.2)


def filled(letter: str, size: int = 5) -> bytes:
    return letter.encode() * size


@asynccontextmanager
async def writing(folder: Path, tree: MemoryTree) -> AsyncIterator[Rig]:
    async with rig(folder, tree, writeback=True) as mine:
        yield mine


async def after_a_kill(mine: Rig, folder: Path) -> dict[str, bytes]:
    """What the server has once the next mount of what is on disk now has sent it; `mine` may go on
    existing, since nothing of it is asked any more.
    """
    shutil.copytree(mine.fs.core.journal.folder, folder)
    async with rig(folder, mine.backend.tree, writeback=True) as again:
        await again.fs.files.commits.backlog.send_all()
        assert again.fs.core.journal.pending() == ()
        assert list(again.fs.core.spool.path.iterdir()) == []
        return await stored(again.backend)


BUCKET = Location("b")


async def stored(backend: MemoryBackend, where: Location = BUCKET) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry in (await backend.list_directory(where)).entries:
        if entry.kind is Kind.DIRECTORY:
            found |= await stored(backend, entry.location)
        else:
            found[entry.location.key] = await backend.read(entry, 0, entry.size)
    return found


async def sent(mine: Rig) -> None:
    await settled(mine)
    assert mine.fs.files.unsent() == 0


async def settled(mine: Rig) -> None:
    with trio.fail_after(30):
        while mine.fs.core.journal.pending():
            await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()


async def overwrite(mine: Rig, name: bytes, data: bytes, flags: int = os.O_TRUNC) -> None:
    node = await mine.lookup(name)
    assert node is not None
    handle = await mine.open(node, os.O_WRONLY | flags)
    await mine.fs.files.write(handle, 0, data)
    await mine.close(handle)


async def under_way(mine: Rig, name: bytes = b"a", data: bytes = b"first") -> Gate:
    """A new file whose upload has begun, and waits at the gate."""
    gate = mine.backend.faults.hold("put")
    await mine.store(name, data)
    await gate.reached.wait()
    return gate


# -- the promise ------------------------------------------------------------------------------
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


# -- names and attributes of what is pending --------------------------------------------------
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


# -- other clients ----------------------------------------------------------------------------
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

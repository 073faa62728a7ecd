"""Commits and what comes between: others' versions, a full disk, changes while one is under way."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Location
from filesfs.errors import AccessDenied, FileSystemError, NoSpace, PreconditionFailed
from filesfs.state.inodes import Node
from tests.fakes.memory_backend import MemoryBackend
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

pytestmark = pytest.mark.trio

PLACE = Location("b", "a")
NONE = AttributeChange()


async def test_attributes_that_meet_anothers_version_do_not_make_it_ours(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        mine.fs.core.rules = dataclasses.replace(mine.fs.core.rules, conflict_fail=True)
        node = await mine.store(b"a", b"base")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"ours")
        puts = mine.backend.faults.hold("put")
        chmods = mine.backend.faults.hold("set_attributes")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.fs.files.flush, handle)
            await puts.reached.wait()
            await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
            puts.open()
            await chmods.reached.wait()
            other = MemoryBackend(mine.backend.tree, origin="other")
            theirs = await other.put(PLACE, b"theirs", "text/plain", NONE)
            chmods.open()
        assert mine.fs.attributes.stat(node).mode == 0o600
        assert await mine.fs.files.read(handle, 0, 10) == b"ours"
        await mine.fs.files.write(handle, 0, b"OURS")
        with pytest.raises((PreconditionFailed, FileSystemError)):
            await mine.close(handle)
        assert (await other.stat(PLACE)).etag == theirs.etag
        assert await mine.content(b"a") == b"theirs"


async def test_a_readers_close_publishes_nothing_and_hears_of_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node, writer = await mine.create(b"a")
        await mine.fs.files.write(writer, 0, b"half")
        mine.backend.faults.fail("put", NoSpace("full"))
        await mine.close(await mine.open(node))
        assert "put" not in mine.calls
        with pytest.raises(NoSpace):
            await mine.fs.files.fsync(await mine.open(node))  # which is not asked who opened how
        await mine.close(writer)
        assert await mine.content(b"a") == b"half"


async def test_what_follows_a_writers_close_does_not_wait_for_readers(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"base")
        reader, writer = await mine.open(node), await mine.open(node, os.O_RDWR)
        await mine.fs.files.flush(writer)
        await mine.fs.files.write(writer, 0, b"map")
        await mine.fs.files.release(writer)
        await trio.testing.wait_all_tasks_blocked()
        assert await mine.content(b"a") == b"mape"
        assert await mine.fs.files.read(reader, 0, 10) == b"mape"
        await mine.close(reader)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_TRUNC])
async def test_a_file_that_is_made_or_emptied_by_a_reader_is_so(tmp_path: Path, flags: int) -> None:
    async with rig(tmp_path) as mine:
        if flags:
            handle = await mine.open(await mine.store(b"a", b"old"), flags)
        else:
            _, handle = await mine.create(b"a", flags)
        await mine.fs.files.flush(handle)
        assert (await mine.backend.stat(PLACE)).size == 0


async def test_what_was_refused_and_then_stored_is_not_refused_any_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"data")
        mine.backend.faults.fail("put", NoSpace("full"))
        with pytest.raises(NoSpace):
            await mine.fs.files.fsync(handle)
        await mine.fs.files.fsync(handle)
        await mine.fs.files.truncate(node, 4, ROOT_USER, open_=True)
        await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
        await mine.fs.files.release(handle)
        await mine.fs.files.commits.backlog.send_all()
        assert (await mine.backend.stat(PLACE)).attributes.mode == 0o600


@pytest.mark.parametrize("then", ["more", "less"])
async def test_what_follows_a_full_disk_is_stored_with_all_that_was_written(
    tmp_path: Path, then: str
) -> None:
    """What was refused is never there in part: all of it as the program has it, or nothing."""
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"0123456789")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"AAA")
        await mine.fs.files.write(handle, 8, b"BBBB")
        mine.backend.faults.fail("put", NoSpace("full"), times=2)
        for _ in range(2):
            with pytest.raises(NoSpace):
                await mine.fs.files.fsync(handle)
        assert (await mine.backend.stat(PLACE)).size == 10
        if then == "more":
            await mine.fs.files.write(handle, 4, b"C")
        else:
            await mine.fs.files.truncate(node, 5, ROOT_USER, open_=True)
        await mine.close(handle)
        expected = b"AAA3C567BBBB" if then == "more" else b"AAA34"
        assert await mine.content(b"a") == expected
        assert mine.fs.files.unsent() == 0


async def test_what_is_let_go_during_a_rename_is_kept_once_that_is_over(tmp_path: Path) -> None:
    """An mmap writes after the last FLUSH; the rename fails."""
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"old")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"new")
        gate = mine.backend.faults.hold("move")
        mine.backend.faults.fail("move", AccessDenied("not yours"))

        async def rename() -> None:
            with pytest.raises(AccessDenied):
                await mine.fs.renaming.rename((mine.bucket, b"a"), (mine.bucket, b"b"), 0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rename)
            await gate.reached.wait()
            await mine.fs.files.release(handle)
            gate.open()
        await trio.testing.wait_all_tasks_blocked()
        await mine.fs.files.commits.backlog.send_all()
        assert mine.fs.files.unsent() == 0
        assert await mine.content(b"a") == b"new"


async def test_a_directory_is_renamed_while_files_are_made_without_a_pause(tmp_path: Path) -> None:
    """There is always a commit of a new file under way, and none of them lasts."""
    async with rig(tmp_path) as mine:
        await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        folder = await mine.lookup(b"d")
        assert folder is not None
        done = trio.Event()

        async def make(first: int) -> None:
            for number in range(first, 1000, 2):
                if done.is_set():
                    return
                await _made(mine, folder, b"%d" % number)

        async def rename() -> None:
            await trio.lowlevel.checkpoint()
            await mine.fs.renaming.rename((mine.bucket, b"d"), (mine.bucket, b"e"), 0)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, 0)
            nursery.start_soon(make, 1)
            nursery.start_soon(rename)
        assert mine.backend.faults.count("put") < 100


async def test_directories_do_not_wait_for_what_is_done_in_others(tmp_path: Path) -> None:
    """A commit may take minutes: a rename above it waits, and nobody waits for that elsewhere."""
    async with rig(tmp_path) as mine:
        names = mine.fs.namespace
        for name in (b"busy", b"gone", b"moves"):
            await names.mkdir(mine.bucket, name, 0o755, ROOT_USER)
        busy = await mine.lookup(b"busy")
        assert busy is not None
        put = mine.backend.faults.hold("put")
        renamed = trio.Event()

        async def rename() -> None:
            await mine.fs.renaming.rename((mine.bucket, b"busy"), (mine.bucket, b"idle"), 0)
            renamed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_made, mine, busy, b"large")
            await put.reached.wait()
            nursery.start_soon(rename)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5):
                await names.rmdir(mine.bucket, b"gone")
                old, new = (mine.bucket, b"moves"), (mine.bucket, b"moved")
                await mine.fs.renaming.rename(old, new, 0)
            nursery.start_soon(mine.store, b"small", b"x")
            await trio.testing.wait_all_tasks_blocked()
            assert mine.calls.count("put") == 2  # which the backend holds up
            assert not renamed.is_set()
            put.open()
        assert renamed.is_set()
        assert await mine.names() == [b"idle", b"moved", b"small"]


async def _made(mine: Rig, parent: Node, name: bytes) -> None:
    """A new file, written and closed."""
    node, handle, _ = await mine.fs.namespace.create(parent, name, 0o644, os.O_RDWR, ROOT_USER)
    mine.fs.core.inodes.remember(node)
    await mine.fs.files.write(handle, 0, b"x")
    await mine.close(handle)


async def test_an_error_that_nobody_thought_of_is_told_and_the_rest_goes_up(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(tmp_path, writeback=True) as mine:
        mine.backend.faults.fail("put", RuntimeError("nobody thought of it"))
        await mine.store(b"a", b"data")
        await trio.sleep(60)
        await trio.testing.wait_all_tasks_blocked()
        assert "nobody thought of it" in caplog.text
        assert (await mine.backend.stat(PLACE)).size == 4


async def test_an_upload_ahead_of_what_is_refused_is_given_up(tmp_path: Path) -> None:
    """An mmap wrote it after the last FLUSH: no close() ends the session."""
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"old")
        handle = await mine.open(node, os.O_RDWR | os.O_TRUNC)
        for offset in range(0, 9 << 20, 1 << 20):
            await mine.fs.files.write(handle, offset, b"x" * (1 << 20))
        await trio.testing.wait_all_tasks_blocked()
        assert mine.backend.faults.count("open_upload") == 1
        mine.backend.faults.always("open_upload", AccessDenied("not yours"))
        await mine.fs.files.release(handle)
        await trio.testing.wait_all_tasks_blocked()
        assert mine.fs.core.journal.pending()
        assert mine.backend.faults.count("cancel") == 1
        assert await mine.content(b"a") == b"old"
        assert mine.fs.core.spool.in_memory == 0

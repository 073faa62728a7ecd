"""The file system without a kernel: what close() tells of what was written, and what goes up at it
and after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Handle, Location
from filesfs.errors import FileSystemError, Gone, NoSpace, Unavailable, Unsupported
from filesfs.filesystem.core import version_of
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig


@pytest.mark.trio
async def test_close_tells_the_truth_and_the_data_goes_up_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"precious")
        mine.backend.faults.fail("put", Unavailable("down"), times=2)
        with pytest.raises(Unavailable):
            await mine.close(handle)
        await trio.sleep(30)
        assert not node.local
        assert await mine.content(b"a") == b"precious"
        assert mine.fs.core.journal is not None
        assert mine.fs.core.journal.pending() == ()


@pytest.mark.trio
async def test_a_full_server_is_enospc_and_what_was_there_stays(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"old")
        handle = await mine.open(node, os.O_WRONLY | os.O_TRUNC)
        await mine.fs.files.write(handle, 0, b"new")
        mine.backend.faults.fail("put", NoSpace("full"), times=3)
        with pytest.raises(NoSpace):
            await mine.close(handle)
        assert (await mine.backend.stat(Location("b", "a"))).size == 3
        assert await mine.content(b"a") == b"old"
        assert (node.inode, True) in mine.kernel.inodes  # its pages have "new"


@pytest.mark.trio
async def test_an_upload_that_the_server_keeps_losing_is_not_a_removed_file(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"old")
        handle = await mine.open(node, os.O_WRONLY | os.O_TRUNC)
        await mine.fs.files.write(handle, 0, b"n" * (2 << 20))
        mine.backend.faults.fail("commit", Gone("collected"), times=3)
        with pytest.raises(Unavailable):
            await mine.close(handle)
        await mine.fs.files.commits.backlog.send_all()
        assert (await mine.backend.stat(Location("b", "a"))).size == 2 << 20


@pytest.mark.trio
async def test_what_enospc_was_told_for_does_not_come_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The program may have written something else by then, or removed the name."""
    async with rig(tmp_path) as mine:
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"too much")
        mine.backend.faults.fail("put", NoSpace("full"), times=2)
        with pytest.raises(NoSpace):
            await mine.fs.files.flush(handle)
        with pytest.raises(NoSpace):
            await mine.close(handle)  # while it is open it may be tried again
        assert mine.fs.core.journal is not None
        assert mine.fs.core.journal.pending() == ()
        assert mine.fs.files.unsent() == 0
        await trio.sleep(60)
        assert await mine.names() == []
        await mine.store(b"a", b"less")
        assert await mine.content(b"a") == b"less"


@pytest.mark.trio
async def test_a_new_file_that_was_given_up_is_not_opened_by_its_inode(tmp_path: Path) -> None:
    """The kernel may know its name for a moment longer: what is written into it would be lost, and
    close() say nothing.
    """
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"too much")
        mine.backend.faults.fail("put", NoSpace("full"))
        with pytest.raises(NoSpace):
            await mine.fs.files.flush(handle)
        await mine.fs.files.release(handle)
        with pytest.raises(FileSystemError) as raised:
            await mine.open(node, os.O_WRONLY | os.O_TRUNC)
        assert raised.value.code == errno.ESTALE  # the kernel looks the name up once more
        with pytest.raises(FileSystemError) as raised:
            await mine.fs.files.truncate(node, 3, ROOT_USER, open_=False)
        assert raised.value.code == errno.ESTALE
        await mine.store(b"a", b"less")
        assert await mine.content(b"a") == b"less"


@pytest.mark.trio
async def test_writes_after_the_flush_go_up_at_release(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"first")
        await mine.fs.files.flush(handle)
        await mine.fs.files.write(handle, 0, b"FIRST")  # as an mmap does after close()
        await mine.fs.files.release(handle)
        with trio.fail_after(5):
            while mine.fs.files.unsent():
                await trio.testing.wait_all_tasks_blocked()
        assert await mine.content(b"a") == b"FIRST"


@pytest.mark.trio
async def test_attributes_of_a_file_being_written_go_with_its_commit(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"x")
        change = AttributeChange(mode=0o600, modified_ns=1_000_000_001)
        await mine.fs.attributes.set(node, change)
        await mine.close(handle)
        assert "set_attributes" not in mine.calls
        there = await mine.backend.stat(Location("b", "a"))
        assert there.attributes.mode == 0o600
        assert there.attributes.modified_ns == 1_000_000_001


@pytest.mark.trio
async def test_the_kernels_pages_stay_right_across_our_own_commit(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"x")
        assert node.entry is not None
        _, keep = await mine.fs.files.open(node, os.O_RDONLY, ROOT_USER)
        assert node.cached_version == version_of(node.entry)
        assert keep


@pytest.mark.trio
@pytest.mark.parametrize("error", [Unsupported("plain"), Unavailable("down")])
async def test_attributes_that_change_during_a_commit_are_sent_after_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, error: Exception
) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"x")
        gate = mine.backend.faults.hold("put")
        mine.backend.faults.fail("set_attributes", error)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_close_quietly, mine, handle)
            await gate.reached.wait()
            await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
            gate.open()
        await trio.sleep(30)
        assert mine.fs.attributes.stat(node).mode == 0o600
        if isinstance(error, Unavailable):  # a plain server keeps none, the mount does
            there = await mine.backend.stat(Location("b", "a"))
            assert there.attributes.mode == 0o600
        assert mine.fs.files.unsent() == 0


async def _close_quietly(mine: Rig, handle: Handle) -> None:
    with contextlib.suppress(Unavailable):
        await mine.close(handle)


@pytest.mark.trio
async def test_what_an_mmap_wrote_after_close_is_in_the_journal_while_the_server_is_away(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as mine:
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"first")
        await mine.fs.files.flush(handle)
        await mine.fs.files.write(handle, 0, b"FIRST")
        mine.backend.faults.always("put", Unavailable("down"))
        await mine.fs.files.release(handle)
        assert mine.fs.core.journal is not None
        assert len(mine.fs.core.journal.pending()) == 1


@pytest.mark.trio
async def test_attributes_that_were_to_follow_an_upload_come_with_the_journal(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        for offset in range(0, 9 << 20, 1 << 20):
            await mine.fs.files.write(handle, offset, b"x" * (1 << 20))
        await trio.testing.wait_all_tasks_blocked()
        await mine.fs.attributes.set(node, AttributeChange(mode=0o755, modified_ns=10**18))
        mine.backend.faults.fail("set_attributes", Unavailable("down"))
        with pytest.raises(Unavailable):
            await mine.close(handle)
        await mine.fs.files.commits.backlog.send_all()
        entry = await mine.backend.stat(Location("b", "a"))
        assert (entry.size, entry.attributes.mode) == (9 << 20, 0o755)
        assert entry.attributes.modified_ns == 10**18


@pytest.mark.trio
async def test_an_upload_ahead_of_close_does_not_outlive_what_the_journal_stored(
    tmp_path: Path,
) -> None:
    """An mmap is written after the last FLUSH: RELEASE hands it to the journal."""
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"old")
        handle = await mine.open(node, os.O_RDWR | os.O_TRUNC)
        for offset in range(0, 9 << 20, 1 << 20):
            await mine.fs.files.write(handle, offset, b"x" * (1 << 20))
        await trio.testing.wait_all_tasks_blocked()
        await mine.fs.files.release(handle)
        again = await mine.open(node, os.O_RDWR)
        await mine.fs.files.commits.backlog.send_all()
        await mine.fs.files.write(again, 0, b"new")
        await mine.close(again)
        entry = await mine.backend.stat(Location("b", "a"))
        assert await mine.backend.read(entry, 0, 6) == b"newxxx"

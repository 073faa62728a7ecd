"""The file system's semantics without a kernel: which requests it makes, and what it answers."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Handle, Listing, Location
from filesfs.errors import FileSystemError, Gone, NoSpace, Unavailable, Unsupported
from filesfs.filesystem.core import version_of
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig


@pytest.mark.trio
async def test_a_new_file_is_local_until_its_first_close(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"hello")
        assert node.local
        assert "put" not in mine.calls
        await mine.close(handle)
        assert mine.calls.count("put") == 1
        assert node.entry is not None
        assert node.entry.size == 5


@pytest.mark.trio
async def test_o_excl_asks_the_server_at_once(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with rig(tmp_path / "1", tree) as mine, rig(tmp_path / "2", tree, origin="o") as other:
        await mine.names()
        await other.store(b"a", b"theirs")
        with pytest.raises(FileSystemError) as raised:
            await mine.create(b"a", os.O_RDWR | os.O_EXCL)
        assert raised.value.code == errno.EEXIST


@pytest.mark.trio
async def test_an_unsent_file_is_renamed_and_removed_without_a_request(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        _, handle = await mine.create(b"a")
        mine.backend.faults.calls.clear()
        await mine.fs.renaming.rename((mine.bucket, b"a"), (mine.bucket, b"b"), 0)
        await mine.fs.namespace.unlink(mine.bucket, b"b")
        assert "move" not in mine.calls
        assert "remove" not in mine.calls
        await mine.close(handle)
        assert "put" not in mine.calls
        assert await mine.names() == []


@pytest.mark.trio
async def test_an_unsent_file_over_an_older_one_replaces_it_at_close(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        await mine.store(b"target", b"old")
        _, handle = await mine.create(b"new")
        await mine.fs.files.write(handle, 0, b"new")
        await mine.fs.renaming.rename((mine.bucket, b"new"), (mine.bucket, b"target"), 0)
        there = await mine.backend.stat(Location("b", "target"))
        assert there.size == 3
        await mine.close(handle)
        assert await mine.content(b"target") == b"new"
        assert await mine.names() == [b"target"]


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
async def test_an_unlinked_open_file_stays_readable_and_is_not_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"content")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.namespace.unlink(mine.bucket, b"a")
        assert await mine.fs.files.read(handle, 0, 100) == b"content"
        await mine.fs.files.write(handle, 0, b"C")
        assert await mine.fs.files.read(handle, 0, 100) == b"Content"
        await mine.close(handle)
        assert await mine.names() == []


@pytest.mark.trio
async def test_a_version_that_an_open_handle_has_is_never_mixed(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with rig(tmp_path / "1", tree) as mine, rig(tmp_path / "2", tree, origin="o") as other:
        node = await mine.store(b"a", b"old old")
        handle = await mine.open(node)
        theirs = await other.lookup(b"a")
        assert theirs is not None
        writing = await other.open(theirs, os.O_WRONLY | os.O_TRUNC)
        await other.fs.files.write(writing, 0, b"new")
        await other.close(writing)
        with pytest.raises(FileSystemError) as raised:
            await mine.open(node)
        assert raised.value.code == errno.ESTALE
        again = await mine.lookup(b"a")
        assert again is not None
        assert again is not node
        assert again.inode != node.inode
        assert await mine.fs.files.read(handle, 0, 100) == b"old old"
        assert await mine.content(b"a") == b"new"
        await mine.close(handle)


@pytest.mark.trio
async def test_open_of_a_replaced_name_is_estale(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with rig(tmp_path / "1", tree) as mine, rig(tmp_path / "2", tree, origin="o") as other:
        node = await mine.store(b"a", b"one")
        await other.lookup(b"a")
        await other.fs.namespace.unlink(other.bucket, b"a")
        await other.store(b"a", b"two")
        with pytest.raises(FileSystemError) as raised:
            await mine.open(node)
        assert raised.value.code == errno.ESTALE
        assert await mine.content(b"a") == b"two"


@pytest.mark.trio
async def test_with_the_feed_stat_and_ls_of_an_unchanged_tree_ask_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, feed=True) as mine:
        await mine.store(b"a", b"x")
        await mine.names()
        mine.backend.faults.calls.clear()
        for _ in range(3):
            assert await mine.names() == [b"a"]
            assert await mine.lookup(b"a") is not None
            assert await mine.lookup(b"missing") is None
        assert mine.calls == []


@pytest.mark.trio
async def test_the_feed_tells_of_new_changed_and_removed_names(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as other,
    ):
        await mine.names()
        assert await mine.lookup(b"a") is None
        await other.store(b"a", b"1")
        await trio.testing.wait_all_tasks_blocked()
        assert (mine.bucket.inode, b"a") in mine.kernel.entries
        assert await mine.content(b"a") == b"1"
        await other.lookup(b"a")
        await other.fs.namespace.unlink(other.bucket, b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert await mine.lookup(b"a") is None


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
async def test_only_buckets_live_at_the_root(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        with pytest.raises(FileSystemError) as raised:
            await mine.fs.namespace.create(
                mine.fs.core.inodes.root, b"file", 0o644, os.O_RDWR, ROOT_USER
            )
        assert raised.value.code == errno.EPERM


@pytest.mark.trio
async def test_nothing_is_left_of_what_the_kernel_forgot(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        before = len(mine.fs.core.inodes)
        for index in range(10):
            node = await mine.store(b"f%d" % index, b"x")
            mine.fs.forget(node.inode, 1)
        assert len(mine.fs.core.inodes) == before


@pytest.mark.trio
async def test_what_an_unsent_file_covered_does_not_come_back_when_it_moves_on(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as mine:
        await mine.store(b"target", b"old")
        _, handle = await mine.create(b"new")
        await mine.fs.renaming.rename((mine.bucket, b"new"), (mine.bucket, b"target"), 0)
        await mine.fs.renaming.rename((mine.bucket, b"target"), (mine.bucket, b"last"), 0)
        assert await mine.names() == [b"last"]
        await mine.close(handle)
        listing = await mine.backend.list_directory(Location("b"))
        assert [entry.location.name for entry in listing.entries] == ["last"]


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
async def test_an_open_costs_one_request_whatever_the_size(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        for data in (b"", b"x"):
            node = await mine.store(b"f%d" % len(data), data)
            mine.backend.faults.calls.clear()
            await mine.close(await mine.open(node))
            assert mine.calls == [("read_whole" if data else "stat")]


@pytest.mark.trio
async def test_a_name_is_found_although_the_listings_of_its_directory_are_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others change it faster than it is listed: what no listing has may be there all the same."""
    tree = MemoryTree()
    async with rig(tmp_path / "1", tree) as mine, rig(tmp_path / "2", tree, origin="o") as other:
        empty = await mine.backend.list_directory(Location("b"))

        async def overtaken(location: Location) -> Listing:
            mine.fs.core.directories.doubt(mine.bucket, b"others")
            return empty

        monkeypatch.setattr(mine.backend, "list_directory", overtaken)
        for number in range(30):  # enough to ask for a listing in place of single names
            name = b"new%d" % number
            await other.store(name, b"x")
            mine.fs.core.directories.doubt(mine.bucket, name)
            assert await mine.lookup(name) is not None, name


@pytest.mark.trio
async def test_a_rename_is_done_although_what_it_replaces_was_forgotten_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after the server has moved it would make the kernel ask for it once more."""
    async with rig(tmp_path) as mine:
        await mine.store(b"new", b"new")
        old = await mine.store(b"old", b"old")
        move = mine.backend.move

        async def moved(*places: Location, **options: bool) -> None:
            await move(*places, **options)  # type: ignore[arg-type]  # passed on as they are
            mine.fs.core.inodes.drop_name(old, mine.bucket, b"old")

        monkeypatch.setattr(mine.backend, "move", moved)
        await mine.fs.renaming.rename((mine.bucket, b"new"), (mine.bucket, b"old"), 0)
        assert await mine.names() == [b"old"]
        assert await mine.content(b"old") == b"new"


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

"""The file system's semantics without a kernel: which requests it makes, and what it answers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Location
from filesfs.errors import FileSystemError
from filesfs.packed import Listing
from filesfs.state.inodes import Node
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, rig


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
async def test_a_listing_tells_what_stat_does(tmp_path: Path) -> None:
    """Whatever has become of a node since the kernel was told of it first."""
    async with rig(tmp_path, feed=True) as mine:
        for name in (b"a", b"b", b"c", b"d", b"linked", b"moved", b"open"):
            await mine.store(name, name)
        await mine.fs.namespace.mkdir(mine.bucket, b"folder", 0o700, ROOT_USER)
        mine.fs.core.directories.drop(mine.bucket)
        for inode in [node.inode for node in mine.fs.core.inodes if node.names]:
            if inode != mine.bucket.inode:
                mine.fs.forget(inode, 1)

        async def told() -> dict[bytes, Node]:
            nodes, directory = {}, mine.bucket
            names = await mine.names()
            counts = mine.fs.listing_counts(directory)
            for _, name, node, status in mine.fs.listed(directory, names, 0, counts=counts):
                assert status == mine.fs.attributes.stat(node)
                mine.fs.core.inodes.remember(node)
                nodes[name] = node
            assert [*nodes] == names
            return nodes

        first = await told()
        assert await told() == first
        handle = await mine.open(first[b"open"], os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"longer than before")
        await mine.create(b"local")
        await mine.fs.attributes.set(first[b"a"], AttributeChange(mode=0o600))
        await mine.fs.attributes.set(first[b"open"], AttributeChange(mode=0o640))
        await mine.fs.namespace.link(first[b"linked"], mine.bucket, b"other")
        await mine.fs.renaming.rename((mine.bucket, b"moved"), (mine.bucket, b"there"), 0)
        await mine.fs.namespace.unlink(mine.bucket, b"b")
        await mine.fs.namespace.mkdir(first[b"folder"], b"below", 0o700, ROOT_USER)
        second = await told()
        assert second[b"other"] is second[b"linked"] is first[b"linked"]
        assert second[b"there"] is first[b"moved"]
        await mine.close(handle)
        assert (await told())[b"open"] is first[b"open"]

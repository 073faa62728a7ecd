"""open() of a file that others change all the time: the kernel's second try after ESTALE."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from filesfs.domain import Entry, Handle, Inode, Location
from filesfs.errors import FileSystemError
from filesfs.filesystem import Caller
from filesfs.state.inodes import Node
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import Rig, rig

THREAD = Caller(thread=7)


async def look_up(mine: Rig, name: bytes, thread: int = 7) -> Node:
    node = await mine.fs.look_up(mine.bucket, name, thread)
    assert node is not None
    mine.fs.core.inodes.remember(node)
    return node


async def open_as(mine: Rig, node: Node, caller: Caller = THREAD) -> Handle:
    return (await mine.fs.files.open(node, os.O_RDONLY, caller))[0]


async def refused(mine: Rig, node: Node, caller: Caller = THREAD) -> None:
    with pytest.raises(FileSystemError) as raised:
        await open_as(mine, node, caller)
    assert raised.value.code == errno.ESTALE


@asynccontextmanager
async def changed(folder: Path) -> AsyncIterator[tuple[Rig, Rig, Node]]:
    """Two clients, and the node of a file that the other one has changed since."""
    tree = MemoryTree()
    async with rig(folder / "1", tree) as mine, rig(folder / "2", tree, origin="o") as other:
        node = await mine.store(b"a", b"one")
        await other.lookup(b"a")
        await other.store(b"a", b"second")
        yield mine, other, node


@pytest.mark.trio
async def test_a_second_try_opens_what_was_looked_up_for_it(tmp_path: Path) -> None:
    """Though it has changed once more since."""
    async with changed(tmp_path) as (mine, other, node):
        await refused(mine, node)
        again = await look_up(mine, b"a")
        await other.store(b"a", b"the third")
        handle = await open_as(mine, again)
        assert await mine.fs.files.read(handle, 0, 100) == b"second"
        await mine.close(handle)
        await refused(mine, again)  # the next open() is strict
        assert await mine.content(b"a") == b"the third"


@pytest.mark.trio
async def test_only_the_thread_that_was_refused_has_one(tmp_path: Path) -> None:
    async with changed(tmp_path) as (mine, other, node):
        await refused(mine, node)
        again = await look_up(mine, b"a")
        await other.store(b"a", b"the third")
        await refused(mine, again, Caller(thread=8))


@pytest.mark.trio
async def test_callers_without_a_number_have_none(tmp_path: Path) -> None:
    """All processes outside of the mount's pid namespace are thread 0."""
    async with changed(tmp_path) as (mine, other, node):
        await refused(mine, node, Caller())
        again = await look_up(mine, b"a", 0)
        await other.store(b"a", b"the third")
        await refused(mine, again, Caller())  # of another program, which began after that


@pytest.mark.trio
async def test_none_after_a_second_refusal(tmp_path: Path) -> None:
    """The program has its ESTALE, and what it opens next is strict, whoever looked the name up."""
    async with changed(tmp_path) as (mine, other, node):
        await refused(mine, node)
        await refused(mine, node)
        found = await look_up(mine, b"a", 8)
        await other.store(b"a", b"the third")
        await refused(mine, found)


@pytest.mark.trio
async def test_none_if_a_getattr_was_the_first(tmp_path: Path) -> None:
    async with changed(tmp_path) as (mine, other, node):
        old = await mine.store(b"b", b"old")
        mine.fs.core.inodes.remember(old)
        await other.fs.namespace.unlink(other.bucket, b"b")
        mine.fs.core.directories.doubt(mine.bucket, b"b")
        with pytest.raises(FileSystemError):
            await mine.fs.fresh(old, 7)
        await refused(mine, node)
        found = await look_up(mine, b"a", 8)
        await other.store(b"a", b"the third")
        await refused(mine, found)


@pytest.mark.trio
async def test_a_second_try_that_never_comes_is_forgotten(tmp_path: Path) -> None:
    """Its thread may be gone. Lookups are not remembered for it without end."""
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"one")
        second = mine.fs.files.second_tries
        second.begin(7, (mine.bucket.inode, b"a"), 0.0)
        for number in range(2000):
            second.found(Node(Inode(number), node.kind, None), (mine.bucket.inode, b"b"), 0.0)
        assert not second
        assert len(second._asked) <= 1000


@pytest.mark.trio
async def test_none_after_a_lookup_that_found_nothing(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with rig(tmp_path / "1", tree) as mine, rig(tmp_path / "2", tree, origin="o") as other:
        node = await mine.store(b"a", b"one")
        await other.lookup(b"a")
        await other.fs.namespace.unlink(other.bucket, b"a")
        await refused(mine, node)
        assert await mine.fs.look_up(mine.bucket, b"a", 7) is None
        assert not mine.fs.files.second_tries


@pytest.mark.trio
async def test_an_answer_that_an_event_overtook_is_not_kept(tmp_path: Path) -> None:
    """What open() was answered may be of before the change that the event tells of."""
    async with rig(tmp_path, feed=True) as mine:
        node = await mine.store(b"a", b"one")
        latest = mine.fs.files._latest

        async def overtaken(node: Node, place: Location, readable: bool) -> Entry:
            entry = await latest(node, place, readable)
            mine.fs.core.directories.doubt(mine.bucket, b"a")
            return entry

        mine.fs.files._latest = overtaken  # type: ignore[method-assign]
        await mine.close(await mine.open(node))
        assert not mine.fs.core.directories.lookup(mine.bucket, b"a")[0]


@pytest.mark.trio
async def test_who_holds_what_was_changed_sees_what_it_was(tmp_path: Path) -> None:
    """As with an O_PATH descriptor, whose fstat() is a GETATTR; its name leads elsewhere."""
    async with changed(tmp_path) as (mine, _, node):
        await refused(mine, node)
        again = await look_up(mine, b"a")
        assert again is not node
        for _ in ("known", "doubted"):
            assert (await mine.fs.attributes.fresh(node)).size == 3
            mine.fs.core.directories.doubt(mine.bucket, b"a")
        assert (await mine.fs.attributes.fresh(again)).size == 6


@pytest.mark.trio
async def test_a_lookup_of_a_second_try_asks_the_server(tmp_path: Path) -> None:
    """What is known of the name is from before the open() began."""
    tree = MemoryTree()
    async with rig(tmp_path / "1", tree, feed=True) as mine, rig(tmp_path / "2", tree) as other:
        node = await mine.store(b"a", b"one")
        known = await look_up(mine, b"a")
        mine.fs.files.second_tries.begin(
            7, (mine.bucket.inode, b"a"), mine.fs.core.directories.now()
        )
        await other.lookup(b"a")
        await other.store(b"a", b"second")
        again = await look_up(mine, b"a")
        assert known is node
        assert again is not node

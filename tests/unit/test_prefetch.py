"""Files of a directory that is walked come many in a request; open() stays as strict as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Kind, Lease, Location, lease_clock
from filesfs.errors import Unavailable
from filesfs.read.ahead import UNREAD_BYTES
from filesfs.read.blocks import BlockCache, version_of
from filesfs.state.inodes import Node
from filesfs.wire import Extension
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

pytestmark = pytest.mark.trio
COUNT = 60
NAMES = [b"f%02d" % number for number in range(COUNT)]
NONE = AttributeChange()


def place(name: bytes) -> Location:
    return Location("b", f"d/{name.decode()}")


@asynccontextmanager
async def walked(folder: Path, *, lease: bool = True) -> AsyncIterator[tuple[Rig, MemoryBackend]]:
    """A client that has just listed a directory of small files, which is its `bucket` here; and the
    way of somebody else to the same server.
    """
    tree = MemoryTree()
    other = MemoryBackend(tree, origin="other")
    await other.make_directory(Location("b"), NONE)
    await other.make_directory(Location("b", "d"), NONE)
    for name in NAMES:
        await other.put(place(name), name * 10, "text/plain", NONE)
    async with rig(folder, tree, feed=True) as mine:
        directory = await mine.lookup(b"d")
        assert directory is not None
        mine.bucket = directory
        assert await mine.names() == NAMES
        if lease:
            mine.backend.lease = Lease("t", lease_clock() + 60, 60)
        mine.backend.faults.calls.clear()
        yield mine, other


async def read(mine: Rig, *names: bytes) -> list[bytes]:
    """What is in them, opened one after the other; what is fetched meanwhile has come."""
    found = []
    for name in names:
        found.append(bytes(await mine.content(name)))
        await trio.testing.wait_all_tasks_blocked()
    return found


def requests(mine: Rig) -> int:
    return len(mine.calls)


async def node_of(mine: Rig, name: bytes) -> Node:
    node = await mine.lookup(name)
    assert node is not None
    return node


async def test_a_walk_costs_few_requests(tmp_path: Path) -> None:
    async with walked(tmp_path) as (mine, _):
        assert await read(mine, *NAMES) == [name * 10 for name in NAMES]
        assert mine.calls == ["read_whole"] * 3 + ["read_many"] * 4
        assert await read(mine, *NAMES) == [name * 10 for name in NAMES]
        assert requests(mine) == 7


async def test_what_others_change_is_seen_at_once(tmp_path: Path) -> None:
    async with walked(tmp_path) as (mine, other):
        await read(mine, *NAMES[:5])
        for name in NAMES[5:9]:
            await other.put(place(name), b"new", "text/plain", NONE)
        await trio.testing.wait_all_tasks_blocked()
        assert await read(mine, *NAMES[5:9]) == [b"new"] * 4
        await other.remove(place(NAMES[9]), Kind.FILE)
        await other.move(place(NAMES[11]), place(NAMES[10]), Kind.FILE)
        await trio.testing.wait_all_tasks_blocked()
        assert await mine.lookup(NAMES[9]) is None
        assert await read(mine, NAMES[10]) == [NAMES[11] * 10]


async def test_what_others_change_meanwhile_is_asked_for_again(tmp_path: Path) -> None:
    """The answer may be older than the change; of other files it is believed."""
    async with walked(tmp_path) as (mine, other):
        await read(mine, *NAMES[:2])
        gate = mine.backend.faults.hold("read_many")
        gate.opened = trio.Event()
        await read(mine, NAMES[2])
        await gate.reached.wait()
        await other.put(place(NAMES[5]), b"new", "text/plain", NONE)
        await trio.testing.wait_all_tasks_blocked()
        mine.backend.faults.clear()
        await trio.testing.wait_all_tasks_blocked()
        mine.backend.faults.calls.clear()
        assert await read(mine, *NAMES[3:5]) == [name * 10 for name in NAMES[3:5]]
        assert mine.calls == []
        assert await read(mine, NAMES[5]) == [b"new"]
        assert requests(mine) > 0


async def test_what_we_change_meanwhile_is_what_we_read(tmp_path: Path) -> None:
    async with walked(tmp_path) as (mine, _):
        await read(mine, *NAMES[:2])
        gate = mine.backend.faults.hold("read_many")
        await read(mine, NAMES[2])
        await gate.reached.wait()
        node = await node_of(mine, NAMES[5])
        handle = await mine.open(node, 1)
        await mine.fs.files.truncate(node, 0, ROOT_USER, open_=True)
        await mine.fs.files.write(handle, 0, b"mine")
        await mine.close(handle)
        await mine.fs.namespace.unlink(mine.bucket, NAMES[6])
        await mine.fs.renaming.rename((mine.bucket, NAMES[8]), (mine.bucket, NAMES[7]), 0)
        gate.open()
        await trio.testing.wait_all_tasks_blocked()
        assert await read(mine, NAMES[5], NAMES[7]) == [b"mine", NAMES[8] * 10]
        assert await mine.lookup(NAMES[6]) is None


async def test_a_directory_that_we_rename_meanwhile_has_no_leases(tmp_path: Path) -> None:
    async with walked(tmp_path) as (mine, _):
        await read(mine, *NAMES[:2])
        gate = mine.backend.faults.hold("read_many")
        await read(mine, NAMES[2])
        await gate.reached.wait()
        bucket = mine.bucket.above
        assert bucket is not None
        await mine.fs.renaming.rename((bucket, b"d"), (bucket, b"e"), 0)
        gate.open()
        await trio.testing.wait_all_tasks_blocked()
        mine.backend.faults.calls.clear()
        assert await read(mine, NAMES[4]) == [NAMES[4] * 10]
        assert requests(mine) > 0


async def test_no_open_waits_for_what_is_fetched(tmp_path: Path) -> None:
    async with walked(tmp_path) as (mine, _):
        mine.backend.faults.hold("read_many")
        with trio.fail_after(5):
            assert await read(mine, *NAMES) == [name * 10 for name in NAMES]
        assert mine.backend.faults.count("read_many") == 1


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("unexpected")])
async def test_what_cannot_be_fetched_is_asked_for_one_by_one(
    tmp_path: Path, error: Exception
) -> None:
    async with walked(tmp_path) as (mine, _):
        mine.backend.faults.always("read_many", error)
        assert await read(mine, *NAMES) == [name * 10 for name in NAMES]
        assert mine.backend.faults.count("read_many") <= 3


async def test_without_leases_nothing_is_fetched_for_long(tmp_path: Path) -> None:
    async with walked(tmp_path, lease=False) as (mine, _):
        assert await read(mine, *NAMES) == [name * 10 for name in NAMES]
        assert mine.backend.faults.count("read_many") <= 2
        assert mine.backend.faults.count("read_whole") == COUNT


async def test_nothing_is_fetched_where_it_is_of_no_use(tmp_path: Path) -> None:
    async with walked(tmp_path / "1") as (mine, _):
        mine.fs.core.directories.feed_lost()
        await read(mine, *NAMES[:9])
        assert mine.backend.faults.count("read_many") == 0
    async with walked(tmp_path / "2") as (mine, _):
        mine.backend._extensions = frozenset(Extension) - {Extension.CONTENTS}
        await read(mine, *NAMES[:9])
        assert mine.backend.faults.count("read_many") == 0
    async with walked(tmp_path / "3") as (mine, _):  # it would take the place of too much
        mine.fs.core.blocks = BlockCache(UNREAD_BYTES)
        await read(mine, *NAMES[:9])
        assert mine.backend.faults.count("read_many") == 0


async def test_what_nobody_opens_goes_from_memory(tmp_path: Path) -> None:
    async with walked(tmp_path) as (mine, _):
        blocks = mine.fs.core.blocks
        await read(mine, *NAMES[:3])
        entry = (await node_of(mine, NAMES[4])).entry
        assert entry is not None
        assert blocks.get(version_of(entry), 0) == NAMES[4] * 10
        await read(mine, *NAMES[59:51:-1])
        assert blocks.get(version_of(entry), 0) is None


async def test_nothing_of_a_walk_outlives_its_directory(tmp_path: Path) -> None:
    """Of 64 directories with 100,000 names each the names alone would be hundreds of MB."""
    async with walked(tmp_path) as (mine, _):
        await read(mine, *NAMES[:3])
        assert len(mine.fs.files.prefetch) == 1
        for node in [await node_of(mine, name) for name in NAMES] + [mine.bucket]:
            mine.fs.forget(node.inode, node.lookups)
        assert mine.fs.core.inodes.get(mine.bucket.inode) is None
        assert len(mine.fs.files.prefetch) == 0


async def test_files_with_other_names_are_left_to_their_own_open(tmp_path: Path) -> None:
    """Changed under another name nobody would hear of them here."""
    async with walked(tmp_path) as (mine, other):
        await other.link(place(NAMES[5]), Location("b", "link"))
        await trio.testing.wait_all_tasks_blocked()
        await mine.names()
        await read(mine, *NAMES[:3])
        mine.backend.faults.calls.clear()
        await read(mine, NAMES[4])
        assert mine.calls == []
        await read(mine, NAMES[5])
        assert mine.calls == ["read_whole"]


async def test_an_answer_of_another_version_than_was_listed_is_not_believed(tmp_path: Path) -> None:
    """Its event is still on its way."""
    async with walked(tmp_path) as (mine, _):
        read_many = mine.backend.read_many

        async def newer(directory: Location, names: list[str]) -> object:
            many = await read_many(directory, names)
            return dataclasses.replace(many, at_rest=dict.fromkeys(names, many.at_rest[names[-1]]))

        mine.backend.read_many = newer  # type: ignore[assignment, method-assign]
        await read(mine, *NAMES[:3])
        mine.backend.faults.calls.clear()
        assert await read(mine, NAMES[4]) == [NAMES[4] * 10]
        assert "read_whole" in mine.calls

"""What others change while our own request is under way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Change, Entry, Kind, Location
from filesfs.state.directories import DirectoryCache
from filesfs.wire import Operation
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


@pytest.mark.parametrize("exchange", [False, True])
async def test_a_directory_that_others_move_and_fill_shows_what_is_in_it(
    tmp_path: Path, *, exchange: bool
) -> None:
    tree = MemoryTree()
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as other,
    ):
        files, above = mine.fs, await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        below = await files.namespace.mkdir(above, b"sub", 0o755, ROOT_USER)
        for node in (above, below):
            mine.fs.core.inodes.remember(node)
            await files.tree.snapshot(node)
        theirs, bucket = other.backend, Location("b")
        if exchange:
            await theirs.make_directory(bucket.child("e"), AttributeChange())
        old, new = bucket.child("d"), bucket.child("e")
        await theirs.move(old, new, Kind.DIRECTORY, exchange=exchange)
        for place in (new.child("1"), new.child("sub").child("2")):
            await theirs.put(place, b"", "text/plain", AttributeChange())
        await trio.testing.wait_all_tasks_blocked()
        found = await files.tree.child(mine.bucket, b"e")
        assert found is above
        assert sorted(await files.tree.snapshot(above)) == [b"1", b"sub"]
        assert await files.tree.child(above, b"sub") is below
        assert await files.tree.snapshot(below) == [b"2"]


async def test_a_name_that_others_take_before_our_unlink_is_answered_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = MemoryTree()
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as other,
    ):
        await mine.store(b"f", b"ours")
        await mine.names()
        remove = mine.backend.remove

        async def removed(location: Location, kind: Kind) -> None:
            await remove(location, kind)
            await other.backend.put(location, b"theirs", "text/plain", AttributeChange())
            await trio.testing.wait_all_tasks_blocked()  # its event overtakes our answer

        monkeypatch.setattr(mine.backend, "remove", removed)
        await mine.fs.namespace.unlink(mine.bucket, b"f")
        assert await mine.names() == [b"f"]
        assert await mine.content(b"f") == b"theirs"


async def test_what_comes_into_a_directory_before_our_rename_is_answered_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = MemoryTree()
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as other,
    ):
        node = await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        below = await mine.fs.namespace.mkdir(node, b"sub", 0o755, ROOT_USER)
        move, new = mine.backend.move, Location("b", "e")

        async def moved(source: Location, destination: Location, kind: Kind, **how: bool) -> None:
            await move(source, destination, kind, **how)
            for place in (new.child("1"), new.child("sub").child("2")):
                await other.backend.put(place, b"", "text/plain", AttributeChange())
            await trio.testing.wait_all_tasks_blocked()  # the events overtake our answer

        monkeypatch.setattr(mine.backend, "move", moved)
        await mine.fs.renaming.rename((mine.bucket, b"d"), (mine.bucket, b"e"), 0)
        assert sorted(await mine.fs.tree.snapshot(node)) == [b"1", b"sub"]
        assert await mine.fs.tree.snapshot(below) == [b"2"]


async def test_after_a_pause_of_the_feed_nothing_old_counts_before_it_was_caught_up(
    tmp_path: Path,
) -> None:
    now = 0.0
    async with rig(tmp_path) as mine:
        cache = mine.fs.core.directories = DirectoryCache(ttl=1, clock=lambda: now)
        cache.feed_connected(gap=True)
        stamp = cache.stamp(mine.bucket)
        cache.keep_entry(mine.bucket, b"old", None, stamp)
        now = 5.0
        assert cache.lookup(mine.bucket, b"old") == (True, None)
        cache.feed_lost()
        now = 10.0
        cache.feed_connected(gap=False)  # what happened since is on its way
        assert cache.lookup(mine.bucket, b"old") == (False, None)
        cache.keep_entry(mine.bucket, b"new", None, cache.stamp(mine.bucket))
        now = 15.0
        assert cache.lookup(mine.bucket, b"new") == (True, None)
        assert cache.lookup(mine.bucket, b"old") == (False, None)
        mine.fs.coherence.apply(Change(Operation.BUCKET, (), None, None, True, "e-7"))
        assert cache.lookup(mine.bucket, b"old") == (True, None)


@pytest.mark.parametrize("path", ["n/f", "n/m/f", "n/m/l/f"])
@pytest.mark.parametrize("looked_into", [False, True])
async def test_directories_that_keys_imply_come_and_go_with_what_is_in_them(
    tmp_path: Path, path: str, *, looked_into: bool
) -> None:
    """Several at once; the event names the file alone."""
    tree, place = MemoryTree(), Location("b", path)
    async with (
        rig(tmp_path / "1", tree, feed=True) as mine,
        rig(tmp_path / "2", tree, origin="o") as other,
    ):
        await mine.store(b"a", b"1")
        assert await mine.names() == [b"a"]
        await other.backend.put(place, b"1", "text/plain", AttributeChange())
        await trio.testing.wait_all_tasks_blocked()
        assert (mine.bucket.inode, b"n") in mine.kernel.entries
        assert await mine.names() == [b"a", b"n"]
        node = mine.bucket
        for segment in path.split("/")[:-1] if looked_into else ():
            found = await mine.fs.tree.child(node, segment.encode())
            assert found is not None
            node = found
            mine.fs.core.inodes.remember(node)
            await mine.fs.tree.snapshot(node)
        await other.backend.remove(place, Kind.FILE)
        tree.names.pop(place.parent, None)  # which a mount keeps, and a plain client does not
        await trio.testing.wait_all_tasks_blocked()
        assert await mine.names() == [b"a"]
        assert await mine.fs.tree.child(mine.bucket, b"n") is None

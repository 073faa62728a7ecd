"""What is in a small directory comes with its entry, and is what a listing would say: no older."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from filesfs.domain import AttributeChange, Kind, Location
from filesfs.state.inodes import Node
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

pytestmark = pytest.mark.trio
NONE = AttributeChange()


async def put(backend: MemoryBackend, *keys: str) -> None:
    for key in keys:
        await backend.put(Location("b", key), b"x", "text/plain", NONE)


async def found(mine: Rig) -> Node:
    """The directory d, looked up for the first time, with a and e/f in it."""
    await put(mine.backend, "d/a", "d/e/f")
    mine.backend.sends_along = True
    mine.fs.core.directories.drop(mine.bucket)  # it was made here, and taken to be empty
    node = await mine.lookup(b"d")
    assert node is not None
    mine.backend.faults.calls.clear()
    return node


async def names(mine: Rig, node: Node) -> list[bytes]:
    return sorted(await mine.fs.tree.snapshot(node))


@pytest.mark.parametrize("feed", [False, True])
async def test_it_is_listed_without_another_request(tmp_path: Path, feed: bool) -> None:
    async with rig(tmp_path, feed=feed) as mine:
        node = await found(mine)
        assert await names(mine, node) == [b"a", b"e"]
        assert await names(mine, node) == [b"a", b"e"]
        assert mine.calls == []


async def test_a_name_in_it_is_found_but_that_there_is_none_is_asked(tmp_path: Path) -> None:
    async with rig(tmp_path, feed=True) as mine:
        node = await found(mine)
        assert await mine.fs.tree.child(node, b"a") is not None
        assert mine.calls == []
        await put(mine.backend, "d/new")  # somebody else; the feed has not said so yet
        assert await mine.fs.tree.child(node, b"new") is not None
        assert mine.calls == ["put", "stat"]
        assert await names(mine, node) == [b"a", b"e", b"new"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_others_change_shows(tmp_path: Path, when: str) -> None:
    """An event that came before anything was known of the directory has found nobody."""
    tree = MemoryTree()
    async with rig(tmp_path, tree, feed=True) as mine:
        other = MemoryBackend(tree, origin="other")
        if when == "after":
            node = await found(mine)
            await put(other, "d/other")
        else:
            look_up = mine.backend.look_up

            async def overtaken(location: Location) -> object:
                answer = await look_up(location)
                await put(other, "d/other")
                await trio.testing.wait_all_tasks_blocked()
                return answer

            mine.backend.look_up = overtaken  # type: ignore[method-assign,assignment]
            node = await found(mine)
        await trio.testing.wait_all_tasks_blocked()
        assert await names(mine, node) == [b"a", b"e", b"other"]


async def test_what_we_change_shows(tmp_path: Path) -> None:
    async with rig(tmp_path, feed=True) as mine:
        node = await found(mine)
        below = await mine.fs.tree.child(node, b"e")
        assert below is not None
        await mine.fs.namespace.mkdir(below, b"g", 0o755, ROOT_USER)  # which stamps e
        mine.backend.faults.calls.clear()
        assert await names(mine, node) == [b"a", b"e"]
        assert mine.calls == ["list_directory"]
        await mine.fs.namespace.unlink(node, b"a")
        assert await names(mine, node) == [b"e"]


async def test_it_is_of_no_use_once_the_directory_has_another_name(tmp_path: Path) -> None:
    tree = MemoryTree()
    async with rig(tmp_path, tree) as mine:
        node = await found(mine)
        await mine.fs.renaming.rename((mine.bucket, b"d"), (mine.bucket, b"new"), 0)
        await put(MemoryBackend(tree, origin="other"), "new/other")
        assert await names(mine, node) == [b"a", b"e", b"other"]
        assert "list_directory" in mine.calls


async def test_it_goes_with_its_directory(tmp_path: Path) -> None:
    """The kernel forgets the directory, and comes upon it again in a listing of the one above."""
    tree = MemoryTree()
    async with rig(tmp_path, tree, feed=True) as mine:
        node = await found(mine)
        mine.fs.forget(node.inode, 1)
        other = MemoryBackend(tree, origin="other")
        await other.remove(Location("b", "d/a"), Kind.FILE)
        mine.backend.sends_along = False
        again = await mine.lookup(b"d")
        assert again is not None
        assert again is not node
        assert await names(mine, again) == [b"e"]


async def test_it_is_not_asked_for_again_where_the_directory_itself_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does to which others add all the time."""
    tree = MemoryTree()
    async with rig(tmp_path, tree, feed=True) as mine:
        node = await found(mine)
        assert await names(mine, node) == [b"a", b"e"]
        await put(MemoryBackend(tree, origin="other"), "d/other")
        await trio.testing.wait_all_tasks_blocked()
        mine.fs.core.directories.doubt(mine.bucket, b"d")
        monkeypatch.delattr(MemoryBackend, "look_up")
        assert await mine.lookup(b"d") is node
        assert mine.calls == ["stat"]

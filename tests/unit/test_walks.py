"""A walk has the listings that it comes to next listed along, a visit has not; and what came along
is never shown after something else was told.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import trio.testing

from filesfs.domain import AttributeChange, Kind, Location
from filesfs.errors import FilesfsError, FileSystemError
from filesfs.packed import Listing
from filesfs.state.inodes import Node
from filesfs.state.walking import Walking
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

pytestmark = pytest.mark.trio
NONE = AttributeChange()
WIDE = [f"d{number:02}/f{each}" for number in range(60) for each in range(3)]
CHAIN = ["/".join(["c"] * depth) + "/f" for depth in range(1, 40)]


@asynccontextmanager
async def client(folder: Path, *keys: str) -> AsyncIterator[tuple[Rig, MemoryBackend]]:
    """One that follows the feed and knows nothing of these files yet, and another one."""
    tree = MemoryTree()
    other = MemoryBackend(tree, origin="other")
    for key in ("x", *keys):
        await other.put(Location("b", key), b"x", "text/plain", NONE)
    async with rig(folder, tree, feed=True) as mine:
        yield mine, other


async def walk(mine: Rig, node: Node, *, visited: list[str] | None = None, path: str = "") -> int:
    """As find(1) does it; how many directories there are."""
    count = 1
    names = await mine.fs.tree.snapshot(node)
    for name in sorted(names):
        found = await mine.fs.tree.child(node, name)
        assert found is not None
        mine.fs.core.inodes.remember(found)
        if visited is not None:
            visited.append(f"{path}{name.decode()}")
        if found.kind is Kind.DIRECTORY:
            below = f"{path}{name.decode()}/"
            count += await walk(mine, found, visited=visited, path=below)
    return count


@pytest.mark.parametrize("keys", [WIDE, CHAIN])
async def test_a_walk_asks_for_a_fifth_at_most(tmp_path: Path, keys: list[str]) -> None:
    async with client(tmp_path, *keys) as (mine, _):
        seen: list[str] = []
        count = await walk(mine, mine.bucket, visited=seen)
        assert {path for path in seen if path in keys} == set(keys)
        assert len(mine.calls) < count / 5
        mine.backend.faults.calls.clear()
        await walk(mine, mine.bucket)
        assert mine.calls == []
        assert not mine.fs.core.directories.held


async def test_a_visit_of_one_directory_brings_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor that of one directory in it."""
    monkeypatch.delattr(MemoryBackend, "list_walk")
    async with client(tmp_path, *WIDE) as (mine, _):
        await mine.fs.tree.snapshot(mine.bucket)
        node = await mine.lookup(b"d07")
        assert node is not None
        assert len(await mine.fs.tree.snapshot(node)) == 3


async def test_a_lookup_finds_what_came_along_but_that_there_is_none_is_asked(
    tmp_path: Path,
) -> None:
    async with client(tmp_path, *WIDE) as (mine, other):
        await begin(mine)
        node = await mine.lookup(b"d05")
        assert node is not None
        assert mine.fs.core.directories.held
        mine.backend.faults.calls.clear()
        assert await mine.fs.tree.child(node, b"f1") is not None
        assert mine.calls == []
        await other.put(Location("b", "d05/new"), b"x", "text/plain", NONE)
        assert await mine.fs.tree.child(node, b"new") is not None
        assert set(mine.calls) == {"stat"}
        assert len(await mine.fs.tree.snapshot(node)) == 4


async def begin(mine: Rig) -> None:
    """A walk has begun: what comes next is there."""
    await mine.fs.tree.snapshot(mine.bucket)
    for name in (b"d00", b"d01"):
        node = await mine.lookup(name)
        assert node is not None
        await mine.fs.tree.snapshot(node)
    assert mine.fs.core.directories.held


@asynccontextmanager
async def overtaken_by(mine: Rig, change: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """This happens, once, while listings are on their way that do not have it."""
    ask = mine.backend.list_walk

    async def overtaken(
        location: Location, levels: int, most: int
    ) -> tuple[Listing, list[Listing]]:
        mine.backend.list_walk = ask  # type: ignore[method-assign]
        answer = await ask(location, levels, most)
        await change()
        return answer

    mine.backend.list_walk = overtaken  # type: ignore[method-assign]
    yield
    mine.backend.list_walk = ask  # type: ignore[method-assign]


async def begin_with(mine: Rig, change: Callable[[], Awaitable[None]], *, in_flight: bool) -> None:
    """A walk has begun, and this happened while what comes next was on its way, or after that."""
    if in_flight:
        async with overtaken_by(mine, change):
            await begin(mine)
    else:
        await begin(mine)
        await change()


async def listed(mine: Rig, path: str) -> list[bytes]:
    node = mine.bucket
    for segment in path.split("/"):
        found = await mine.fs.tree.child(node, segment.encode())
        assert found is not None, path
        node = found
    return sorted(await mine.fs.tree.snapshot(node))


@pytest.mark.parametrize("in_flight", [False, True])
async def test_what_others_change_meanwhile_shows(tmp_path: Path, *, in_flight: bool) -> None:
    """Also in directories that no node stands for, and what is told before the answer comes."""
    keys = [*WIDE, "d02/e/f", "d03/g/h/f", "d04/i/f"]
    async with client(tmp_path, *keys) as (mine, other):

        async def change() -> None:
            for key in ("d02/e/new", "d03/new/new/new", "d05/new"):
                await other.put(Location("b", key), b"x", "text/plain", NONE)
            await other.remove(Location("b", "d03/g/h/f"), Kind.FILE)
            await other.move(Location("b", "d04"), Location("b", "d06/e"), Kind.DIRECTORY)
            await trio.testing.wait_all_tasks_blocked()

        await begin_with(mine, change, in_flight=in_flight)
        assert await listed(mine, "d02") == [b"e", b"f0", b"f1", b"f2"]
        assert await listed(mine, "d02/e") == [b"f", b"new"]
        assert await listed(mine, "d03") == [b"f0", b"f1", b"f2", b"g", b"new"]
        assert await listed(mine, "d03/g/h") == []
        assert await listed(mine, "d05") == [b"f0", b"f1", b"f2", b"new"]
        assert await listed(mine, "d06/e") == [b"f0", b"f1", b"f2", b"i"]
        assert await listed(mine, "d06/e/i") == [b"f"]
        assert b"d04" not in await mine.names()


async def test_what_we_change_meanwhile_shows(tmp_path: Path) -> None:
    async with client(tmp_path, *WIDE) as (mine, _):

        async def change() -> None:
            node = await mine.fs.tree.child(mine.bucket, b"d02")
            assert node is not None
            await mine.fs.namespace.mkdir(node, b"new", 0o755, ROOT_USER)
            mine.fs.core.inodes.release(node)  # and is forgotten

        await begin_with(mine, change, in_flight=True)
        node = await mine.lookup(b"d03")
        assert node is not None
        await mine.fs.namespace.mkdir(node, b"new", 0o755, ROOT_USER)
        for path in ("d02", "d03"):
            assert await listed(mine, path) == [b"f0", b"f1", b"f2", b"new"]


async def test_what_we_change_shows_where_something_was_known_before(tmp_path: Path) -> None:
    async with client(tmp_path, *WIDE) as (mine, _):
        node = await mine.lookup(b"d03")
        assert node is not None
        assert await mine.fs.tree.child(node, b"f0") is not None
        await begin(mine)
        await mine.fs.namespace.mkdir(node, b"new", 0o755, ROOT_USER)
        assert await listed(mine, "d03") == [b"f0", b"f1", b"f2", b"new"]


@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize("ours", [False, True])
async def test_where_a_directory_moved_nothing_of_its_old_place_shows(
    tmp_path: Path, *, ours: bool, in_flight: bool
) -> None:
    """Not what came along before it, when it comes back after others changed it elsewhere."""
    async with client(tmp_path, *WIDE, "d02/e/f") as (mine, other):
        tree, old, new = other.tree, (mine.bucket, b"d02"), (mine.bucket, b"new")
        for name in ("d02", "d02/e"):
            tree._explicit(Location("b", name))  # it stays itself

        async def there_and_back() -> None:
            places = Location("b", "d02"), Location("b", "new")
            for number, (source, target) in enumerate(((old, new), (new, old))):
                if ours:
                    await mine.fs.renaming.rename(source, target, 0)
                else:
                    await other.move(places[number], places[1 - number], Kind.DIRECTORY)
                if not number:
                    await other.put(Location("b", "new/e/new"), b"x", "text/plain", NONE)
            await trio.testing.wait_all_tasks_blocked()

        await begin_with(mine, there_and_back, in_flight=in_flight)
        assert await listed(mine, "d02/e") == [b"f", b"new"]


async def test_link_counts_show_that_an_event_about_another_name_tells_of(tmp_path: Path) -> None:
    async with client(tmp_path, *WIDE) as (mine, other):
        await other.link(Location("b", "d05/f0"), Location("b", "d07/g"))
        await begin(mine)
        await other.remove(Location("b", "d07/g"), Kind.FILE)
        await trio.testing.wait_all_tasks_blocked()
        node = await mine.lookup(b"d05")
        assert node is not None
        file = await mine.fs.tree.child(node, b"f0")
        assert file is not None
        assert file.entry is not None
        assert file.entry.nlink == 1


async def test_without_the_feed_it_counts_for_as_long_as_any_listing(tmp_path: Path) -> None:
    tree, now = MemoryTree(), 0.0
    other = MemoryBackend(tree, origin="other")
    for key in WIDE:
        await other.put(Location("b", key), b"x", "text/plain", NONE)
    async with rig(tmp_path, tree) as mine:
        mine.fs.core.directories._clock = lambda: now
        await begin(mine)
        await other.put(Location("b", "d05/new"), b"x", "text/plain", NONE)
        now = 0.9
        assert b"new" not in await listed(mine, "d05")
        await other.put(Location("b", "d06/new"), b"x", "text/plain", NONE)
        now = 1.1
        assert b"new" in await listed(mine, "d06")


SEGMENTS = ("a", "b", "c")


def some_path(chance: random.Random, most: int = 4) -> str:
    return "/".join(chance.choices(SEGMENTS, k=chance.randint(1, most)))


async def step_of_others(chance: random.Random, other: MemoryBackend) -> None:
    place, target = (Location("b", some_path(chance)) for _ in range(2))
    kind = Kind.DIRECTORY if other.tree.is_directory(place) else Kind.FILE
    match chance.randrange(6):
        case 0 | 1:
            await other.put(place, chance.randbytes(chance.randrange(9)), "text/plain", NONE)
        case 2:
            await other.remove(place, kind)
            above = place.parent
            while chance.random() < 0.7 and above.key and not any(other.tree.below(above)):
                del other.tree.names[above]  # as for a plain client
                above = above.parent
        case 3:
            await other.move(place, target, kind, exchange=chance.random() < 0.3)
        case 4:
            await other.link(place, target)
        case _:
            await other.set_attributes(place, kind, AttributeChange(mode=chance.randrange(0o777)))


def identify(tree: MemoryTree) -> None:
    """The server's implied directories have a resource that stays theirs wherever they go."""
    for name in list(tree.names):
        while (name := name.parent).key:
            tree._explicit(name)


async def step_of_ours(chance: random.Random, mine: Rig) -> None:
    async def found(path: str) -> tuple[Node, bytes]:
        *above, name = path.encode().split(b"/")
        node = mine.bucket
        for segment in above:
            there = await mine.fs.tree.child(node, segment)
            if there is None or there.kind is not Kind.DIRECTORY:
                raise FileSystemError(2)
            node = there
        return node, name

    node, name = await found(some_path(chance))
    match chance.randrange(4):
        case 0:
            await mine.fs.namespace.mkdir(node, name, 0o755, ROOT_USER)
        case 1:
            await mine.fs.namespace.unlink(node, name)
        case 2:
            await mine.fs.renaming.rename((node, name), await found(some_path(chance)), 0)
        case _:
            for each in list(mine.fs.core.inodes):  # the kernel forgets
                if each.lookups and not each.children and each is not mine.bucket:
                    mine.fs.forget(each.inode, each.lookups)


async def compare(mine: Rig, other: MemoryBackend, chance: random.Random, share: float) -> None:
    """A walk through a part of the tree: what is shown is what there is."""
    ahead = [mine.bucket]
    while ahead:
        node = ahead.pop()
        where = mine.fs.tree.location(node)
        names = await mine.fs.tree.snapshot(node)
        there = {entry.location.name: entry for entry in other.tree.children(where)}
        assert sorted(names) == sorted(name.encode() for name in there), where
        for name in sorted(names, reverse=True):
            found = await mine.fs.tree.child(node, name)
            assert found is not None
            assert found.entry is not None
            if not found.lookups:
                mine.fs.core.inodes.remember(found)
            entry = there[name.decode()]
            assert found.kind is entry.kind, (where, name)
            if found.kind is Kind.DIRECTORY:
                ahead += [found] * (chance.random() < share)
                continue
            shown = (found.entry.etag, found.entry.nlink, found.entry.attributes.mode)
            assert shown == (entry.etag, entry.nlink, entry.attributes.mode), (where, name)


@pytest.mark.parametrize("seed", range(8))
async def test_random_changes_of_ours_and_of_others_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Those that come while listings are kept that came along, and while these are on their way."""
    chance, tree = random.Random(seed), MemoryTree()
    other = MemoryBackend(tree, origin="other")
    monkeypatch.setattr(Walking, "step", lambda *_: True)
    monkeypatch.setattr(Walking, "size", lambda *_, **__: chance.choice((60, 100, 1000)))
    used = 0

    async def steps(mine: Rig) -> None:
        for _ in range(chance.randrange(4)):
            with suppress(FilesfsError):
                if chance.random() < 0.6:
                    await step_of_others(chance, other)
                else:
                    await step_of_ours(chance, mine)
            identify(tree)

    for turn in range(20):
        for key in product(SEGMENTS, repeat=3):
            with suppress(FilesfsError):
                await other.put(Location("b", "/".join((*key, "f"))), b"x", "text/plain", NONE)
        identify(tree)
        async with rig(tmp_path / str(turn), tree, feed=True) as mine:
            async with overtaken_by(mine, partial(steps, mine)):
                await mine.fs.tree.snapshot(mine.bucket)
                node = await mine.lookup(chance.choice(SEGMENTS).encode())
                if node is not None and node.kind is Kind.DIRECTORY:
                    with suppress(FilesfsError):
                        await mine.fs.tree.snapshot(node)
            for share in (0.3, 0.3, 0.6, 1.0):
                await trio.testing.wait_all_tasks_blocked()
                await compare(mine, other, chance, share)
                await steps(mine)
            used += mine.fs.core.directories.held.told()[0]
    assert used > 1000

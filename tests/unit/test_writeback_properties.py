"""Write-back, whatever the steps and the lost answers: what was acknowledged is what this mount
shows, and what the next mount sends after a kill.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filesfs.domain import AttributeChange, Kind, Location
from filesfs.errors import Unavailable
from filesfs.state.inodes import Node
from tests.fakes.memory_backend import MemoryBackend
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

NAMES = ("a", "b", "d/x", "d/y")
_SIZES = (0, 1, 7, 70_000)  # the last in a spool file


Files = dict[str, tuple[bytes, int | None]]


@dataclass
class Model:
    """What was acknowledged: content and mode (None: not known) by path, and where the one
    directory is by now.
    """

    files: Files = field(default_factory=dict)
    directory: str = "d"

    def path(self, name: str) -> str:
        return name.replace("d/", f"{self.directory}/")


class Run:
    def __init__(self, mine: Rig) -> None:
        self.mine = mine
        self.model = Model()
        self.counter = 0

    async def place(self, path: str) -> tuple[Node, bytes]:
        above, _, name = path.rpartition("/")
        parent = self.mine.bucket
        if above:
            found = await self.mine.lookup(above.encode())
            assert found is not None
            parent = found
        return parent, name.encode()

    async def node(self, path: str) -> Node:
        node = await self.mine.fs.tree.child(*await self.place(path))
        assert node is not None, path
        self.mine.fs.core.inodes.remember(node)  # as the kernel's lookup does
        return node

    # -- steps ------------------------------------------------------------------------------------
    async def write(self, name: str, size: int, offset: int | None) -> None:
        """`offset` None: from scratch. Each write has bytes of its own."""
        path, fs = self.model.path(name), self.mine.fs
        self.counter += 1
        data = f"{self.counter:07d}".encode() * (size // 7) + b"." * (size % 7)
        before, mode = self.model.files.get(path, (b"", 0o644))
        flags = os.O_WRONLY | (os.O_TRUNC if offset is None else 0)
        if path in self.model.files:
            handle = await self.mine.open(await self.node(path), flags)
        else:
            place = await self.place(path)
            node, handle, _ = await fs.namespace.create(*place, 0o644, flags, ROOT_USER)
            fs.core.inodes.remember(node)
        await fs.files.write(handle, offset or 0, data)
        await self.mine.close(handle)
        if offset is not None:
            start = before.ljust(offset, b"\0") if data else before
            data = start[:offset] + data + start[offset + len(data) :] if data else before
        self.model.files[path] = data, mode

    async def rename(self, name: str, to: str) -> None:
        old, new = self.model.path(name), self.model.path(to)
        if old not in self.model.files:
            return
        await self.mine.fs.renaming.rename(await self.place(old), await self.place(new), 0)
        self.model.files[new] = self.model.files.pop(old)

    async def unlink(self, name: str) -> None:
        path = self.model.path(name)
        if path in self.model.files:
            await self.mine.fs.namespace.unlink(*await self.place(path))
            del self.model.files[path]

    async def chmod(self, name: str, mode: int) -> None:
        path = self.model.path(name)
        if path in self.model.files:
            node, data = await self.node(path), self.model.files[path][0]
            self.model.files[path] = data, None  # if it fails, it may have happened
            await self.mine.fs.attributes.set(node, AttributeChange(mode=mode))
            self.model.files[path] = data, mode

    async def rename_directory(self) -> None:
        other = "e" if self.model.directory == "d" else "d"
        old, new = await self.place(self.model.directory), await self.place(other)
        await self.mine.fs.renaming.rename(old, new, 0)
        moved = {
            path.replace(f"{self.model.directory}/", f"{other}/"): what
            for path, what in self.model.files.items()
        }
        self.model = Model(moved, other)

    async def go_on(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def lose(self, times: int, after: bool) -> None:
        """The next uploads fail, or are done and their answers lost."""
        for operation in ("put", "commit", "set_attributes"):
            error = Unavailable("lost")
            self.mine.backend.faults.fail(operation, error, times=times, after=after)

    # -- the reckoning ----------------------------------------------------------------------------
    def compare(self, found: Files) -> None:
        expected = {
            path: (data, found.get(path, (b"", None))[1] if mode is None else mode)
            for path, (data, mode) in self.model.files.items()
        }
        assert found == expected

    async def shown(self) -> Files:
        found: Files = {}
        for path in self.model.files:
            node = await self.node(path)
            handle = await self.mine.open(node)
            data = bytes(await self.mine.fs.files.read(handle, 0, 1 << 20))
            found[path] = data, self.mine.fs.attributes.stat(node).mode
            await self.mine.close(handle)
        return found


BUCKET = Location("b")


async def stored(backend: MemoryBackend, where: Location = BUCKET) -> Files:
    found: Files = {}
    for entry in (await backend.list_directory(where)).entries:
        if entry.kind is Kind.DIRECTORY:
            found |= await stored(backend, entry.location)
        else:
            data = bytes(await backend.read(entry, 0, entry.size))
            found[entry.location.key] = data, entry.attributes.mode
    return found


_name = st.sampled_from(NAMES)
_write = st.tuples(
    st.just("write"),
    _name,
    st.sampled_from(_SIZES),
    st.none() | st.sampled_from((0, 3, 100)),
)
_step: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    _write,
    _write,
    st.tuples(st.just("rename"), _name, _name),
    st.tuples(st.just("unlink"), _name),
    st.tuples(st.just("chmod"), _name, st.sampled_from((0o600, 0o640))),
    st.tuples(st.just("rename_directory")),
    st.tuples(st.just("go_on"), st.sampled_from((0.0, 0.001, 6.0))),
    st.tuples(st.just("lose"), st.integers(1, 3), st.booleans()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_step, min_size=1, max_size=14))
def test_what_was_acknowledged_is_everywhere(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("writeback")
    trio.run(_check, folder, steps, clock=trio.testing.MockClock(autojump_threshold=0))
    shutil.rmtree(folder)


async def _check(folder: Path, steps: list[tuple[Any, ...]]) -> None:
    async with rig(folder / "mine", writeback=True) as mine:
        run = Run(mine)
        await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        for step in steps:
            with suppress(Unavailable):  # said so, and changed nothing
                await getattr(run, step[0])(*step[1:])
        run.compare(await run.shown())
        shutil.copytree(folder / "mine", folder / "killed")
        await _check_next(run, folder / "killed")


async def _check_next(run: Run, folder: Path) -> None:
    """The mount is killed now: nothing of it runs any more."""
    tree = run.mine.backend.tree
    run.mine.fs.core.nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        async with rig(folder, tree, writeback=True) as again:
            await again.fs.files.commits.backlog.send_all()
            assert again.fs.core.journal.pending() == ()
            assert list(again.fs.core.spool.path.iterdir()) == []
            run.compare(await stored(again.backend))

"""A mount that writes back from its journal, the kill of it, and what the server then has."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import Kind, Location
from tests.fakes.memory_backend import Gate, MemoryBackend
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import Rig, rig

SIZES = (5, 100_000)  # in the journal itself, and in a spool file


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again soon."""
    monkeypatch.setattr("filesfs.filesystem.backlog._RETRY_SECONDS", 0.2)


def filled(letter: str, size: int = 5) -> bytes:
    return letter.encode() * size


@asynccontextmanager
async def writing(folder: Path, tree: MemoryTree) -> AsyncIterator[Rig]:
    async with rig(folder, tree, writeback=True) as mine:
        yield mine


async def after_a_kill(mine: Rig, folder: Path) -> dict[str, bytes]:
    """What the server has once the next mount of what is on disk now has sent it; `mine` may go on
    existing, since nothing of it is asked any more.
    """
    shutil.copytree(mine.fs.core.journal.folder, folder)
    async with rig(folder, mine.backend.tree, writeback=True) as again:
        await again.fs.files.commits.backlog.send_all()
        assert again.fs.core.journal.pending() == ()
        assert list(again.fs.core.spool.path.iterdir()) == []
        return await stored(again.backend)


BUCKET = Location("b")


async def stored(backend: MemoryBackend, where: Location = BUCKET) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry in (await backend.list_directory(where)).entries:
        if entry.kind is Kind.DIRECTORY:
            found |= await stored(backend, entry.location)
        else:
            found[entry.location.key] = await backend.read(entry, 0, entry.size)
    return found


async def sent(mine: Rig) -> None:
    await settled(mine)
    assert mine.fs.files.unsent() == 0


async def settled(mine: Rig) -> None:
    with trio.fail_after(30):
        while mine.fs.core.journal.pending():
            await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()


async def overwrite(mine: Rig, name: bytes, data: bytes, flags: int = os.O_TRUNC) -> None:
    node = await mine.lookup(name)
    assert node is not None
    handle = await mine.open(node, os.O_WRONLY | flags)
    await mine.fs.files.write(handle, 0, data)
    await mine.close(handle)


async def under_way(mine: Rig, name: bytes = b"a", data: bytes = b"first") -> Gate:
    """A new file whose upload has begun, and waits at the gate."""
    gate = mine.backend.faults.hold("put")
    await mine.store(name, data)
    await gate.reached.wait()
    return gate

"""Commits and what comes between: others' versions, a full disk, changes while one is under way."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import trio

from filesfs.domain import AttributeChange, Location
from filesfs.errors import FileSystemError, PreconditionFailed
from tests.fakes.memory_backend import MemoryBackend
from tests.unit.filesystem_rig import rig

pytestmark = pytest.mark.trio

PLACE = Location("b", "a")
NONE = AttributeChange()


async def test_attributes_that_meet_anothers_version_do_not_make_it_ours(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        mine.fs.core.rules = dataclasses.replace(mine.fs.core.rules, conflict_fail=True)
        node = await mine.store(b"a", b"base")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"ours")
        puts = mine.backend.faults.hold("put")
        chmods = mine.backend.faults.hold("set_attributes")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.fs.files.flush, handle)
            await puts.reached.wait()
            await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
            puts.open()
            await chmods.reached.wait()
            other = MemoryBackend(mine.backend.tree, origin="other")
            theirs = await other.put(PLACE, b"theirs", "text/plain", NONE)
            chmods.open()
        assert mine.fs.attributes.stat(node).mode == 0o600
        assert await mine.fs.files.read(handle, 0, 10) == b"ours"
        await mine.fs.files.write(handle, 0, b"OURS")
        with pytest.raises((PreconditionFailed, FileSystemError)):
            await mine.close(handle)
        assert (await other.stat(PLACE)).etag == theirs.etag
        assert await mine.content(b"a") == b"theirs"

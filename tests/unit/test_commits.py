"""Commits and what comes between: others' versions, a full disk, changes while one is under way."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import trio

from filesfs.domain import AttributeChange, Location
from filesfs.errors import FileSystemError, NoSpace, PreconditionFailed
from tests.fakes.memory_backend import MemoryBackend
from tests.unit.filesystem_rig import ROOT_USER, rig

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


async def test_a_readers_close_publishes_nothing_and_hears_of_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node, writer = await mine.create(b"a")
        await mine.fs.files.write(writer, 0, b"half")
        mine.backend.faults.fail("put", NoSpace("full"))
        await mine.close(await mine.open(node))
        assert "put" not in mine.calls
        with pytest.raises(NoSpace):
            await mine.fs.files.fsync(await mine.open(node))  # which is not asked who opened how
        await mine.close(writer)
        assert await mine.content(b"a") == b"half"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_TRUNC])
async def test_a_file_that_is_made_or_emptied_by_a_reader_is_so(tmp_path: Path, flags: int) -> None:
    async with rig(tmp_path) as mine:
        if flags:
            handle = await mine.open(await mine.store(b"a", b"old"), flags)
        else:
            _, handle = await mine.create(b"a", flags)
        await mine.fs.files.flush(handle)
        assert (await mine.backend.stat(PLACE)).size == 0


async def test_what_was_refused_and_then_stored_is_not_refused_any_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"data")
        mine.backend.faults.fail("put", NoSpace("full"))
        with pytest.raises(NoSpace):
            await mine.fs.files.fsync(handle)
        await mine.fs.files.fsync(handle)
        await mine.fs.files.truncate(node, 4, ROOT_USER, open_=True)
        await mine.fs.attributes.set(node, AttributeChange(mode=0o600))
        await mine.fs.files.release(handle)
        await mine.fs.files.commits.backlog.send_all()
        assert (await mine.backend.stat(PLACE)).attributes.mode == 0o600


@pytest.mark.parametrize("then", ["more", "less"])
async def test_what_follows_a_full_disk_is_stored_with_all_that_was_written(
    tmp_path: Path, then: str
) -> None:
    """What was refused is never there in part: all of it as the program has it, or nothing."""
    async with rig(tmp_path) as mine:
        node = await mine.store(b"a", b"0123456789")
        handle = await mine.open(node, os.O_RDWR)
        await mine.fs.files.write(handle, 0, b"AAA")
        await mine.fs.files.write(handle, 8, b"BBBB")
        mine.backend.faults.fail("put", NoSpace("full"), times=2)
        for _ in range(2):
            with pytest.raises(NoSpace):
                await mine.fs.files.fsync(handle)
        assert (await mine.backend.stat(PLACE)).size == 10
        if then == "more":
            await mine.fs.files.write(handle, 4, b"C")
        else:
            await mine.fs.files.truncate(node, 5, ROOT_USER, open_=True)
        await mine.close(handle)
        expected = b"AAA3C567BBBB" if then == "more" else b"AAA34"
        assert await mine.content(b"a") == expected
        assert mine.fs.files.unsent() == 0

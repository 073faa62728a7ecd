"""Before an unmount what is closed goes up; what a program still writes does not hold it up."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.unit.filesystem_rig import rig

pytestmark = pytest.mark.trio


async def test_a_file_that_is_being_written_is_left_to_its_writer(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        _, handle = await mine.create(b"open")
        await mine.fs.files.write(handle, 0, b"half")
        calls = len(mine.calls)
        await mine.fs.files.drain()
        assert len(mine.calls) == calls
        assert mine.fs.files.unsent() == 1
        assert mine.fs.files.unsent(closed=True) == 0
        await mine.fs.files.drain(written=True)  # the last moment before the detach
        assert mine.fs.files.unsent() == 0
        await mine.close(handle)


async def test_a_closed_file_is_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        _, handle = await mine.create(b"a")
        await mine.fs.files.write(handle, 0, b"before")
        await mine.fs.files.flush(handle)
        await mine.fs.files.write(handle, 0, b"BEFORE")  # as an mmap does after close()
        await mine.fs.files.release(handle)
        with trio.fail_after(5):
            await mine.fs.files.drain()
        assert mine.fs.files.unsent(closed=True) == 0
        assert await mine.content(b"a") == b"BEFORE"

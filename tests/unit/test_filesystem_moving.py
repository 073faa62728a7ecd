"""open() of a file that a rename of ours moves at the same moment finds it, before or after."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.unit.filesystem_rig import rig

EXCHANGE = 2


@pytest.mark.trio
async def test_open_waits_for_a_rename_that_the_server_has_done_already(tmp_path: Path) -> None:
    """The server has exchanged the two; our rename has not had its answer yet."""
    async with rig(tmp_path) as mine:
        one, _ = await mine.store(b"one", b"1"), await mine.store(b"two", b"2")
        move, done, answered = mine.backend.move, trio.Event(), trio.Event()

        async def late(*args: object, **options: object) -> int:
            stamped = await move(*args, **options)  # type: ignore[arg-type]
            done.set()
            await answered.wait()
            return stamped

        mine.backend.move = late  # type: ignore[method-assign]
        names = ((mine.bucket, b"one"), (mine.bucket, b"two"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mine.fs.renaming.rename, *names, EXCHANGE)
            await done.wait()
            nursery.start_soon(_tell_soon, answered)
            handle = await mine.open(one)
        assert await mine.fs.files.read(handle, 0, 10) == b"1"
        assert mine.fs.core.moving == {}
        await mine.close(handle)


async def _tell_soon(event: trio.Event) -> None:
    await trio.sleep(0.05)
    event.set()

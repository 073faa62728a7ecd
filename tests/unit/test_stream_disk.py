"""A stream and the disk's cache: blocks outlive a restart, and never serve another version."""

from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.read.blocks import BLOCK_BYTES, BlockCache, DiskBlocks, version_of
from filesfs.read.stream import ReadStream
from filesfs.read.window import KIB, MIB
from tests.unit.stream_rig import CONTENT, FakeReader, entry_of


def _blocks_in(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix != ".partial"]


@pytest.mark.trio
async def test_the_disk_serves_after_a_restart(nursery: trio.Nursery, tmp_path: Path) -> None:
    reader = FakeReader(delay=lambda: 0)
    stream = ReadStream(
        reader, BlockCache(64 * MIB, DiskBlocks(tmp_path, 10**9)), nursery, entry_of()
    )
    for offset in range(0, len(CONTENT), MIB):
        await stream.read(offset, MIB)
    await stream.aclose()
    with trio.fail_after(20):
        while len(_blocks_in(tmp_path)) < 11:
            await trio.lowlevel.checkpoint()  # saves go on in the background

    silent = FakeReader(fail=lambda offset, length: True)
    again = ReadStream(
        silent, BlockCache(64 * MIB, DiskBlocks(tmp_path, 10**9)), nursery, entry_of()
    )
    for offset in range(0, len(CONTENT), 300 * KIB):
        assert await again.read(offset, 300 * KIB) == CONTENT[offset : offset + 300 * KIB]
    assert silent.asked == []
    await again.aclose()


@pytest.mark.trio
async def test_a_damaged_block_on_disk_is_fetched_again(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    disk = DiskBlocks(tmp_path, 10**9)
    version = version_of(entry_of())
    disk.put(version, 0, b"!" * BLOCK_BYTES)
    (file,) = _blocks_in(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    reader = FakeReader(delay=lambda: 0)
    stream = ReadStream(reader, BlockCache(MIB, disk), nursery, entry_of())
    assert await stream.read(0, 4096) == CONTENT[:4096]
    assert len(reader.asked) == 1
    await stream.aclose()


@pytest.mark.trio
async def test_a_guessed_version_does_not_go_to_disk(nursery: trio.Nursery, tmp_path: Path) -> None:
    cache = BlockCache(64 * MIB, DiskBlocks(tmp_path, 10**9))
    stream = ReadStream(FakeReader(delay=lambda: 0), cache, nursery, entry_of(etag=None))
    await stream.read(0, 2 * MIB)
    await stream.aclose()
    assert _blocks_in(tmp_path) == []

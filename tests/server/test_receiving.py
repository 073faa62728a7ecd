"""Bodies on their way to disk: every length and every cut gives the bytes that were sent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from files_server.blobs.checksums import checksums
from files_server.blobs.slots import SLOT
from files_server.blobs.upload import UploadFile
from files_server.errors import ApiError
from files_server.receiving import Receiver

CONTENT = random.Random(1).randbytes(3 * SLOT + 12_345)


@pytest.fixture(params=["disk", "memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UploadFile]:
    """On the disk, and where past the page cache may mean something else."""
    folder = tmp_path if request.param == "disk" else Path("/dev/shm")
    path = folder / f"receiving-{tmp_path.name}"
    opened = UploadFile(path)
    yield opened
    opened.close()
    path.unlink()


async def no_room() -> bool:
    return False


def receive(
    file: UploadFile, chunks: AsyncIterator[bytes], limit: int, length: int | None = None
) -> None:
    async def run() -> None:
        await Receiver(pool, no_room).receive(file, chunks, limit, length)

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(run())


async def in_chunks(data: bytes, size: int, *, broken: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[start : start + size]
    if broken:
        raise ClientDisconnect


def holds(file: UploadFile, data: bytes) -> bool:
    same = file.path.read_bytes() == data and file.sums.value() == checksums(data)
    return same and file.length == len(data)


@pytest.mark.parametrize("size", [4096, 100_003, SLOT, 5 * SLOT])
def test_any_chunks(file: UploadFile, size: int) -> None:
    receive(file, in_chunks(CONTENT, size), len(CONTENT), len(CONTENT))
    assert holds(file, CONTENT)


@pytest.mark.parametrize("cut", [1, 4095, 4096, SLOT - 1, SLOT, SLOT + 4096, 2 * SLOT + 777])
def test_parts_that_begin_anywhere(file: UploadFile, cut: int) -> None:
    receive(file, in_chunks(CONTENT[:cut], 219_264), cut, cut)
    assert holds(file, CONTENT[:cut])
    receive(file, in_chunks(CONTENT[cut:], 219_264), len(CONTENT))
    assert holds(file, CONTENT)


def test_what_arrived_before_a_break_is_in_the_file(file: UploadFile) -> None:
    with pytest.raises(ClientDisconnect):
        receive(file, in_chunks(CONTENT[:-5], 219_264, broken=True), len(CONTENT), len(CONTENT))
    assert holds(file, CONTENT[:-5])


def test_the_limit(file: UploadFile) -> None:
    with pytest.raises(ApiError) as refused:
        receive(file, in_chunks(CONTENT, 219_264), SLOT)
    assert refused.value.status == 413
    assert file.length <= SLOT


def test_a_request_that_is_ended_leaves_nobody_at_the_file(file: UploadFile) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield CONTENT[:300_000]

    async def run(pool: ThreadPoolExecutor) -> None:
        task = asyncio.create_task(Receiver(pool, no_room).receive(file, endless(), 1 << 40, None))
        while file.length < 2 * SLOT:  # noqa: ASYNC110  # a file tells nobody
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        length = file.length
        await asyncio.sleep(0.05)
        assert file.length == length == file.path.stat().st_size

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(run(pool))
    assert file.path.read_bytes()[: len(CONTENT[:300_000])] == CONTENT[:300_000]

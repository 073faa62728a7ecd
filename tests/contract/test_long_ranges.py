"""Long ranges, received into memory that is used again: each reader keeps the bytes it got."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio

from filesfs.backend.bulk import _Buffers
from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.settings import BackendSettings
from filesfs.domain import AttributeChange, Location

MIB = 1 << 20
CONTENT = random.Random(4).randbytes(26 * MIB + 5)


@pytest.fixture
async def backend(server_url: str) -> AsyncIterator[HttpBackend]:
    backend = await connect_backend(BackendSettings(base_url=server_url, timeout=20))
    yield backend
    await backend.aclose()


@pytest.mark.trio
async def test_what_was_read_stands_while_more_is_read(backend: HttpBackend) -> None:
    where = Location("long", "file")
    entry = await backend.put(where, CONTENT, "text/plain", AttributeChange())
    kept: list[tuple[int, memoryview]] = []

    async def read(start: int) -> None:
        whole = memoryview(await backend.read(entry, start, 8 * MIB))
        kept.append((start, whole[MIB : MIB + 1000]))  # as a cache holds on to a part

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for start in range(0, 18 * MIB, 2 * MIB):
                nursery.start_soon(read, start)
    for start, view in kept:
        assert view == CONTENT[start + MIB : start + MIB + 1000]


def test_a_buffer_comes_back_once_nobody_looks_at_it() -> None:
    buffers = _Buffers()
    first = buffers.take(8 * MIB)
    assert first is not None
    view = memoryview(first)[5:10]
    number = id(first)
    del first
    second = buffers.take(8 * MIB)
    assert id(second) != number
    view.release()
    del view
    third = buffers.take(8 * MIB)
    assert id(third) == number
    assert buffers.take(1000) is None

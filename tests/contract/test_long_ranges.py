"""Long ranges, received into memory that is used again: each reader keeps the bytes it got."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio

from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.landing import Slots
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

    def arrived(start: int, block: memoryview) -> None:
        kept.append((start, block[1000:2000]))  # as a cache holds on to a part

    async def read(start: int, end: int) -> None:
        assert await backend.read(entry, start, end - start, arrived) == b""

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for start in range(0, 24 * MIB, 2 * MIB):
                nursery.start_soon(read, start, start + 4 * MIB)
            nursery.start_soon(read, 24 * MIB, len(CONTENT))
    assert len(kept) == 3 * (12 * 4 + 3)
    for start, view in kept:
        assert view == CONTENT[start + 1000 : start + 2000]


@pytest.mark.trio
async def test_what_has_no_sums_of_its_blocks_is_returned(backend: HttpBackend) -> None:
    where = Location("long", "file")
    entry = await backend.put(where, CONTENT, "text/plain", AttributeChange())
    told: list[int] = []
    data = await backend.read(entry, 5, 3 * MIB, lambda start, _: told.append(start))
    assert data == CONTENT[5 : 5 + 3 * MIB]
    assert told == []


def test_memory_comes_back_once_nobody_looks_at_it() -> None:
    slots = Slots()
    first = slots.take()
    view = memoryview(first)[5:10]
    number = id(first)
    del first
    second = slots.take()
    assert id(second) != number
    view.release()
    del view
    assert id(slots.take()) == number


def test_memory_beyond_what_is_kept_goes_back_to_the_system() -> None:
    slots = Slots()
    taken = [slots.take() for _ in range(100)]
    assert len({id(slot) for slot in taken}) == 100
    assert len(slots._all) < 100

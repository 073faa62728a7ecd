"""A session's file and its row stay in step, whatever fails or is asked for again in between."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from files_server.blobs.local import LocalBlobs
from files_server.blobs.upload import UploadFile
from files_server.catalog import moves
from files_server.catalog.commits import NO_CONDITIONS
from files_server.catalog.keeping import NO_KEEP
from files_server.catalog.sessions import Session, Wish
from files_server.catalog.store import Catalog
from files_server.errors import ApiError
from files_server.parts import Part
from files_server.services import Services, opened
from files_server.settings import Settings
from files_server.uploads import Uploads

HALF = 200_000  # more than what is kept in the catalog
Scenario = Callable[[Services], Awaitable[None]]


def run(data_dir: Path, scenario: Scenario) -> None:
    async def all_of_it() -> None:
        async with opened(Settings(data_dir=data_dir)) as services:
            await scenario(services)

    asyncio.run(all_of_it())


async def nothing(self: object) -> None:
    """Instead of collecting, which would meet the fault too."""


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def part(data: bytes, offset: int | None = None) -> Part:
    return Part(once(data), len(data), offset)


async def begin(services: Services, key: str, size: int, repeat_key: str = "") -> Session:
    wish = Wish("b", key, "text/plain", NO_CONDITIONS)
    return await services.uploads.create(wish, size, "", repeat_key)


def stored(services: Services, etag: str) -> bytes:
    version = services.catalog.version_by_etag(etag, "b", "")
    assert version.blob is not None
    return services.blobs.path(version.blob).read_bytes()


@pytest.mark.parametrize("offset", [None, 0])
def test_a_part_that_could_not_be_recorded_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int | None
) -> None:
    """The disk is full just as the catalog is to note the part: it is sent again."""
    full = False
    write = Catalog.write

    async def failing(self: Catalog, mutation: Any, origin: str = "") -> Any:
        if full:
            raise ApiError(507, "full")
        return await write(self, mutation, origin)

    async def scenario(services: Services) -> None:
        nonlocal full
        session = await begin(services, "k", 2 * HALF)
        full = True
        with pytest.raises(ApiError):
            await services.uploads.append(session.id, part(b"1" * HALF, offset), "")
        full = False
        assert services.uploads.find(session.id).offset == 0
        assert await services.uploads.append(session.id, part(b"1" * HALF, offset), "") is None
        at = None if offset is None else HALF
        outcome = await services.uploads.append(session.id, part(b"2" * HALF, at), "")
        assert outcome is not None
        assert stored(services, outcome.node.etag) == b"1" * HALF + b"2" * HALF

    monkeypatch.setattr(Catalog, "write", failing)
    monkeypatch.setattr(Catalog, "prune", nothing)
    monkeypatch.setattr(Catalog, "shrink", nothing)
    monkeypatch.setattr(Uploads, "collect", nothing)
    run(tmp_path / "data", scenario)


def test_a_key_that_is_used_again_later_leaves_the_first_file_alone(tmp_path: Path) -> None:
    """An Idempotency-Key whose session was forgotten meanwhile is a new upload."""

    async def scenario(services: Services) -> None:
        first = await begin(services, "one", HALF, "the same")
        one = await services.uploads.append(first.id, part(b"1" * HALF), "")
        await services.catalog.write(lambda tx: tx.run("DELETE FROM sessions"))
        second = await begin(services, "two", HALF, "the same")
        two = await services.uploads.append(second.id, part(b"2" * HALF), "")
        assert one is not None
        assert two is not None
        assert stored(services, one.node.etag) == b"1" * HALF
        assert stored(services, two.node.etag) == b"2" * HALF

    run(tmp_path / "data", scenario)


def test_what_a_crash_left_published_is_an_upload_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.prepare()
    file = blobs.open_upload("session")
    file.append([b"content"])
    blobs.publish(file, "session.0123")
    file.close()
    assert blobs.sweep(set(), {"session"}) == 0
    assert (tmp_path / "uploads" / "session").read_bytes() == b"content"


def test_three_requests_on_one_session_take_turns(tmp_path: Path) -> None:
    """The first is small and has no file yet; the others take over from it one after another."""
    running = most = 0

    async def slow(data: bytes, *, ends: bool) -> AsyncIterator[bytes]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            yield data[:1]
            await asyncio.sleep(0.05 if ends else 2)
            yield data[1:]
        finally:
            running -= 1

    async def scenario(services: Services) -> None:
        session = await begin(services, "k", 4)
        parts = [
            Part(slow(b"data", ends=False), 4),
            Part(slow(b"data", ends=False), 4, 0),
            Part(slow(b"data", ends=True), 4, 0),
        ]
        sending = []
        for one in parts:
            sending.append(asyncio.create_task(services.uploads.append(session.id, one, "")))
            await asyncio.sleep(0.2)
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert most == 1
        assert sum(isinstance(result, ApiError) for result in results) >= 2, results

    run(tmp_path / "data", scenario)


def test_a_blob_that_cannot_be_removed_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is committed: what it leaves behind is for the next start."""

    def failing(self: LocalBlobs, blobs: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def scenario(services: Services) -> None:
        session = await begin(services, "k", HALF)
        await services.uploads.append(session.id, part(b"1" * HALF), "")
        monkeypatch.setattr(LocalBlobs, "remove", failing)
        removal = services.catalog.write(
            lambda tx: moves.delete(
                tx, ("b", "k"), keep_parent=False, keep=NO_KEEP, conditions=NO_CONDITIONS
            )
        )
        await asyncio.wait_for(removal, 5)

    run(tmp_path / "data", scenario)


def test_the_loop_goes_on_while_blobs_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file may take its disk a second: only who deletes it waits, until it is gone."""
    ticks, meanwhile, remove = 0, 0, LocalBlobs.remove

    def slowly(self: LocalBlobs, blobs: Iterable[str]) -> None:
        nonlocal meanwhile
        before = ticks
        time.sleep(0.3)
        meanwhile += ticks - before
        remove(self, blobs)

    async def ticking() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    async def scenario(services: Services) -> None:
        session = await begin(services, "k", HALF)
        await services.uploads.append(session.id, part(b"1" * HALF), "")
        (blob,) = (tmp_path / "data" / "blobs").glob("??/*")
        monkeypatch.setattr(LocalBlobs, "remove", slowly)
        beside = asyncio.create_task(ticking())
        removal = services.catalog.write(
            lambda tx: moves.delete(
                tx, ("b", "k"), keep_parent=False, keep=NO_KEEP, conditions=NO_CONDITIONS
            )
        )
        await asyncio.wait_for(removal, 5)
        beside.cancel()
        assert not blob.exists()
        assert meanwhile > 5

    run(tmp_path / "data", scenario)


def test_what_is_refused_is_not_recorded_any_more_when_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server that dies in between says that it has it."""
    size = 33 << 20  # of which 32 MiB are synced and recorded as they come

    async def more() -> AsyncIterator[bytes]:
        for _ in range(34):
            yield bytes(1 << 20)

    def died(self: object, mark: object) -> None:
        raise RuntimeError

    async def scenario(services: Services) -> None:
        session = await begin(services, "f", size)
        monkeypatch.setattr(UploadFile, "back", died)
        with pytest.raises(RuntimeError):
            await services.uploads.append(session.id, Part(more(), None, 0), "")
        assert services.uploads.find(session.id).offset == 0

    run(tmp_path, scenario)

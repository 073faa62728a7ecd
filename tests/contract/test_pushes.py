"""Bytes pushed into an upload session while they are written: what counts, and where to go on."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Iterator

import crc32c
import pytest

from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.protocol import UploadSession
from filesfs.backend.settings import BackendSettings
from filesfs.domain import AttributeChange, Location
from filesfs.errors import FilesfsError, Gone, InvalidRequest, NotFound, Unavailable
from tests.server.running import RunningServer, running_server

pytestmark = pytest.mark.trio

PIECE = 1 << 20
CONTENT = random.Random(2).randbytes(9 * PIECE + 77)
_numbers = itertools.count(1)


@pytest.fixture(params=["tcp", "unix"], scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("pushes")
    listen = {"listen": f"unix:{folder / 's'}"} if request.param == "unix" else {}
    with running_server(folder / "data", **listen) as server:
        yield server


@pytest.fixture
def where() -> Location:
    return Location("pushes", f"file-{next(_numbers)}")


@pytest.fixture
async def backend(server: RunningServer) -> AsyncIterator[HttpBackend]:
    settings = BackendSettings(base_url=server.url, unix_socket=server.socket, timeout=10)
    backend = await connect_backend(settings)
    yield backend
    await backend.aclose()


async def opened(backend: HttpBackend, where: Location) -> UploadSession:
    session = await backend.open_upload(where, "text/plain", AttributeChange())
    assert session.pushes
    return session


async def push(session: UploadSession, start: int, end: int, crc: int) -> int:
    """In pieces, as a writer makes them."""
    view = memoryview(CONTENT)
    for at in range(start, end, PIECE):
        stop = min(end, at + PIECE)
        middle = (at + stop) // 2
        crc = await session.push([view[at:middle], view[middle:stop]], crc)
    return crc


async def pushed(session: UploadSession, start: int, end: int) -> int:
    """And settled; the crc32c of everything up to `end`."""
    crc = await push(session, start, end, crc32c.crc32c(CONTENT[:start]))
    await session.settle()
    return crc


async def content(backend: HttpBackend, where: Location) -> bytes:
    entry = await backend.stat(where)
    return bytes(await backend.read(entry, 0, entry.size))


async def test_what_was_pushed_is_the_file(backend: HttpBackend, where: Location) -> None:
    session = await opened(backend, where)
    crc = await push(session, 0, 5 * PIECE, 0)
    await session.settle()  # the writer paused
    assert session.offset == 5 * PIECE
    crc = await push(session, 5 * PIECE, 8 * PIECE, crc)
    await session.settle()
    rest = CONTENT[8 * PIECE :]
    entry = await session.send(rest, final=True, crc=crc32c.crc32c(rest, crc))
    assert entry is not None
    assert entry.size == len(CONTENT)
    assert await content(backend, where) == CONTENT


async def test_bytes_that_were_garbled_are_not_committed(
    backend: HttpBackend, where: Location
) -> None:
    session = await opened(backend, where)
    crc = await push(session, 0, 3 * PIECE, 0)
    await session.settle()
    with pytest.raises(InvalidRequest, match="crc32c"):
        await session.send(b"", final=True, crc=crc ^ 1)
    with pytest.raises(NotFound):
        await backend.stat(where)


async def test_nothing_counts_of_a_session_that_is_given_up(
    backend: HttpBackend, where: Location
) -> None:
    session = await opened(backend, where)
    await push(session, 0, 2 * PIECE, 0)
    await session.cancel()
    with pytest.raises((Gone, Unavailable)):
        await pushed(session, 2 * PIECE, 3 * PIECE)
    with pytest.raises(NotFound):
        await backend.stat(where)


async def test_a_server_that_is_killed_meanwhile(
    backend: HttpBackend, server: RunningServer, where: Location
) -> None:
    session = await opened(backend, where)
    await push(session, 0, 3 * PIECE, 0)
    server.kill()
    with pytest.raises(FilesfsError):
        await pushed(session, 3 * PIECE, 8 * PIECE)
    server.start()
    assert await session.recover() <= 8 * PIECE
    crc = await pushed(session, session.offset, len(CONTENT))
    assert await session.send(b"", final=True, crc=crc) is not None
    assert await content(backend, where) == CONTENT

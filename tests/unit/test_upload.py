"""Uploader.commit: one request for what is small, a session for the rest, and no dirty byte lost
on the way.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Entry, Location
from filesfs.errors import Gone, NoSpace, PreconditionFailed, Unavailable, Unsupported
from filesfs.wire import Extension
from filesfs.write.buffer import SpoolFolder, WriteBuffer
from filesfs.write.upload import Target, Uploader
from tests.unit.upload_server import EVERYTHING, Server

pytestmark = pytest.mark.trio

WHERE = Location("docs", "a/report.txt")
PART = 1000


class Reader:
    """BaseReader of one version."""

    def __init__(self, server: Server, entry: Entry) -> None:
        self.server, self.entry = server, entry

    async def read(self, offset: int, length: int) -> bytes:
        return await self.server.read(self.entry, offset, length)


class Nothing:
    async def read(self, offset: int, length: int) -> bytes:
        raise AssertionError("a new file has no base")


def target(base: Entry | None = None, **fields: object) -> Target:
    resource = base.resource_id if base else None
    made = Target(WHERE, "text/plain", AttributeChange(mode=0o600), base, resource)
    return replace(made, **fields)  # type: ignore[arg-type]  # field names are the test's to get right


@asynccontextmanager
async def uploader(server: Server, part: int = PART, put: int = 100) -> AsyncIterator[Uploader]:
    async with trio.open_nursery() as nursery:
        yield Uploader(cast("FilesBackend", server), nursery, part, put)
        nursery.cancel_scope.cancel()


def failing(call: str, error: Exception, times: int = 1) -> Callable[[str], None]:
    left = [error] * times

    def fault(made: str) -> None:
        if made == call and left:
            raise left.pop()

    return fault


@pytest.fixture
def new(tmp_path: Path) -> WriteBuffer:
    return WriteBuffer(SpoolFolder(tmp_path), 0)


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 100])
async def test_a_small_file_is_one_request(new: WriteBuffer, data: bytes) -> None:
    server = Server()
    new.write(0, data)
    async with uploader(server) as up:
        entry = await up.commit(new, target(), Nothing())
    assert server.calls == [f"put {len(data)}"]
    assert server.files[WHERE] == (entry, data)
    assert entry.attributes.mode == 0o600
    assert new.dirty == bool(data)  # the caller rebases


async def test_a_large_file_goes_in_parts(new: WriteBuffer) -> None:
    server = Server()
    new.write(0, b"x" * 2500)
    async with uploader(server) as up:
        await up.commit(new, target(), Nothing())
    assert server.calls == ["open 2500", "send 1000", "send 1000", "send 500 final"]
    assert server.files[WHERE][1] == b"x" * 2500


@pytest.mark.parametrize("size", [50, 5000])
async def test_clean_parts_come_from_the_base(tmp_path: Path, size: int) -> None:
    server = Server(extensions=EVERYTHING - {Extension.RANGES_UPLOAD})
    old = server.store(WHERE, bytes(range(50)) * (size // 50))
    buffer = WriteBuffer(SpoolFolder(tmp_path), size)
    buffer.write(10, b"new")
    buffer.truncate(size - 5)
    buffer.truncate(size)
    async with uploader(server) as up:
        await up.commit(buffer, target(old), Reader(server, old))
    expected = bytearray(bytes(range(50)) * (size // 50))
    expected[10:13] = b"new"
    expected[-5:] = bytes(5)
    assert server.files[WHERE][1] == expected


async def test_only_changed_ranges_travel_where_the_server_can_copy(tmp_path: Path) -> None:
    server = Server()
    content = bytes(range(256)) * 4096  # 1 MiB
    old = server.store(WHERE, content)
    buffer = WriteBuffer(SpoolFolder(tmp_path), len(content))
    buffer.write(1 << 19, b"new")
    async with uploader(server, part=1 << 20) as up:
        await up.commit(buffer, target(old), Reader(server, old))
    half = 1 << 19
    wanted = ["open 1048576", f"copy {half}", "send 3", f"copy {half - 3}", "send 0 final"]
    assert server.calls == wanted
    assert server.files[WHERE][1] == content[:half] + b"new" + content[half + 3 :]


@pytest.mark.parametrize("call", ["open 1048576", "copy 524288", "send 3"])
@pytest.mark.parametrize("error", [Gone("pruned"), PreconditionFailed("old"), Unsupported("no")])
async def test_where_the_server_does_not_copy_all_travels(
    tmp_path: Path, call: str, error: Exception
) -> None:
    server = Server(fault=failing(call, error))
    content = bytes(range(256)) * 4096
    old = server.store(WHERE, content)
    buffer = WriteBuffer(SpoolFolder(tmp_path), len(content))
    buffer.write(1 << 19, b"new")
    async with uploader(server, part=1 << 20) as up:
        await up.commit(buffer, target(old), Reader(server, old))
    assert server.calls[-1] == "send 1048576 final"
    assert server.files[WHERE][1] == content[: 1 << 19] + b"new" + content[(1 << 19) + 3 :]


async def test_a_lost_session_is_started_again(new: WriteBuffer) -> None:
    server = Server(fault=failing("send 500 final", Gone("collected"), 2))
    new.write(0, b"x" * 1500)
    async with uploader(server) as up:
        await up.commit(new, target(), Nothing())
    assert server.calls.count("open 1500") == 3
    assert [session.cancelled for session in server.sessions] == [True, True, False]


async def test_sessions_that_get_lost_do_not_mean_that_the_file_is_gone(new: WriteBuffer) -> None:
    """Gone is for a resource without a name: close() then drops the content, and is right to."""
    server = Server(fault=failing("send 500 final", Gone("collected"), 3))
    new.write(0, b"x" * 1500)
    async with uploader(server) as up:
        with pytest.raises(Unavailable):
            await up.commit(new, target(), Nothing())


@pytest.mark.parametrize("call", ["open 1500", "send 1000", "send 500 final"])
@pytest.mark.parametrize("error", [NoSpace("full"), Unavailable("away"), PreconditionFailed("no")])
async def test_an_error_leaves_the_buffer_as_it_was(
    new: WriteBuffer, call: str, error: Exception
) -> None:
    server = Server(fault=failing(call, error))
    new.write(0, b"x" * 1500)
    async with uploader(server) as up:
        with pytest.raises(type(error)):
            await up.commit(new, target(), Nothing())
        assert (new.generation, new.extents) == (1, ((0, 1500),))
        assert all(session.cancelled for session in server.sessions)
        await up.commit(new, target(), Nothing())
    assert server.files[WHERE][1] == b"x" * 1500


async def test_what_is_written_during_a_commit_shows_in_the_generation(new: WriteBuffer) -> None:
    server = Server()
    new.write(0, b"x" * 1500)

    def cut(call: str) -> None:
        if call == "send 500 final":
            new.truncate(100)

    server.fault = cut
    async with uploader(server) as up:
        before = new.generation
        await up.commit(new, target(), Nothing())
        assert new.generation > before  # so the caller commits once more
        await up.commit(new, target(), Nothing())
    assert server.files[WHERE][1] == b"x" * 100


async def test_a_file_that_is_cut_while_it_is_sent_keeps_its_length(new: WriteBuffer) -> None:
    server = Server()
    new.write(0, b"x" * 1500)
    server.fault = lambda call: new.truncate(1200) if call == "send 1000" else None
    async with uploader(server) as up:
        await up.commit(new, target(), Nothing())
    assert server.files[WHERE][1] == b"x" * 1200 + bytes(300)


async def test_conditions_travel_and_refuse(new: WriteBuffer) -> None:
    server = Server()
    old = server.store(WHERE, b"theirs")
    new.write(0, b"x" * 150)
    async with uploader(server) as up:
        with pytest.raises(PreconditionFailed):
            await up.commit(new, target(only_new=True), Nothing())
        with pytest.raises(PreconditionFailed):
            await up.commit(new, target(if_match='"other"'), Nothing())
        await up.commit(new, target(if_match=old.etag), Nothing())
    assert server.files[WHERE][1] == b"x" * 150


async def test_a_resource_is_replaced_wherever_it_is_now(new: WriteBuffer) -> None:
    server = Server()
    old = server.store(WHERE, b"old")
    moved = Location("docs", "b")
    await server.move(WHERE, moved, old.kind)
    new.write(0, b"new")
    async with uploader(server) as up:
        await up.commit(new, target(old), Nothing())
    assert list(server.files) == [moved]
    assert server.files[moved][1] == b"new"


async def test_a_cancelled_commit_gives_the_session_up(new: WriteBuffer) -> None:
    server = Server()
    new.write(0, b"x" * 1500)
    async with uploader(server) as up:
        with trio.CancelScope() as scope:
            server.fault = lambda call: scope.cancel() if call == "send 1000" else None
            await up.commit(new, target(), Nothing())
    assert server.sessions[0].cancelled
    assert new.dirty

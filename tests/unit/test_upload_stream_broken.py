"""Streams whose requests break, or whose session or server is lost: they go on where the server is,
or all is sent again at close.
"""

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange
from filesfs.errors import Gone, PreconditionFailed, Unavailable
from filesfs.write.buffer import WriteBuffer
from tests.unit.test_upload import WHERE, Nothing, failing, target, uploader
from tests.unit.upload_server import Server
from tests.unit.upload_stream_rig import Writer, buffer, hold

__all__ = ["buffer"]

pytestmark = pytest.mark.trio

AWAY = Unavailable("away")


@pytest.mark.parametrize("call", ["push", "settle", "recover"])
async def test_a_broken_request_goes_on_where_the_server_is(
    buffer: WriteBuffer, call: str, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server(pushes=True, fault=failing("push" if call == "recover" else call, AWAY))
    async with uploader(server) as up:
        for start in range(0, 9000, 1500):
            buffer.write(start, bytes([start // 1500]) * 1500)
            up.note_write(buffer, target)
            await trio.sleep(0.1)
        await up.commit(buffer, target(), Nothing())
    assert server.files[WHERE][1] == b"".join(bytes([number]) * 1500 for number in range(6))
    assert "recover" in server.calls
    assert len(server.sessions) == 1


async def test_a_server_that_never_gets_further_is_given_up(
    buffer: WriteBuffer, autojump_clock: trio.testing.MockClock
) -> None:
    def fault(call: str) -> None:
        if call == "push":
            server.sessions[0].flying.clear()  # nothing of it arrives
            raise AWAY

    server = Server(pushes=True, fault=fault)
    async with uploader(server) as up:
        buffer.write(0, b"x" * 3000)
        up.note_write(buffer, target)
        await up.commit(buffer, target(), Nothing())
    assert server.sessions[0].cancelled
    assert server.files[WHERE][1] == b"x" * 3000


async def test_bytes_garbled_on_the_way_are_sent_again(buffer: WriteBuffer) -> None:
    server = Server(pushes=True)
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        server.sessions[0].flying[7] ^= 1
        await writer.commit()
    assert [session.cancelled for session in server.sessions] == [True, False]
    assert server.files[WHERE][1] == writer.expected


@pytest.mark.parametrize("call", ["open None", "send 1000"])
@pytest.mark.parametrize("error", [Gone("collected"), Unavailable("away"), ValueError("a bug")])
async def test_a_stream_that_fails_is_forgotten_and_commit_does_it_again(
    buffer: WriteBuffer, call: str, error: Exception
) -> None:
    server = Server(fault=failing(call, error))
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        await writer.write(b"y" * 1500)
        await writer.commit()
        assert server.calls.count("open 3000") == 1
        assert all(session.cancelled for session in server.sessions[:-1])
    assert server.files[WHERE][1] == writer.expected


async def test_a_session_lost_at_the_end_is_done_again(buffer: WriteBuffer) -> None:
    server = Server(fault=failing("send 500 final", Gone("collected")))
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        await writer.commit()
    assert server.files[WHERE][1] == writer.expected


@pytest.mark.parametrize("error", [Unavailable("away"), PreconditionFailed("changed")])
async def test_an_error_at_the_end_is_the_commits(buffer: WriteBuffer, error: Exception) -> None:
    server = Server(fault=failing("send 500 final", error))
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        with pytest.raises(type(error)):
            await writer.commit()
        assert server.sessions[0].cancelled
        assert buffer.extents == ((0, 1500),)
        await writer.commit()
    assert server.files[WHERE][1] == writer.expected


@pytest.mark.parametrize("more", [b"", b"more"])
async def test_attributes_that_failed_are_all_that_is_left_to_do(
    buffer: WriteBuffer, more: bytes
) -> None:
    server = Server(fault=failing("attributes", Unavailable("away")))
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        writer.target = target(only_new=True)
        await writer.write(b"x" * 1500)
        writer.target = target(only_new=True, change=AttributeChange(mode=0o644, modified_ns=5))
        with pytest.raises(Unavailable):
            await writer.commit()
        if more:
            buffer.write(1500, more)  # our own file is no reason to refuse it
        await writer.commit()
    entry, data = server.files[WHERE]
    assert data == b"x" * 1500 + more
    assert entry.attributes.modified_ns == 5
    assert len(server.sessions) == (2 if more else 1)


async def test_a_commit_that_is_cancelled_gives_the_stream_up(buffer: WriteBuffer) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        gate = hold(server, "send 500 final")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.commit)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert server.sessions[0].cancelled
        gate.set()
        await writer.commit()
    assert server.files[WHERE][1] == writer.expected

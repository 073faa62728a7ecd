"""The blocking connections: how long each of them waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from filesfs.backend.bulk import BulkPool
from filesfs.backend.pool import Address

pytestmark = pytest.mark.trio

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        yield listener


def _pool(listener: socket.socket) -> BulkPool:
    return BulkPool(Address("localhost", 80, Path(listener.getsockname())), 2)


async def _answered(pool: BulkPool, listener: socket.socket, stall: float) -> socket.socket:
    """A request has gone over it, and it waits for the next one."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.get, b"GET / HTTP/1.1\r\n\r\n", stall)
        peer, _ = await trio.to_thread.run_sync(listener.accept)
        await trio.to_thread.run_sync(peer.recv, 1000)
        peer.sendall(_ANSWER)
    return peer


async def test_a_server_that_takes_no_connection_is_given_up(listener: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(listener.getsockname())  # the queue is full now
        with trio.fail_after(20), pytest.raises(httpx.ConnectError):
            await _pool(listener).get(b"GET / HTTP/1.1\r\n\r\n", 0.2)


async def test_a_connection_used_again_waits_as_long_as_its_request_may(
    listener: socket.socket,
) -> None:
    pool = _pool(listener)
    with await _answered(pool, listener, 0.2) as peer:
        outgoing = await pool.begin(b"POST / HTTP/1.1\r\n\r\n", 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outgoing.finish)
            await trio.sleep(0.6)
            peer.sendall(_ANSWER)
    pool.close()
    pool = _pool(listener)
    with (
        await _answered(pool, listener, 20),
        trio.fail_after(15),
        pytest.raises(httpx.ReadTimeout),
    ):
        await pool.get(b"GET / HTTP/1.1\r\n\r\n", 0.2)
    pool.close()

"""The answer to a lone request is waited for without the scheduler, unless something else is to be
done: the kernel's requests, other requests, other tasks from time to time.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

import httpx
import pytest
import trio

from filesfs.backend import direct
from filesfs.backend.connection import Connection
from filesfs.backend.direct import DirectStream
from filesfs.backend.lone import Lone

pytestmark = pytest.mark.trio

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextmanager
def connected(lone: Lone, *pieces: Callable[[], bytes]) -> Iterator[Connection]:
    """A connection to a server that answers one request piece by piece, and closes."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            theirs.recv(4096)
            for piece in pieces:
                theirs.sendall(piece())

    server = threading.Thread(target=serve)
    server.start()
    stream = DirectStream(ours)
    try:
        yield Connection(stream, stream, lone)
    finally:
        ours.close()
        server.join()


class Others:
    """A task that is there to run, and what waits for its turn."""

    def __init__(self) -> None:
        self.ran = threading.Event()

    async def task(self) -> None:
        self.ran.set()

    def then(self, data: bytes) -> Callable[[], bytes]:
        def piece() -> bytes:
            assert self.ran.wait(5)
            return data

        return piece


async def ask(connection: Connection, others: Others) -> tuple[bytes, bool]:
    """What is answered, and whether others had their turn by then."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.task)
        answer = await connection.request("GET", b"GET / HTTP/1.1\r\n\r\n", b"", 5)
        return answer.body, others.ran.is_set()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lone, int]]:
    """A `Lone` that attends to a pipe, and the pipe's other end. The machine may be busy."""
    monkeypatch.setattr(direct, "MOST_MS", 5000)
    reading, writing = os.pipe()
    lone = Lone()
    lone.kernel = reading
    try:
        yield lone, writing
    finally:
        os.close(reading)
        os.close(writing)


async def test_nobody_else_runs_until_the_answer_is_there(kernel: tuple[Lone, int]) -> None:
    with connected(kernel[0], lambda: _ANSWER) as connection:
        assert await ask(connection, Others()) == (b"ok", False)
        assert connection.used
        assert connection.reusable


async def test_what_the_kernel_asks_for_goes_first(kernel: tuple[Lone, int]) -> None:
    os.write(kernel[1], b"x")
    others = Others()
    with connected(kernel[0], others.then(_ANSWER)) as connection:
        assert await ask(connection, others) == (b"ok", True)


async def test_an_answer_that_does_not_come_soon_holds_nobody_up(
    kernel: tuple[Lone, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_MS", 1)
    others = Others()
    with connected(kernel[0], others.then(_ANSWER)) as connection:
        assert await ask(connection, others) == (b"ok", True)


async def test_an_answer_in_two_pieces(kernel: tuple[Lone, int]) -> None:
    others = Others()
    first, second = _ANSWER[:20], _ANSWER[20:]
    with connected(kernel[0], lambda: first, others.then(second)) as connection:
        assert await ask(connection, others) == (b"ok", True)


async def test_a_server_that_closes_is_told_as_ever(kernel: tuple[Lone, int]) -> None:
    with connected(kernel[0]) as connection, pytest.raises(httpx.RemoteProtocolError):
        await connection.request("GET", b"GET / HTTP/1.1\r\n\r\n", b"", 5)
    with connected(kernel[0]) as connection:
        connection._direct._socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises((httpx.WriteError, httpx.RemoteProtocolError)):
            await connection.request("DELETE", b"DELETE / HTTP/1.1\r\n\r\n", b"", 5)


async def test_without_a_kernel_to_attend_to_everybody_has_his_turn() -> None:
    others = Others()
    with connected(Lone(), others.then(_ANSWER)) as connection:
        assert await ask(connection, others) == (b"ok", True)


async def test_only_what_is_alone_is_waited_for_so_and_not_always() -> None:
    lone = Lone()
    assert [lone.take_turn() for _ in range(18)] == 2 * [*[True] * 8, False]
    lone.under_way = 2
    assert not lone.take_turn()


async def test_nor_while_answers_take_long() -> None:
    lone = Lone()
    for _ in range(30):
        lone.answered(perf_counter_ns() - 2_000_000)
    assert not lone.take_turn()
    for _ in range(30):
        lone.answered(perf_counter_ns())
    assert lone.take_turn()

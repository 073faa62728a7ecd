"""The change feed over connections that break: no event is missed unsaid."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from filesfs.backend.changes import ChangeFeed
from filesfs.backend.requester import Requester
from filesfs.backend.settings import BackendSettings
from filesfs.domain import Location
from filesfs.errors import Gone, Unavailable

pytestmark = pytest.mark.trio

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_EVENT = b'id: e-7\ndata: {"operation":"commit","keys":[["b","k"]]}\n\n'


class _Server:
    """Answers each connection with what comes next in `answers`; notes what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.resets = False

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.asked.append(await stream.receive_some(65536))
            await stream.send_all(self.answers.pop(0))
            if self.resets:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@asynccontextmanager
async def _feed(server: _Server) -> AsyncIterator[ChangeFeed]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        requester = Requester(BackendSettings(base_url=f"http://127.0.0.1:{port}", timeout=5))
        yield ChangeFeed(requester, "/v1/files?changes=1", silence=5)
        await requester.aclose()
        nursery.cancel_scope.cancel()


async def _follow(feed: ChangeFeed) -> list[Location]:
    """What comes until the connection ends."""
    found: list[Location] = []
    try:
        async with feed.open() as changes:
            async for change in changes:
                found += change.locations
    except Unavailable:
        return found
    raise AssertionError("the feed has ended without an error")


async def test_the_cursor_outlives_a_server_that_is_away_for_a_while() -> None:
    refusal = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
    server = _Server(_HEAD + b"\r\n" + _EVENT, refusal, _HEAD + b"\r\n")
    async with _feed(server) as feed:
        assert await _follow(feed) == [Location("b", "k")]
        await _follow(feed)
        await _follow(feed)
    assert all(b"Last-Event-ID: e-7\r\n" in head for head in server.asked[1:])


async def test_a_feed_that_broke_before_its_first_event_goes_on_where_it_began() -> None:
    told = _HEAD + b"Files-Cursor: e-3\r\n\r\n: connected\n\n"
    server = _Server(told, told)
    async with _feed(server) as feed:
        await _follow(feed)
        await _follow(feed)
    assert b"Last-Event-ID: e-3\r\n" in server.asked[1]


async def test_what_was_told_and_what_is_caught_up_are_told_apart() -> None:
    server = _Server(_HEAD + b"\r\n: connected\n\n" + _EVENT + b"id: e-9\n\n", _HEAD + b"\r\n")
    async with _feed(server) as feed:
        told: list[tuple[int, str]] = []
        with suppress(Unavailable):
            async with feed.open() as changes:
                async for change in changes:
                    told.append((len(change.locations), change.cursor))
        assert told == [(1, "e-7"), (0, "e-9")]
        await _follow(feed)
    assert b"Last-Event-ID: e-9\r\n" in server.asked[1]


async def test_a_feed_without_any_cursor_tells_that_it_has_a_gap() -> None:
    server = _Server(_HEAD + b"\r\n", _HEAD + b"\r\n")
    async with _feed(server) as feed:
        await _follow(feed)
        with pytest.raises(Gone):
            async with feed.open():
                pass
        await _follow(feed)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "data", [b"{", b'{"operation":"other","keys":[]}', b'"x"', b'{"operation":"commit","keys":[]}']
)
async def test_an_event_that_is_not_understood_is_a_gap(data: bytes) -> None:
    bad = b"id: e-8\ndata: " + data + b"\n\n"
    server = _Server(_HEAD + b"\r\n" + _EVENT + bad)
    async with _feed(server) as feed:
        assert await _follow(feed) == [Location("b", "k")]
        with pytest.raises(Gone):
            async with feed.open():
                pass


async def test_a_refusal_that_breaks_off_is_no_crash() -> None:
    server = _Server(b"HTTP/1.1 503 Away\r\nContent-Length: 99\r\n\r\nhalf")
    server.resets = True
    async with _feed(server) as feed:
        await _follow(feed)

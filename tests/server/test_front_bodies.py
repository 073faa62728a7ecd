"""A request's body through the HTTP front: where it ends, who waits for whom, and who goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from files_server.asgi import Receive, Scope, Send
from files_server.front.bodies import Chunked
from tests.server.fronting import GET, Client, Echo, reply, serving

PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
HUNDRED = PUT + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
MIB = 1 << 20


def test_bodies_in_any_pieces_with_the_next_request_behind(tmp_path: Path) -> None:
    chunked = b'3;a="b"\r\nabc\r\n0A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n'
    bodies = {
        CHUNKED + chunked: b"abc0123456789",
        CHUNKED + b"0\r\n\r\n": b"",
        PUT + b"Content-Length: 13\r\n\r\n0123456789abc": b"0123456789abc",
    }
    app = Echo()
    with serving(app, tmp_path) as served, served.client() as client:
        for sent, body in bodies.items():
            for cut in range(1, len(sent)):
                client.send(sent[:cut])
                client.send(sent[cut:] + GET)
                assert client.answer()[2] == body, cut
                assert client.answer()[2] == b""
        for number in range(len(chunked)):
            client.send(CHUNKED if not number else b"")
            client.send(chunked[number : number + 1])
        assert client.answer()[2] == b"abc0123456789"
    assert app.cut == 0


def test_very_many_chunks_are_read_a_part_at_a_time(tmp_path: Path) -> None:
    """All other clients waited for a second while one sent chunks of 1 byte."""
    body = os.urandom(100_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    begun = time.thread_time()
    Chunked().feed(chunks)
    assert time.thread_time() - begun < 0.02
    with serving(Echo(), tmp_path) as served, served.client() as client:
        client.send(CHUNKED + chunks + GET + CHUNKED + chunks)
        client.end()
        assert [client.answer()[2] for _ in range(3)] == [body, b"", body]
        assert client.rest() == b""


def test_reading_goes_on_behind_very_many_chunks(tmp_path: Path) -> None:
    """Also where the last part of them has no byte of the body, so that nobody takes one."""
    with serving(Echo(), tmp_path) as served, served.client() as client:
        for count in (499, 500, 501, 1000):
            client.send(CHUNKED + b"1\r\nx\r\n" * count + b"1")
            time.sleep(0.1)
            client.send(b"\r\ny\r\n0\r\n\r\n")
            assert client.answer()[2] == b"x" * count + b"y"


@pytest.mark.parametrize(
    "sent",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b"1\nx\n0\n\n",
        b"1 1\r\nx\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx0\r\n\r\n",
        b"1;\x00\r\nx\r\n",
        b"ffffffffffffffffff\r\n",
        b"1;" + b"e" * 2000,
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 200,
    ],
)
def test_broken_chunks_are_no_body(tmp_path: Path, sent: bytes) -> None:
    """And what follows them is no request."""
    app = Echo()
    with serving(app, tmp_path) as served, served.client() as client:
        client.send(CHUNKED + sent + b"0\r\n\r\n" + GET)
        assert client.rest() == b""
    assert (len(app.scopes), app.cut) == (1, 1)


def test_a_client_goes_away_within_a_body(tmp_path: Path) -> None:
    app = Echo()
    with serving(app, tmp_path) as served:
        for way in ("close", "reset", "half"):
            with served.client() as client:
                client.send(PUT + b"Content-Length: 10\r\n\r\nabc")
                if way == "half":
                    client.end()
                    assert client.rest() == b""
            served.wait_for_connections(0)
    assert app.cut == 3


def test_100_continue_is_for_those_who_read_the_body(tmp_path: Path) -> None:
    with serving(Echo(), tmp_path) as served, served.client() as client:
        client.send(HUNDRED)
        assert client.head() == (100, {})
        client.send(b"abc" + HUNDRED + b"def")  # one that does not wait is not told
        assert client.answer()[2] == b"abc"
        assert client.answer()[2] == b"def"

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"", 412)

    with serving(refusing, tmp_path) as served, served.client() as client:
        client.send(HUNDRED)
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (412, "close")  # who knows what comes now
        client.send(b"abc" + GET)
        client.end()
        assert client.rest() == b""


def test_a_client_goes_away_before_it_is_asked_for_the_body(tmp_path: Path) -> None:
    """No failure of the server's: the application is told as of any other that goes away."""
    echo, go_on = Echo(), asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            await go_on.wait()
        await echo(scope, receive, send)

    with serving(late, tmp_path) as served:
        with served.client() as client:
            client.send(GET + HUNDRED)
            client.socket.recv(1, socket.MSG_PEEK)  # unread at its close, it makes that a reset
        served.wait_for_connections(0)
        assert served.loop is not None
        served.loop.call_soon_threadsafe(go_on.set)
    assert echo.cut == 1


def test_a_body_that_nobody_takes_is_not_read(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    sizes: list[int] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        more, size = True, 0
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            size, more = size + sizes[-1], message["more_body"]
        await reply(send, str(size).encode())

    with serving(waiting, tmp_path) as served, served.client() as client:
        client.send(PUT + b"Content-Length: %d\r\n\r\n" % (64 * MIB))
        sent = _send_until_stuck(client, 64 * MIB)
        assert sent < 4 * MIB
        assert served.loop is not None
        served.loop.call_soon_threadsafe(go_on.set)
        client.send(bytes(64 * MIB - sent))
        assert client.answer()[2] == str(64 * MIB).encode()
    assert max(sizes) <= MIB


def _send_until_stuck(client: Client, size: int) -> int:
    sent = 0
    client.socket.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < size:
            sent += client.socket.send(bytes(min(65536, size - sent)))
    client.socket.settimeout(20)
    return sent


def test_an_answer_that_comes_first_arrives(tmp_path: Path) -> None:
    """Although the client is sending still: a close would throw away what it has not read yet."""

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await reply(send, b"too much", 413)

    with serving(refusing, tmp_path) as served:
        for framing in (b"Content-Length: 30000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
            with served.client() as client:
                client.send(PUT + framing + b"2\r\nab\r\n")
                if b"chunked" in framing:
                    client.send((b"10000\r\n" + bytes(65536) + b"\r\n") * 300)
                else:
                    client.send(bytes(20 * MIB))
                status, headers, body = client.answer()
                assert (status, body, headers["connection"]) == (413, b"too much", "close")
                client.end()
                assert client.rest() == b""
        served.wait_for_connections(0)


def test_one_who_sends_for_ever_is_cut_off(tmp_path: Path) -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"", 401)

    with serving(refusing, tmp_path) as served, served.client() as client:
        client.send(CHUNKED)
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < begun + 20:
                client.send(b"1\r\nx\r\n")
                time.sleep(0.01)
        assert time.monotonic() < begun + 15
        served.wait_for_connections(0)


def test_a_small_body_that_nobody_reads_costs_no_connection(tmp_path: Path) -> None:
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, scope["method"].encode())

    with serving(deaf, tmp_path) as served, served.client() as client:
        client.send(PUT + b"Content-Length: 3\r\n\r\nabc" + GET)
        assert [client.answer()[2], client.answer()[2]] == [b"PUT", b"GET"]


def test_who_listens_for_the_end_hears_of_it(tmp_path: Path) -> None:
    """As a feed of changes does, in the meantime it has nothing to tell."""
    heard: list[str] = []

    async def feed(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        heard.append((await receive())["type"])

    with serving(feed, tmp_path) as served:
        for way in (socket.SHUT_WR, None):
            with served.client() as client:
                client.send(GET)
                assert client.head()[0] == 200
                assert client.take(10) == b"5\r\nbegun\r\n"
                if way is not None:
                    client.end()
                    assert client.rest() == b""  # no last chunk: it is broken off
            served.wait_for_connections(0)
    assert heard == ["http.disconnect"] * 2

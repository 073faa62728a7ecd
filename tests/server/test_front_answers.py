"""Answers through the HTTP front: framing, pipelines, files that the kernel sends, slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from files_server.asgi import App, BrokenOff, Receive, Scope, Send
from tests.server.fronting import GET, Client, Served, reply, serving

MIB = 1 << 20
HEAD = b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n"
FILE = b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n"
OLD = b"GET /x HTTP/1.0\r\n\r\n"
DATA = os.urandom(24 * MIB)  # more than all buffers between a server and a client hold


def saying(*parts: bytes, status: int = 200, **headers: str) -> App:
    """An application that sends these parts, the last one as such."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        for number, part in enumerate(parts, 1):
            more = number < len(parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})

    return app


class Files:
    """Sends bytes [start, end) of a file to who asks for /file, and says small things else."""

    def __init__(self, path: Path, start: int = 0, end: int = len(DATA)) -> None:
        self.path, self.start, self.end = path, start, end
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["raw_path"] != b"/file":
            await reply(send, b"small")
            return
        assert "http.response.zerocopysend" in scope["extensions"]
        descriptor = os.open(self.path, os.O_RDONLY)
        self.open += 1
        try:
            length = str(self.end - self.start).encode()
            start = {"status": 200, "headers": [(b"content-length", length)]}
            await send({"type": "http.response.start", **start})
            part = {"offset": self.start, "count": self.end - self.start}
            await send({"type": "http.response.zerocopysend", "file": descriptor, **part})
        except EOFError:
            raise BrokenOff from None
        finally:
            os.close(descriptor)
            self.open -= 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").write_bytes(DATA)
    return tmp_path / "data"


@contextlib.contextmanager
def asking(app: App, folder: Path, sent: bytes) -> Iterator[Client]:
    with serving(app, folder) as served, served.client() as client:
        client.send(sent)
        yield client


def test_a_body_of_unknown_length_comes_in_chunks(tmp_path: Path) -> None:
    with asking(saying(b"a" * 20, b"", b"b", b""), tmp_path, GET + HEAD + GET) as client:
        assert client.answer()[2] == b"a" * 20 + b"b"
        _, headers, _ = client.answer(has_body=False)
        assert headers["transfer-encoding"] == "chunked"
        assert client.answer()[2] == b"a" * 20 + b"b"


def test_to_an_old_client_it_ends_with_the_connection(tmp_path: Path) -> None:
    with asking(saying(b"a", b"b"), tmp_path, OLD) as client:
        assert client.head()[1]["connection"] == "close"
        assert client.rest() == b"ab"


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_where_there_can_be_none(tmp_path: Path, status: int) -> None:
    with asking(saying(b"never", status=status), tmp_path, GET + GET) as client:
        for _ in range(2):
            found, headers, _ = client.answer(has_body=False)
            assert (found, "transfer-encoding" in headers) == (status, False)
        client.end()
        assert client.rest() == b""


def test_head_has_the_length_and_no_body(tmp_path: Path) -> None:
    with asking(saying(b"abc"), tmp_path, HEAD + GET) as client:
        assert client.answer(has_body=False)[1]["content-length"] == "3"
        assert client.answer()[2] == b"abc"


def test_a_large_body_is_not_copied(tmp_path: Path) -> None:
    """Once more in memory for each client that takes it slowly, on the event loop."""
    tracemalloc.start()
    try:
        with asking(saying(DATA), tmp_path, GET) as client:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert client.head()[0] == 200
            peak = tracemalloc.get_traced_memory()[1]
        assert peak - before < len(DATA) // 2
    finally:
        tracemalloc.stop()


def test_no_more_than_was_announced(tmp_path: Path) -> None:
    """The rest would be taken for the next answer."""
    with asking(saying(b"ab", b"cd", content_length="3"), tmp_path, GET + GET) as client:
        assert [client.answer()[2], client.answer()[2]] == [b"abc", b"abc"]


@pytest.mark.parametrize("parts", [(b"ab",), (b"ab", b"")])
def test_less_than_was_announced_is_broken_off(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    with asking(saying(*parts, content_length="3"), tmp_path, GET + GET) as client:
        assert client.head()[0] == 200
        assert client.rest() in (b"", b"ab")


def test_a_header_cannot_begin_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for value in ("a\r\nset-cookie: b", "a\nb", "a\rb"):
        with asking(saying(b"", x=value), tmp_path, GET) as client:
            assert client.answer()[0] == 500
            assert client.rest() == b""
    assert [record.message for record in caplog.records] == ["GET failed"] * 3


def test_an_application_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ValueError("on purpose")

    with serving(failing, tmp_path) as served:
        with served.client() as client:
            client.send(GET + GET)
            status, headers, _ = client.answer()
            assert (status, headers["connection"]) == (500, "close")
            assert client.rest() == b""
        with served.client() as client:
            client.send(HEAD + GET)
            assert client.rest().count(b"HTTP/1.1") == 1
    assert [record.message for record in caplog.records] == ["GET failed", "HEAD failed"]


def test_a_head_that_fails_has_no_body_either(tmp_path: Path) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("on purpose")

    with asking(failing, tmp_path, HEAD) as client:
        assert client.answer(has_body=False)[0] == 500
        assert client.rest() == b""


def test_requests_one_behind_the_other(tmp_path: Path) -> None:
    """Each has its answer, in order, though far more come at once than are read ahead."""

    async def numbered(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await reply(send, scope["raw_path"])

    count = 5000
    sent = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(count))
    with asking(numbered, tmp_path, b"") as client:
        sender = threading.Thread(target=client.send, args=(sent,))
        sender.start()
        for number in range(count):
            assert client.answer()[2] == b"/%d" % number
        sender.join()


def test_one_who_has_said_all_gets_all_answers(tmp_path: Path) -> None:
    with asking(saying(b"abc"), tmp_path, GET * 5) as client:
        client.end()
        assert [client.answer()[2] for _ in range(5)] == [b"abc"] * 5
        assert client.rest() == b""


def test_files_in_a_pipeline(tmp_path: Path, path: Path) -> None:
    """What comes while a file is sent waits, and what was written before it is sent before it."""
    with asking(Files(path), tmp_path, GET + FILE + GET) as client:
        assert client.answer()[2] == b"small"
        status, _, body = client.head(), client.take(1000), b""
        assert status[0] == 200
        client.send(FILE + GET * 3000)  # more than is read ahead
        assert body + client.take(len(DATA) - 1000) == DATA[1000:]
        assert client.answer()[2] == b"small"
        assert client.answer()[2] == DATA
        assert {client.answer()[2] for _ in range(3000)} == {b"small"}


@pytest.mark.parametrize(("start", "end"), [(1, len(DATA)), (5, 6), (4095, 3 * MIB + 7)])
def test_a_part_of_a_file(tmp_path: Path, path: Path, start: int, end: int) -> None:
    with asking(Files(path, start, end), tmp_path, FILE + GET) as client:
        assert client.answer()[2] == DATA[start:end]
        assert client.answer()[2] == b"small"


def test_a_file_behind_a_part_that_was_not_taken_yet(tmp_path: Path, path: Path) -> None:
    async def mixed(scope: Scope, receive: Receive, send: Send) -> None:
        with path.open("rb") as file:
            length = str(len(DATA) + MIB).encode()
            start = {"status": 200, "headers": [(b"content-length", length)]}
            await send({"type": "http.response.start", **start})
            begin: dict[str, Any] = {"body": DATA[:MIB], "more_body": True}
            await send({"type": "http.response.body", **begin})
            part = {"file": file.fileno(), "offset": 0, "count": len(DATA)}
            await send({"type": "http.response.zerocopysend", **part})

    with asking(mixed, tmp_path, GET + GET) as client:
        for _ in range(2):
            assert client.answer()[2] == DATA[:MIB] + DATA


def test_a_file_that_is_cut_short_breaks_the_answer_off(tmp_path: Path, path: Path) -> None:
    os.truncate(path, 10 * MIB)
    app = Files(path)
    with asking(app, tmp_path, FILE + GET) as client:
        assert client.head()[0] == 200
        assert client.rest() == DATA[: 10 * MIB]
    assert app.open == 0


def test_slow_clients_hold_nobody_up(tmp_path: Path, path: Path) -> None:
    """More of them than there are threads to send; each gets all of it once it takes it."""
    app = Files(path)
    with serving(app, tmp_path) as served, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.client(buffer=4096)) for _ in range(20)]
        for client in slow:
            client.send(FILE)
        _wait(lambda: app.open == len(slow))
        begun = time.monotonic()
        with served.client() as quick:
            quick.send(FILE)
            assert quick.answer()[2] == DATA
        assert time.monotonic() - begun < 5
        assert slow[0].answer()[2] == DATA
        for client in slow[1:]:
            client.take(100_000)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["file", "body"])
def test_who_takes_nothing_is_cut_off(tmp_path: Path, path: Path, kind: str) -> None:
    app = Files(path)
    sent, served_app = (FILE, app) if kind == "file" else (GET, saying(DATA))
    with serving(served_app, tmp_path, idle_seconds=0.5) as served, served.client() as client:
        client.send(sent)
        served.wait_for_connections(1)
        served.wait_for_connections(0)
        assert len(client.rest()) < len(DATA)
    assert app.open == 0


@pytest.mark.parametrize("kind", ["file", "body"])
def test_a_client_goes_away_within_an_answer(tmp_path: Path, path: Path, kind: str) -> None:
    app = Files(path)
    sent, served_app = (FILE, app) if kind == "file" else (GET, saying(DATA, DATA))
    with serving(served_app, tmp_path) as served:
        for taken in (0, 1, MIB):
            with served.client(buffer=4096) as client:
                client.send(sent)
                served.wait_for_connections(1)
                client.take(taken)
            served.wait_for_connections(0)
    assert app.open == 0


def test_a_stop_ends_what_is_idle_and_lets_the_rest_finish(tmp_path: Path, path: Path) -> None:
    app = Files(path)
    with serving(app, tmp_path) as served:
        idle, busy = served.client(), served.client()
        busy.send(FILE)
        assert busy.head()[0] == 200
        served.end()
        assert idle.rest() == b""
        assert busy.take(len(DATA)) == DATA
        assert busy.rest() == b""
        idle.socket.close()
        busy.socket.close()


def test_a_stop_does_not_wait_for_one_who_takes_nothing(tmp_path: Path, path: Path) -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await Files(path)(scope, receive, send)

    with serving(endless, tmp_path) as served, served.client() as client:
        client.send(FILE)
        assert client.head()[0] == 200
        begun = time.monotonic()
        served.end()
        _join(served)
        assert time.monotonic() - begun < 15


def _join(served: Served) -> None:
    with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(served.path))
            time.sleep(0.05)

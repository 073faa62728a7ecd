"""The HTTP front with an application of the test's, in this process, and a client of raw sockets.

It must not be kind: the client sends what it is told, and reads what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from files_server.asgi import App, Receive, Scope, Send
from files_server.front.serving import Front

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Served:
    """A front that runs, in a thread with an event loop of its own."""

    path: Path
    loop: asyncio.AbstractEventLoop | None = None
    front: Front | None = None
    started: threading.Event = field(default_factory=threading.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def client(self, buffer: int = 0) -> Client:
        """A new connection; `buffer` bytes for what comes."""
        connection = socket.socket(socket.AF_UNIX)
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(20)
        connection.connect(str(self.path))
        return Client(connection)

    def end(self) -> None:
        """Have it stop; the context waits for that."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.stop.set)

    def connections(self) -> int:
        assert self.front is not None
        return len(self.front._connections)

    def wait_for_connections(self, count: int) -> None:
        deadline = time.monotonic() + 20
        while self.connections() != count:
            assert time.monotonic() < deadline, f"{self.connections()} connections, not {count}"
            time.sleep(0.01)


class Client:
    """One connection, and what came of it that was not looked at."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._got = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def _more(self) -> bool:
        data = self.socket.recv(1 << 20)
        self._got += data
        return bool(data)

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer. EOFError at the end of the connection."""
        while b"\r\n\r\n" not in self._got:
            if not self._more():
                raise EOFError(self._got)
        text, _, self._got = self._got.partition(b"\r\n\r\n")
        line, *fields = text.decode("latin-1").split("\r\n")
        headers = dict(one.lower().split(": ", 1) for one in fields)
        return int(line.split(" ")[1]), headers

    def take(self, count: int) -> bytes:
        """So many bytes of a body; fewer at the end of the connection."""
        while len(self._got) < count and self._more():
            pass
        data, self._got = self._got[:count], self._got[count:]
        return data

    def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next answer, of known length or in chunks."""
        status, headers = self.head()
        if not has_body:
            return status, headers, b""
        if "content-length" in headers:
            return status, headers, self.take(int(headers["content-length"]))
        assert headers["transfer-encoding"] == "chunked"
        body = b""
        while size := int(self._line(), 16):
            body += self.take(size)
            assert self.take(2) == b"\r\n"
        assert self.take(2) == b"\r\n"
        return status, headers, body

    def _line(self) -> bytes:
        while b"\r\n" not in self._got:
            if not self._more():
                raise EOFError(self._got)
        line, _, self._got = self._got.partition(b"\r\n")
        return line

    def rest(self) -> bytes:
        """All that comes up to the end of the connection, however it ends."""
        with contextlib.suppress(ConnectionResetError):
            while self._more():
                pass
        rest, self._got = self._got, b""
        return rest


@contextlib.contextmanager
def serving(app: App, folder: Path, **options: Any) -> Iterator[Served]:
    """The front on a Unix socket in `folder`. Options are Front's."""
    served = Served(folder / "front")
    failed: list[BaseException] = []

    def main() -> None:
        try:
            uvloop.run(_main(app, served, options))
        except BaseException as error:
            failed.append(error)
        finally:
            served.started.set()

    thread = threading.Thread(target=main)
    thread.start()
    assert served.started.wait(10)
    try:
        yield served
    finally:
        if not failed:
            with contextlib.suppress(RuntimeError):  # it has ended already
                served.end()
        thread.join(20)
        served.path.unlink(missing_ok=True)
        assert not thread.is_alive()
        assert not failed, failed


async def _main(app: App, served: Served, options: dict[str, Any]) -> None:
    served.loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(served.path))
        listening.listen(100)
        listening.setblocking(False)
        limits = {"most": 100, "header_seconds": 20.0, "idle_seconds": 20.0, **options}
        served.front = Front(app, listening, **limits)
        served.front.start()
        served.started.set()
        await served.stop.wait()
        await served.front.stop(5)


class Echo:
    """An application that answers with the request's body; `scopes` are those that it has seen."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.cut = 0  # requests whose body did not come to its end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.cut += 1
                return
            body += message["body"]
            more = message["more_body"]
        await reply(send, body)


async def reply(send: Send, body: bytes, status: int = 200, **headers: str) -> None:
    """A whole answer."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})

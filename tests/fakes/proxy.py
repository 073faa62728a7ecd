"""A TCP proxy in front of an HTTP server that does on demand what bad networks do.

It must not run anything but threads and sockets, so that it serves mounts in other processes too.

    with FaultProxy("127.0.0.1", port) as proxy:      # or FaultProxy.to(url)
        proxy.url                                     # what clients are given
        proxy.add(Rule(Reset(after=1000), method="GET", path="/v1/files/b/"))

A rule applies to the next `times` requests that match: `method` equal, `path` contained in the
target. The first rule that matches is used, else `proxy.chance` is asked. `proxy.requests` lists
(method, target) of what came.
"""

from __future__ import annotations

import math
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Reset:
    """Cut the connection with RST once `after` bytes of the answer (of the request) have passed."""

    after: int = 0
    request: bool = False


@dataclass(frozen=True)
class Truncate:
    """Close the connection in an orderly way once `after` bytes of the answer have passed."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Pass `after` bytes of the answer, then nothing any more until `proxy.release()`."""

    after: int = 0


@dataclass(frozen=True)
class Corrupt:
    """Change the byte at `position` of the answer's body."""

    position: int = 0


@dataclass(frozen=True)
class Refuse:
    """Cut the connection before the request reaches the server."""


@dataclass(frozen=True)
class AnswerStatus:
    """Answer with this status, in the server's place."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class DropAnswer:
    """Let the server do it, and cut the connection in place of its answer."""


@dataclass(frozen=True)
class Duplicate:
    """Send the request to the server twice; the second answer is the one that passes."""


Fault = Reset | Truncate | Stall | Corrupt | Refuse | AnswerStatus | DropAnswer | Duplicate


@dataclass
class Rule:
    """A fault for the next `times` requests that match."""

    fault: Fault
    method: str = ""
    path: str = ""
    times: float = 1
    skip: int = 0  # matching requests that pass first
    used: int = field(default=0, init=False)

    def matches(self, method: str, target: str) -> bool:
        return self.method in ("", method) and self.path in target


class FaultProxy:
    """Owner of the rules and of all connections. Thread-safe."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._is_down = False
        self.requests: list[tuple[str, str]] = []
        self.chance: Callable[[str, str], Fault | None] = lambda method, target: None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @classmethod
    def to(cls, url: str) -> FaultProxy:
        """A proxy to the server at an http:// URL."""
        return cls("", 0).forward(url)

    def forward(self, url: str) -> FaultProxy:
        """To this server from now on. One that hands out URLs has to know the proxy's first."""
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        return self

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._released.set()
        self.cut()

    def add(self, rule: Rule) -> Rule:
        """A rule behind those that there are; its `used` counts."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def always(self, fault: Fault, method: str = "", path: str = "") -> Rule:
        """A rule that holds until `clear`."""
        return self.add(Rule(fault, method, path, math.inf))

    def clear(self) -> None:
        """No rules any more; what stalls goes on stalling until `release`."""
        with self._lock:
            self._rules.clear()

    def release(self) -> None:
        """What stalls is cut."""
        self._released.set()

    def down(self) -> None:
        """As if the machine were gone: every connection is cut, and new ones at once."""
        self._is_down = True
        self.cut()

    def up(self) -> None:
        self._is_down = False

    def cut(self) -> None:
        """Cut every connection that is open now, idle ones too."""
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _reset(each)

    # -- inner ------------------------------------------------------------------------------------
    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._is_down:
                _reset(client)
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = None
        self._hold(client)
        try:
            server = socket.create_connection(self._upstream, timeout=60)
            self._hold(server)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            incoming, outgoing = _Reader(client), _Reader(server)
            while self._exchange(client, server, incoming, outgoing):
                pass
        except (OSError, EOFError):
            pass
        finally:
            for each in (client, server):
                if each is not None:
                    self._let_go(each)

    def _hold(self, each: socket.socket) -> None:
        with self._lock:
            self._sockets.add(each)

    def _let_go(self, each: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(each)
        each.close()

    def _exchange(
        self, client: socket.socket, server: socket.socket, incoming: _Reader, outgoing: _Reader
    ) -> bool:
        """One request and its answer; False once the connection is done."""
        head = incoming.head()
        method, target = head.split(b" ", 2)[:2]
        fault = self._fault(method.decode(), target.decode())
        if isinstance(fault, Refuse):
            _reset(client)
            return False
        if isinstance(fault, AnswerStatus):
            for _ in incoming.body(head):
                pass
            client.sendall(_canned(fault))
            return True
        if isinstance(fault, Reset) and fault.request:
            _pass_some(server, head, incoming.body(head), fault.after)
            _reset(server)
            _reset(client)
            return False
        request = [head, *incoming.body(head)] if isinstance(fault, Duplicate) else []
        if request:
            server.sendall(b"".join(request))
            for _ in outgoing.answer("GET"):
                pass
            server.sendall(b"".join(request))
        else:
            server.sendall(head)
            for piece in incoming.body(head):
                server.sendall(piece)
        return self._answer(client, outgoing.answer(method.decode()), fault)

    def _answer(
        self, client: socket.socket, answer: Iterator[tuple[bool, bytes]], fault: Fault | None
    ) -> bool:
        if isinstance(fault, DropAnswer):
            for _ in answer:
                pass
            _reset(client)
            return False
        passed, in_body = 0, 0
        for is_body, piece in answer:
            if isinstance(fault, Reset | Truncate | Stall) and passed + len(piece) > fault.after:
                client.sendall(piece[: fault.after - passed])
                return self._stop(client, fault)
            if isinstance(fault, Corrupt) and is_body:
                piece = _corrupted(piece, fault.position - in_body)
                in_body += len(piece)
            client.sendall(piece)
            passed += len(piece)
        return True

    def _stop(self, client: socket.socket, fault: Fault) -> bool:
        if isinstance(fault, Stall):
            self._released.wait()
        if isinstance(fault, Truncate):
            client.shutdown(socket.SHUT_RDWR)
        else:
            _reset(client)
        return False

    def _fault(self, method: str, target: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, target))
            for rule in self._rules:
                if not rule.matches(method, target) or rule.used >= rule.times:
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.used += 1
                return rule.fault
            return self.chance(method, target)


class _Reader:
    """Splits the bytes of one direction into HTTP messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def head(self) -> bytes:
        """Up to the blank line, with it. EOFError when the connection ends first."""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def body(self, head: bytes) -> Iterator[bytes]:
        """The body's pieces, chunk sizes and all."""
        if _CHUNKED.search(head):
            yield from self._chunks()
            return
        match = _LENGTH.search(head)
        left = int(match.group(1)) if match else 0
        while left:
            piece = self._take(left)
            left -= len(piece)
            yield piece

    def answer(self, method: str) -> Iterator[tuple[bool, bytes]]:
        """(is it body, bytes) of one answer."""
        head = self.head()
        while head.split(b" ", 2)[1].startswith(b"1"):
            yield False, head
            head = self.head()
        yield False, head
        if method == "HEAD" or head.split(b" ", 2)[1] in (b"204", b"304"):
            return
        if not _CHUNKED.search(head) and not _LENGTH.search(head):
            with suppress(EOFError):
                while True:
                    yield True, self._take(_PIECE)
        for piece in self.body(head):
            yield True, piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line()
            yield line
            left = int(line.split(b";")[0], 16) + 2
            is_last = left == 2
            while left:
                piece = self._take(left)
                left -= len(piece)
                yield piece
            if is_last:
                return

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            self._rest += self._more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line + b"\r\n"

    def _take(self, most: int) -> bytes:
        if not self._rest:
            self._rest = self._more()
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece

    def _more(self) -> bytes:
        data = self._socket.recv(_PIECE)
        if not data:
            raise EOFError
        return data


def _pass_some(server: socket.socket, head: bytes, body: Iterator[bytes], most: int) -> None:
    server.sendall(head)
    passed = 0
    for piece in body:
        server.sendall(piece[: most - passed])
        passed += len(piece)
        if passed >= most:
            return


def _corrupted(piece: bytes, at: int) -> bytes:
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]


def _canned(fault: AnswerStatus) -> bytes:
    lines = [f"HTTP/1.1 {fault.status} Canned", f"Content-Length: {len(fault.body)}"]
    lines += [f"{name}: {value}" for name, value in fault.headers]
    return "\r\n".join([*lines, "", ""]).encode() + fault.body


def _reset(sock: socket.socket) -> None:
    """RST instead of an orderly end; wakes whoever waits on the socket."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)

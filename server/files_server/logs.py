"""The request log: one JSON object a line and request, written by a pure-ASGI middleware.

It must not write a secret: no query (signed URLs), no headers (tokens), of a session's id only the
first characters, since whoever knows an id may send to it where no tokens are asked for.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable

from files_server.asgi import App, Message, Receive, Scope, Send

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
TOKEN_NAME = "files_server.token"  # the scope's key under which auth.py leaves the token's name
_SESSION = re.compile(r"(session(?::|%3[Aa])[A-Za-z0-9_-]{6})[^/?]*")
_PATH_CHARACTERS = 2048  # of a path that is logged: a key may be 16 KiB long


def to_stderr(line: str) -> None:
    """The default sink. One write a line, so that lines of several threads do not mix."""
    sys.stderr.write(line)
    sys.stderr.flush()


def event(
    level: str, message: str, write: Callable[[str], None] = to_stderr, **fields: str
) -> None:
    """A line that is no request: a reload, a warning."""
    record = {"time": _timestamp(time.time()), "level": level, "message": message, **fields}
    write(json.dumps(record) + "\n")


class RequestLog:
    """Middleware. Outermost, so that what other middlewares refuse is logged too."""

    def __init__(
        self, app: App, level: str = "info", write: Callable[[str], None] = to_stderr
    ) -> None:
        self._app = app
        self._threshold = LEVELS[level]
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, clock = time.time(), time.perf_counter()
        counted = _Counted(send)
        try:
            await self._app(scope, receive, counted)
        finally:
            self._log(scope, counted, begun, time.perf_counter() - clock)

    def _log(self, scope: Scope, counted: _Counted, begun: float, seconds: float) -> None:
        status = counted.status
        level = "error" if status >= 500 else "info"
        if LEVELS[level] < self._threshold:
            return
        record = {
            "time": _timestamp(begun),
            "level": level,
            "method": scope["method"],
            "path": _shown_path(scope),
            "status": status,
            "bytes": counted.bytes,
            "ms": round(seconds * 1000, 3),
            "token": scope.get(TOKEN_NAME, ""),
        }
        self._write(json.dumps(record) + "\n")


class _Counted:
    """`send`, with the status and the number of body bytes noted. Status 0: never answered."""

    __slots__ = ("_headers", "_send", "bytes", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.bytes = 0
        self._headers: Iterable[tuple[bytes, bytes]] = ()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            self._headers = message["headers"]
        elif message["type"] == "http.response.pathsend":
            self.bytes += _content_length(self._headers)  # Granian sends it, out of our sight
        await self._send(message)


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _shown_path(scope: Scope) -> str:
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0].decode("latin-1")
    return _SESSION.sub(r"\1...", path[:_PATH_CHARACTERS])


def _timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"

"""The request log: one JSON object a line and request, made by a pure-ASGI middleware that counts
requests, too, for /metrics.

A request never waits for whoever reads the log: a thread writes its line within 50 ms.

It must not write a secret: no query (signed URLs), no headers (tokens), of a session's id only the
first characters, since whoever knows an id may send to it where no tokens are asked for.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from files_server.asgi import App, Message, Receive, Scope, Send
from files_server.meters import meters, operation

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
TOKEN_NAME = "files_server.token"  # the scope's key under which auth.py leaves the token's name
_SESSION = re.compile(r"(session(?::|%3[Aa])[A-Za-z0-9_-]{6})[^/?]*")
_PATH_CHARACTERS = 2048  # of a path that is logged: a key may be 16 KiB long
_GATHER_SECONDS = 0.05  # lines of so long are one write
_MOST_LINES = 10_000  # that wait to be written: some 2 MB, where nobody reads stderr
_quoted = json.encoder.encode_basestring_ascii


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


class Lines:
    """Writes lines from a thread of its own. `add` never blocks: where the log's reader is too
    slow, lines are left out, and a line says how many. `close` writes what is left."""

    def __init__(self, write: Callable[[str], None] = to_stderr) -> None:
        self._write = write
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._some = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="log", daemon=True)
        self._thread.start()

    def add(self, line: str) -> None:
        """Have a line written soon."""
        if len(self._waiting) >= _MOST_LINES:
            self._lost += 1
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what is left; no `add` after it."""
        self._closed = True
        self._some.set()
        self._thread.join()

    def _main(self) -> None:
        while not self._closed:
            self._some.wait()
            if not self._closed:
                time.sleep(_GATHER_SECONDS)
            self._some.clear()  # before looking: a line that comes now sets it again
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        lost, self._lost = self._lost, 0
        if lines:
            self._write("".join(lines))
        if lost:
            event("warning", f"{lost} requests are not in the log: its reader is slow", self._write)


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
            seconds = time.perf_counter() - clock
            target = scope.get("files.target")
            kind = target.kind if target else None
            name = operation(kind, scope["method"], scope["query_string"])
            meters.answered(name, counted.status, counted.bytes, seconds)
            self._log(scope, counted, begun, seconds)

    def _log(self, scope: Scope, counted: _Counted, begun: float, seconds: float) -> None:
        status = counted.status
        level = "error" if status >= 500 else "info"
        if LEVELS[level] < self._threshold:
            return
        self._write(
            f'{{"time": "{_timestamp(begun)}", "level": "{level}",'
            f' "method": {_quoted(scope["method"])}, "path": {_quoted(_shown_path(scope))},'
            f' "status": {status}, "bytes": {counted.bytes}, "ms": {seconds * 1000:.3f},'
            f' "token": {_quoted(scope.get(TOKEN_NAME, ""))}}}\n'
        )


class _Counted:
    """`send`, with the status and the number of body bytes noted. Status 0: never answered."""

    __slots__ = ("_send", "bytes", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.zerocopysend":
            self.bytes += message["count"]
        await self._send(message)


def _shown_path(scope: Scope) -> str:
    raw = scope.get("raw_path") or scope["path"].encode()
    path: str = raw.partition(b"?")[0].decode("latin-1")[:_PATH_CHARACTERS]
    return _SESSION.sub(r"\1...", path) if "session" in path else path


def _timestamp(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))

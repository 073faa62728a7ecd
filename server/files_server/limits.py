"""Limits on what one request may make the server hold or wait for.

It must not limit content: uploads are bounded by their session's size, where that is known.

Where each limit is enforced: connections, the head's time and size, and clients that take nothing
of their answer in `front/`; clients that take a byte now and then by the kernel (`listener.py`); a
body's idle time and the size of JSON here; open sessions where they are made.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException

from files_server.asgi import App, Message, Receive, Scope, Send, header, refuse


class BodyLimits:
    """Middleware. Refuses oversized JSON (413), treats an idle body as a lost connection."""

    def __init__(self, app: App, max_json_bytes: int, idle_seconds: float = 60.0) -> None:
        self._app = app
        self._max = max_json_bytes
        self._idle = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        watched = _Watched(receive, self._idle)
        try:
            await self._limited(scope, watched, send)
        finally:
            watched.stop()

    async def _limited(self, scope: Scope, watched: Receive, send: Send) -> None:
        if _carries_content(scope):
            await self._app(scope, watched, send)
            return
        length = header(scope, b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._max):
            await refuse(send, 413, _too_long(self._max), [(b"connection", b"close")])
            return
        await self._app(scope, self._counted(watched), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max:
                raise HTTPException(413, _too_long(self._max), {"Connection": "close"})
            return message

        return counted


class _Watched:
    """`receive`, whose body is at its end once nothing has arrived for `idle` seconds.

    One timer looks at the clock now and then, and ends the wait as asyncio.timeout does: a timeout
    for each chunk would cost more than the chunk.
    """

    def __init__(self, receive: Receive, idle: float) -> None:
        self._receive = receive
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._since = 0.0
        self._late = False
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:  # what comes now is only the disconnect, however late
            return await self._receive()
        self._waiting, self._since = asyncio.current_task(), self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle, self._look)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            self.stop()
            if not self._late or self._task_is_cancelled():
                raise
            return {"type": "http.disconnect"}
        finally:
            self._waiting = None
        if not message.get("more_body", False):
            self.stop()
        return message

    def _look(self) -> None:
        left = self._since + self._idle - self._loop.time()
        if self._waiting is not None and left <= 0:
            self._late = True
            self._waiting.cancel()
        else:
            wait = left if self._waiting is not None else self._idle
            self._timer = self._loop.call_later(wait, self._look)

    def _task_is_cancelled(self) -> bool:
        """By somebody else, too."""
        task = asyncio.current_task()
        return task is not None and task.uncancel() > 0

    def stop(self) -> None:
        """The request is over, or its body is."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()


def _carries_content(scope: Scope) -> bool:
    if scope["method"] == "POST":
        return b"/session" in scope["raw_path"].lower()
    return scope["method"] == "PUT" and b"alt=media" in scope["query_string"]


def _too_long(allowed: int) -> str:
    return f"The body is longer than the {allowed} bytes that are allowed for one without content."

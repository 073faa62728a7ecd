"""The requests that are running, so that the server can stop without breaking one off.

It must not stop anything by itself: `serve.py` calls `drain` once it was told to stop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from files_server.asgi import App, Message, Receive, Scope, Send, refuse


class Running:
    """Middleware. Owns the set of running requests; event loop only, and its methods are sync
    but for `drain`, so that a request is either in the set or refused."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[object]] = set()
        self._streams: set[asyncio.Task[object]] = set()  # invariant: a subset of _tasks
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
        elif self._stopping:
            headers = [(b"retry-after", b"1"), (b"connection", b"close")]
            await refuse(send, 503, "The server is stopping. Try again in a moment.", headers)
        else:
            await self._run(task, scope, receive, send)

    async def drain(self, seconds: float) -> None:
        """End the event streams now, wait for the other requests, cancel what is left then."""
        self._stopping = True
        for task in list(self._streams):
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    async def _run(
        self, task: asyncio.Task[object], scope: Scope, receive: Receive, send: Send
    ) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if _is_stream(message):
                    self._streams.add(task)
            await send(message)

        self._tasks.add(task)
        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if not self._stopping or task not in self._streams or not started:
                raise
            task.uncancel()
            with suppress(Exception):  # the client may be gone; else it sees the stream's clean end
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._tasks.discard(task)
            self._streams.discard(task)


def _is_stream(message: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in message["headers"]
    )

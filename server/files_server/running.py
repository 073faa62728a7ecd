"""The requests that are running, so that the server can stop without breaking one off.

It must not stop anything by itself: `serve.py` calls `drain` once it was told to stop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from files_server.asgi import App, Receive, Scope, Send, refuse

ENDLESS = "files_server.endless"  # in the scope of a request whose answer does not end by itself


class Running:
    """Middleware. Owns the set of running requests; event loop only, and its methods are sync
    but for `drain`, so that a request is either in the set or refused."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tasks: dict[asyncio.Task[object], Scope] = {}
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
        for task, scope in self._tasks.items():
            if ENDLESS in scope:
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
        self._tasks[task] = scope
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping or ENDLESS not in scope:
                raise
            task.uncancel()
            with suppress(Exception):  # the client may be gone; else it sees the stream's clean end
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            del self._tasks[task]

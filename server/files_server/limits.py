"""Limits on what one request may make the server hold or wait for.

It must not limit content: uploads are bounded by their session's size, where that is known.

Where each limit is enforced: connections by Granian (`backpressure`), further ones wait in the
kernel's queue; the header's time (15 s) and size (about 400 KiB) by Granian; a body's idle time
and the size of JSON here; open sessions where they are made. Not limited: the time a client takes
to read an answer, since Granian sends files by itself and tells nothing of it. A slow reader
holds a connection, not memory.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException

from files_server.asgi import App, Message, Receive, Scope, Send, header, refuse

BODY_IDLE_SECONDS = 60.0  # a body of which nothing arrives for so long: its client is gone


class BodyLimits:
    """Middleware. Refuses oversized JSON (413), treats an idle body as a lost connection."""

    def __init__(
        self, app: App, max_json_bytes: int, idle_seconds: float = BODY_IDLE_SECONDS
    ) -> None:
        self._app = app
        self._max = max_json_bytes
        self._idle = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if _carries_content(scope):
            await self._app(scope, self._watched(receive), send)
            return
        length = header(scope, b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._max):
            await refuse(send, 413, _too_long(self._max), [(b"connection", b"close")])
            return
        await self._app(scope, self._counted(self._watched(receive)), send)

    def _watched(self, receive: Receive) -> Receive:
        ended = False

        async def watched() -> Message:
            nonlocal ended
            if ended:  # what comes now is only the disconnect, however late
                return await receive()
            try:
                async with asyncio.timeout(self._idle):
                    message = await receive()
            except TimeoutError:
                message = {"type": "http.disconnect"}
            ended = not message.get("more_body", False)
            return message

        return watched

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


def _carries_content(scope: Scope) -> bool:
    if scope["method"] == "POST":
        return b"/session" in scope["raw_path"].lower()
    return scope["method"] == "PUT" and b"alt=media" in scope["query_string"]


def _too_long(allowed: int) -> str:
    return f"The body is longer than the {allowed} bytes that are allowed for one without content."

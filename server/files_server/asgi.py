"""The types of ASGI, and the one answer that a middleware gives by itself. A leaf but for `errors`.

It must not know routes, settings or tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from files_server.errors import error_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
CONNECTION = "files_server.connection"  # in the scope: the same object for requests of one client


class BrokenOff(Exception):
    """An answer ends before it is complete, and why is in the log."""


async def refuse(
    send: Send, status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with the error object, before the application has seen the request."""
    body = error_body(status, detail)
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    start = {"type": "http.response.start", "status": status, "headers": [*fixed, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a request header; `name` in lower case."""
    for found, value in scope["headers"]:
        if found == name:
            return bytes(value)
    return None

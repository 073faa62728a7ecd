"""Drives an ASGI application without a socket: one request, one answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from files_server.asgi import App, Message, Receive, Scope, Send


@dataclass
class Answer:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


def scope(method: str, path: str, headers: dict[str, str] | None = None) -> Scope:
    raw, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": raw,
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
    }


def ask(
    app: App,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: Iterable[bytes] = (b"",),
) -> Answer:
    """The answer to one request. The body comes in the given parts."""
    return asyncio.run(answer_to(app, scope(method, path, headers), list(body)))


async def answer_to(app: App, request: Scope, parts: list[bytes]) -> Answer:
    """The same within an event loop that runs already."""
    answer = Answer()

    async def receive() -> Message:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = dict(message["headers"])
        else:
            answer.body += message.get("body", b"")

    await app(request, receive, send)
    return answer


def replying(reply: Any = lambda: b"ok") -> App:
    """An application that reads the body and answers 200 with what `reply` gives."""

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": reply()})

    return app

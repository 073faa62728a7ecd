"""A request's body on its way to the application: what its `receive` gives.

It must not hold more than the application is about to take: it has the client held up instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from files_server.asgi import Message
from files_server.front.bodies import BodyError, Chunked, Sized

_MOST_HELD = 256 << 10  # bytes that came and were not taken


class Incoming:
    """The connection calls the sync methods, the application `receive`. `hold(True)` is to have
    nothing more read of the client, `hold(False)` to go on; `ask` tells a client to send at all."""

    def __init__(
        self, length: int | None, hold: Callable[[bool], None], ask: Callable[[], None] | None
    ) -> None:
        self._framing = Chunked() if length is None else Sized(length)
        self._hold, self._ask = hold, ask
        self._chunks: deque[bytes] = deque()
        self._size = 0  # bytes of them
        self._told = False  # the application has all of it
        self._ended = False  # nothing more comes
        self._waiting: asyncio.Future[None] | None = None

    @property
    def complete(self) -> bool:
        """All of it has come."""
        return self._framing.done

    @property
    def busy(self) -> bool:
        """It is to be fed again, once others have had their turn, with nothing more if need be."""
        return self._framing.busy and not self._ended

    def feed(self, data: bytes) -> bytes:
        """Bytes of the client; returns those behind the body's end."""
        if self._framing.done:
            return data
        if self._ended:
            return b""
        try:
            body, rest = self._framing.feed(data)
        except BodyError:
            self.end()
            return b""
        if body:
            self._chunks.append(body)
            self._size += len(body)
            if self._size > _MOST_HELD:
                self._hold(True)
        self._wake()
        return rest

    def end(self) -> None:
        """Nothing more comes, or nobody wants it any more."""
        self._ended = True
        self._wake()

    async def receive(self) -> Message:
        """The next bytes; http.disconnect once there will be none, or the exchange is over."""
        if self._ask is not None:
            ask, self._ask = self._ask, None
            if not self._chunks and not self._framing.done:
                ask()
        while not self._chunks:
            if self._framing.done and not self._told:
                self._told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._ended:
                return {"type": "http.disconnect"}
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        body = self._chunks.popleft()
        self._size -= len(body)
        if self._size <= _MOST_HELD:
            self._hold(False)
        self._told = self._framing.done and not self._chunks
        return {"type": "http.request", "body": body, "more_body": not self._told}

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

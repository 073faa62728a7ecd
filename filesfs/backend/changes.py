"""The change feed: server-sent events over a connection of its own, as Change values.

It must not keep any state of the file system, and does not reconnect by itself: whoever reads it
drops what it can no longer trust, and enters again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import trio

from filesfs.backend import parse
from filesfs.backend.requester import Request, Requester
from filesfs.domain import Change
from filesfs.errors import Gone, RequestError, Unavailable
from filesfs.wire import Operation

# The server sends a comment every 5 s: two of them missing is a lost connection.
SILENCE = 10.0
_MOST = 17 << 20  # bytes of one event, whose names have 16 KiB each


class ChangeFeed:
    """Owner of the cursor, so that a feed entered again goes on where the last one ended."""

    def __init__(self, requester: Requester, target: str, silence: float = SILENCE) -> None:
        self._requester = requester
        self._target = target
        self._silence = silence
        self._cursor = ""
        self._followed = False  # before: then only a cursor makes the next one go on from there

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[Change]]:
        """Connect. Raises Gone when what followed the last one cannot be had any more; the next one
        begins from now on.
        """
        if self._followed and not self._cursor:
            self._followed = False
            raise Gone("It is not known where the change feed broke off.")
        headers = {"Accept": "text/event-stream"}
        if self._cursor:
            headers["Last-Event-ID"] = self._cursor
        request = Request("GET", self._target, headers)
        try:
            async with self._requester.stream(request, self._silence) as (told, pieces):
                self._cursor = self._cursor or told.get("files-cursor", "")
                self._followed = True
                async with aclosing(self._changes(pieces)) as changes:
                    yield changes
        except RequestError as error:  # the cursor is of no use to this server
            self._cursor = ""
            self._followed = self._followed and not isinstance(error, Gone)
            raise

    async def _changes(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[Change, None]:
        events = EventParser()
        while True:
            for cursor, name, data in events.feed(await self._next(pieces)):
                if not (name or data):
                    yield Change(Operation.BUCKET, (), None, None, True, cursor)
                elif name == "confirm":
                    yield Change(Operation.BUCKET, (), None, None, True, cursor, recall=data)
                elif name in ("", "change", "message") and data:
                    yield self._understood(data, cursor)
                self._cursor = cursor or self._cursor

    def _understood(self, data: str, cursor: str) -> Change:
        try:
            return parse.change_event(data, cursor, self._requester.settings.origin)
        except Unavailable:
            self._cursor = ""  # what it told of is a gap
            raise

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        try:
            with trio.fail_after(self._silence):
                return await anext(pieces)
        except trio.TooSlowError:
            raise Unavailable(f"The change feed was silent for {self._silence:g} s.") from None
        except StopAsyncIteration:
            raise Unavailable("The server ended the change feed.") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"The change feed broke: {error}") from error


class EventParser:
    """Bytes to (id, event, data), by the server-sent events of the HTML standard. Pure."""

    def __init__(self) -> None:
        self._rest = b""
        self._cursor = ""
        self._event = ""
        self._data: list[str] = []
        self._pending = 0  # bytes that came since the last event
        self._has_id = False  # the event that is being read

    def feed(self, piece: bytes) -> list[tuple[str, str, str]]:
        """The events that are complete now; ("7", "", "") where there is an id and nothing else."""
        self._pending += len(piece)
        if self._pending > _MOST:
            raise Unavailable("An event of the change feed has no end.")
        *lines, self._rest = (self._rest + piece).split(b"\n")
        found = []
        for line in lines:
            if text := line.rstrip(b"\r").decode("utf-8", "replace"):
                self._field(text)
            elif event := self._dispatch():
                found.append(event)
        return found

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id" and "\0" not in value:
            self._cursor, self._has_id = value, True
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)

    def _dispatch(self) -> tuple[str, str, str] | None:
        event, data = self._event, "\n".join(self._data)
        told = bool(data or event or self._has_id)
        self._event, self._data, self._has_id = "", [], False
        self._pending = 0
        return (self._cursor, event, data) if told else None

"""The change feed: every commit's events to everybody who listens, in commit order.

It must not make events; they come out of the catalog's transactions.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from files_server.catalog.store import Catalog
from files_server.errors import ApiError, shown
from files_server.leases import Client, Event, Leases

COMMENT_SECONDS = 5.0  # a client takes 10 s of silence for a lost connection
_RECENT = 10_000  # events in memory; older ones come from the table
_PAGE = 1_000
CURSOR = re.compile(r"([0-9a-f]{1,64})-(\d{1,18})\Z")

_ORIGIN = '"origin":"'  # the last field of an event's data


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens: which buckets he may see, whose changes he does not want, and who he is.
    `private`: he is not to learn what marks the changes of others."""

    visible: Callable[[str], bool]
    without: str
    client: Client
    private: bool


class Changes:
    """Owns the recent events and who waits for the next. Event loop only; `publish` is sync."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._recent: deque[Event] = deque(maxlen=_RECENT)
        self._waiting: dict[asyncio.Future[None], str] = {}  # with what marks its own changes
        self.subscribers = 0

    def publish(self, events: list[Event]) -> None:
        """Events of a commit, in order. Who is to be told of none of them sleeps on: a client's own
        changes, one after the other, would wake it each time for nothing. Leases are recalled
        first, so that whoever is woken finds what he has to confirm."""
        self._leases.recall(events)
        self._recent.extend(events)
        for future, own in self._waiting.items():
            if not future.done() and any(own not in data for _, data in events):
                future.set_result(None)

    def start(self, catalog: Catalog, last_event_id: str | None) -> int:
        """The number to go on after. ApiError 400 for a bad id, 410 for one that is of no use."""
        if last_event_id is None:
            return catalog.latest
        match = CURSOR.match(last_event_id)
        if match is None:
            raise ApiError(400, f"Last-Event-ID {shown(last_event_id)} is not EPOCH-NUMBER.")
        epoch, number = match.group(1), int(match.group(2))
        if epoch != catalog.epoch or number > catalog.latest:
            raise ApiError(410, f"The cursor {shown(last_event_id)} is of another catalog.")
        row = catalog.reader.execute("SELECT min(number) FROM changes").fetchone()
        oldest = row[0] if row[0] is not None else catalog.latest + 1
        if number + 1 < oldest:
            raise ApiError(410, f"The cursor {shown(last_event_id)} is pruned; begin again.")
        return number

    async def stream(
        self, catalog: Catalog, after: int, listener: Listener
    ) -> AsyncIterator[bytes]:
        """Server-sent events behind number `after`, for ever; an id without an event once the
        client has caught up. Behind an event that recalls a lease of the client's comes one more,
        by which it is asked to confirm.
        """
        told = time.monotonic()
        own = f'{_ORIGIN}{listener.without}"' if listener.without else "\0"
        self.subscribers += 1
        self._leases.connected(listener.client)
        behind = True
        try:
            yield b": connected\n\n"
            if any(number <= after for number in self._leases.unconfirmed(listener.client)):
                term = self._leases.term_id(listener.client)
                yield _confirm(catalog.epoch, after, term)  # asked on a connection that was lost
            while True:
                events = self._next(catalog, after)
                if behind and not events:  # an id alone: all until now was told
                    behind = False
                    yield f"id: {catalog.epoch}-{after}\n\n".encode()
                if not events:
                    await self._wait(own)
                    events = self._next(catalog, after)
                after = events[-1][0] if events else after
                others = [event for event in events if own not in event[1]]
                text = self._text(catalog.epoch, others, listener)
                if text or time.monotonic() - told >= COMMENT_SECONDS - 1:
                    yield text or b": nothing\n\n"
                    told = time.monotonic()
        finally:
            self.subscribers -= 1
            self._leases.disconnected(listener.client)

    def _text(self, epoch: str, events: list[Event], listener: Listener) -> bytes:
        recalled = self._leases.unconfirmed(listener.client)
        parts: list[bytes] = []
        for event in events:
            parts.append(_format(epoch, event, listener))
            if event[0] in recalled:
                term = self._leases.term_id(listener.client)
                parts.append(_confirm(epoch, event[0], term))
        return b"".join(parts)

    def _next(self, catalog: Catalog, after: int) -> list[Event]:
        if after >= catalog.latest:
            return []
        if self._recent and self._recent[0][0] <= after + 1:
            fresh = itertools.takewhile(lambda event: event[0] > after, reversed(self._recent))
            return list(fresh)[::-1]
        rows = catalog.reader.execute(
            "SELECT number, data FROM changes WHERE number > ? ORDER BY number LIMIT ?",
            (after, _PAGE),
        )
        return rows.fetchall()

    async def _wait(self, own: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = own
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMENT_SECONDS):
                    await future
        finally:
            del self._waiting[future]


def _format(epoch: str, event: Event, listener: Listener) -> bytes:
    number, data = event
    keys = json.loads(data)["keys"]
    if not all(listener.visible(bucket) for bucket, _ in keys):
        shown_keys = [pair for pair in keys if listener.visible(pair[0])]
        if not shown_keys:
            return b""
        data = json.dumps(json.loads(data) | {"keys": shown_keys}, separators=(",", ":"))
    if listener.private and f'{_ORIGIN}{listener.client[1]}"' not in data:
        data = data[: data.rindex(_ORIGIN)] + f'{_ORIGIN}"}}'
    return f"event: change\nid: {epoch}-{number}\ndata: {data}\n\n".encode()


def _confirm(epoch: str, number: int, term: str) -> bytes:
    return f"event: confirm\nid: {epoch}-{number}\ndata: {term}\n\n".encode()

"""Brings up what the journal holds: in order, each change only onto the version that it was made
on.

It must not lose or overwrite anything: where another client came first, our content goes beside
theirs, and what the server cannot take now stays in the journal. It reads the records' snapshots,
never what a program is still writing. What it tells the file system, it tells through `Owner`.

A record whose answer was lost may be stored: from its first request on it is not changed any more
(`sent`), and it is known again by its content.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import Entry, Kind, Location
from filesfs.errors import (
    Conflict,
    FilesfsError,
    Gone,
    NotFound,
    PreconditionFailed,
    Stale,
    Unavailable,
    Unsupported,
)
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal
from filesfs.write.records import JournalId, Payload, Record, same_version
from filesfs.write.upload import Target, Uploader

log = logging.getLogger(__name__)

_NAME_MAX = 255  # bytes of a name that Linux shows
_COMPARE = 1 << 20  # bytes at a time when content is compared
_ATTEMPTS = 100  # names tried for one conflict copy
_AGAIN_SECONDS = 5.0  # a record that the server refused is not offered again before
_STUCK = 3  # passes that one record has ended; then the next one shows whether the server is away
_FOR_GOOD = 2  # refusals after which what came later of its name does not wait for it any more


class Owner(Protocol):
    """Who shows the files. Called without an `await` after the journal was told."""

    def stored(self, record: Record, entry: Entry) -> None:
        """The server has it, as `entry`."""

    def lost(self, record: Record, beside: Location | None) -> None:
        """Another client was first: theirs is under the name, ours `beside` it."""

    def refused(self, record: Record, error: Exception) -> None:
        """The server does not take it for now; it stays in the journal."""


@dataclass(slots=True)
class Tally:
    """What the replays came to. All but `failed` have left the journal."""

    stored: int = 0
    conflicts: int = 0
    failed: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    """One attempt. Whoever waits for it hears why it failed."""

    over: trio.Event = field(default_factory=trio.Event)
    error: FilesfsError | OSError | None = None


@dataclass(slots=True)
class _Trouble:
    why: str
    when: float  # trio's clock, seconds
    times: int = 1

    @property
    def is_for_good(self) -> bool:
        return self.times >= _FOR_GOOD


@dataclass(slots=True)
class Replayer:
    """Owner of what is under way. One record of a file at a time, in the journal's order."""

    journal: Journal
    backend: FilesBackend
    owner: Owner
    tally: Tally = field(default_factory=Tally)
    _uploader: Uploader = field(init=False)
    _under_way: dict[JournalId, _Flight] = field(default_factory=dict)
    _sent: set[JournalId] = field(default_factory=set)
    _troubles: dict[JournalId, _Trouble] = field(default_factory=dict)
    _ended: dict[JournalId, int] = field(default_factory=dict)  # passes, by Unavailable

    def __post_init__(self) -> None:
        self._uploader = Uploader(self.backend, None)

    def sent(self, id: JournalId) -> bool:
        """The server may have it, so it must not be changed."""
        return id in self._sent

    # -- when -------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Upload what is pending, and what comes meanwhile. Unavailable ends the pass, but for one
        record that has ended several; the rest stays pending, in order.

        A record that fails for another reason stays too, and holds up only those about its name,
        until it is refused for good.
        """
        waiting: set[Location] = set()
        tried: set[JournalId] = set()
        passed_over = False
        while (record := self._next(tried, waiting)) is not None:
            tried.add(record.id)
            try:
                await self.send(record.id)
            except Unavailable:
                if not self._is_stuck(record) or passed_over:
                    raise
                passed_over = True
                waiting.add(record.location)
            except (FilesfsError, OSError) as error:
                if not self._failed(record, error).is_for_good:
                    waiting.add(record.location)

    def _next(self, tried: set[JournalId], waiting: set[Location]) -> Record | None:
        for record in self.journal.pending():
            if record.id in tried or (record.payload is None and self._before(record)):
                continue
            trouble = self._troubles.get(record.id)
            if trouble is not None and trio.current_time() < trouble.when + _AGAIN_SECONDS:
                if not trouble.is_for_good:
                    waiting.add(record.location)
            elif record.location not in waiting:
                return record
        return None

    def _before(self, record: Record) -> Record | None:
        """What is pending of the same file and comes right before this record."""
        return self.journal.get(record.after) if record.after is not None else None

    def _chain(self, record: Record) -> list[Record]:
        """The record, and all that comes before it."""
        chain = [record]
        while (before := self._before(chain[-1])) is not None:
            chain.append(before)
        return chain

    def _is_stuck(self, record: Record) -> bool:
        self._ended[record.id] = self._ended.get(record.id, 0) + 1
        return self._ended[record.id] >= _STUCK

    def _failed(self, record: Record, error: Exception) -> _Trouble:
        why = str(error)
        self.tally.failed += 1
        known = self._troubles.get(record.id)
        level = logging.DEBUG if known is not None and known.why == why else logging.ERROR
        log.log(level, "journal: %s failed, and is kept: %s", record, why)
        times = 1 if known is None else known.times + 1
        trouble = self._troubles[record.id] = _Trouble(why, trio.current_time(), times)
        self.owner.refused(record, error)
        return trouble

    async def send(self, id: JournalId) -> None:
        """Store one record now, after those of its file that come before it. Raises why it is not
        stored.
        """
        while (record := self.journal.get(id)) is not None:
            flight = self._under_way.get(id)
            if flight is not None:
                await flight.over.wait()
                if flight.error is not None:
                    raise flight.error
                continue
            before = self._before(record)
            if before is not None and not self._stands_for(record, before):
                await self.send(before.id)
            else:
                await self._send(record)

    def _stands_for(self, record: Record, before: Record) -> bool:
        """The server will not have the earlier one, and this content has all of it."""
        trouble = self._troubles.get(before.id)
        refused = trouble is not None and trouble.is_for_good
        return refused and record.payload is not None and before.id not in self._under_way

    async def _send(self, record: Record) -> None:
        self._sent.add(record.id)
        flight = _Flight()
        chain = [each.id for each in self._chain(record)]
        self._under_way |= dict.fromkeys(chain, flight)
        try:
            if record.payload is None:
                await self._attributes(record)
            else:
                await self._upload(record, record.payload)
        except (FilesfsError, OSError) as error:
            flight.error = error
            raise
        finally:
            for id in chain:
                del self._under_way[id]
            flight.over.set()

    def _stored(self, record: Record, entry: Entry) -> None:
        self._drop_before(record)
        self.tally.stored += 1
        self.journal.stored(record.id, entry)
        self._over(record)
        self.owner.stored(record, entry)

    def _lost(self, record: Record, why: str, beside: Location | None = None) -> None:
        self._drop_before(record)
        self.tally.conflicts += 1
        log.error("journal: conflict: %s: %s", record, why)
        self.journal.forget(record.id)
        self._over(record)
        self.owner.lost(record, beside)

    def _drop_before(self, record: Record) -> None:
        """What the server refused of it is not wanted any more: later content is there."""
        for refused in self._chain(record)[1:]:
            log.warning("journal: %s is dropped: a later version of it is stored", refused)
            self.journal.forget(refused.id)
            self._over(refused)
            self.owner.lost(refused, None)

    def _over(self, record: Record) -> None:
        self._sent.discard(record.id)
        self._troubles.pop(record.id, None)
        self._ended.pop(record.id, None)

    # -- content ----------------------------------------------------------------------------------
    async def _upload(self, record: Record, payload: Payload) -> None:
        buffer = self.journal.restore(record)
        base = _Base(self.backend, payload.base)
        target = _conditional(record, payload)
        try:
            entry = await self._uploader.commit(buffer, target, base)
        except (PreconditionFailed, Gone, NotFound, Conflict) as error:
            there = await self._ours(target.location, buffer, base)
            if there is not None:
                self._stored(record, await self._dressed(record, there))
            elif not await self._met_its_own(record):
                await self._overtaken(record, error, buffer, target, base)
        else:
            self._stored(record, entry)
        finally:
            buffer.close()

    async def _ours(self, location: Location, buffer: WriteBuffer, base: _Base) -> Entry | None:
        """What overtook us may be our own upload: its answer was lost, or a crash came after it."""
        try:
            entry = await self.backend.stat(location)
            if entry.size != buffer.size or entry.kind is not Kind.FILE:
                return None
            for offset in range(0, entry.size, _COMPARE):
                theirs = await self.backend.read(entry, offset, _COMPARE)
                if theirs != await buffer.read(offset, _COMPARE, base):
                    return None
        except (NotFound, Stale):
            return None
        return entry

    async def _met_its_own(self, record: Record) -> bool:
        """What overtook it may be what comes before it, which landed and was refused afterwards;
        then `record` is a change of that.
        """
        for before in self._chain(record)[1:]:
            if before.payload is None:
                continue
            try:
                buffer = self.journal.restore(before)
            except OSError:  # which may be why the record is refused
                continue
            try:
                base = _Base(self.backend, before.payload.base)
                there = await self._ours(before.location, buffer, base)
            finally:
                buffer.close()
            if there is not None:
                self._stored(before, await self._dressed(before, there))
                return True
        return False

    async def _dressed(self, record: Record, there: Entry) -> Entry:
        """An upload ahead of close() has its last attributes after its content, or never."""
        if not record.change:
            return there
        try:
            entry = await self.backend.set_attributes(record.location, Kind.FILE, record.change)
        except (Unsupported, NotFound):
            return there
        return entry if same_version(entry, there) else there

    async def _overtaken(
        self,
        record: Record,
        error: FilesfsError,
        buffer: WriteBuffer,
        target: Target,
        base: _Base,
    ) -> None:
        follower = self.journal.follower(record)
        if follower is not None and follower.payload is not None:
            # The file's own later content meets the same; one copy beside is enough.
            self._lost(record, f"{error}; a later version of it follows")
            return
        beside = await self._beside(buffer, target, base)
        follower = self.journal.follower(record)  # a close() meanwhile put content in its place
        attributes = follower if follower is not None and follower.payload is None else None
        if attributes is not None:
            self.journal.forget(attributes.id)  # they were for our content
        self._lost(record, f"{error}; our content is stored as {str(beside)!r}", beside)
        if attributes is not None:
            self.owner.lost(attributes, None)

    async def _beside(self, buffer: WriteBuffer, target: Target, base: _Base) -> Location:
        for number in range(_ATTEMPTS):
            location = conflict_location(target.location, time.time(), number)
            new = replace(target, location=location, base=None, resource_id=None)
            try:
                await self._uploader.commit(
                    buffer, replace(new, only_new=True, if_match=None), base
                )
            except PreconditionFailed:
                continue
            return location
        raise Conflict(f"no free name for a conflict copy of {target.location}", "exists")

    # -- attributes -------------------------------------------------------------------------------
    async def _attributes(self, record: Record) -> None:
        try:
            entry = await self.backend.set_attributes(record.location, Kind.FILE, record.change)
        except Unsupported:
            entry = await self.backend.stat(record.location)
        except NotFound as error:
            self._lost(record, str(error))
            return
        self._stored(record, entry)


class _Base:
    """BaseReader of the version that a record's clean parts come from."""

    def __init__(self, backend: FilesBackend, entry: Entry | None) -> None:
        self._backend = backend
        self._entry = entry

    async def read(self, offset: int, length: int) -> bytes:
        if self._entry is None:
            raise Stale("the version that the unchanged parts come from is not known")
        return await self._backend.read(self._entry, offset, length)


def _conditional(record: Record, payload: Payload) -> Target:
    """Where the content goes, if nobody else was there since.

    The last close wins while all are looking on; by now it would overwrite what came much later.
    """
    base = payload.base
    return Target(
        location=record.location,
        mime_type=payload.mime_type,
        change=record.change,
        base=base,
        resource_id=payload.resource_id,
        only_new=payload.only_new or (base is None and payload.if_match is None),
        if_match=payload.if_match or (base.etag if base is not None else None),
    )


def conflict_location(location: Location, when: float, number: int = 0) -> Location:
    """`NAME.conflict-HOST-TIME` beside a file, a valid key that shows under that very name.

    Part of an escaped name may be cut off to keep within NAME_MAX, never half of an escape.
    """
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64] or "localhost"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))
    suffix = f".conflict-{host}-{stamp}" + (f"-{number}" if number else "")
    name = location.name
    if len(name) + len(suffix) > _NAME_MAX:
        name = name[: _NAME_MAX - len(suffix)]
        if name.startswith("_-"):
            name = re.sub(r"(?<!^)_[0-9a-f]?$", "", name)
    return location.parent.child(name + suffix)

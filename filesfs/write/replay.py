"""Brings up what the journal holds: in order, each change only onto the version that it was made
on.

It must not lose or overwrite anything: where another client came first, our content goes beside
theirs, and what the server cannot take now stays in the journal.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from dataclasses import dataclass, replace

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import Entry, ETag, Location
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
from filesfs.write.records import Payload, Record, RecordKind
from filesfs.write.upload import Target, Uploader

log = logging.getLogger(__name__)

_NAME_MAX = 255  # bytes of a name that Linux shows
_COMPARE = 1 << 20  # bytes at a time when content is compared
_ATTEMPTS = 100  # names tried for one conflict copy


@dataclass(slots=True)
class Tally:
    """What a replay came to, for status and metrics. All but `failed` have left the journal."""

    stored: int = 0
    conflicts: int = 0  # stored beside, or a change of names that no longer applied
    failed: int = 0


class Replayer:
    """One pass over what no open file of this process stands for. Run one at a time."""

    def __init__(self, journal: Journal, backend: FilesBackend) -> None:
        self._journal = journal
        self._backend = backend
        self._uploader = Uploader(backend, None)
        self.tally = Tally()

    async def run(self) -> Tally:
        """Upload what is pending. Unavailable ends the pass; the rest stays pending, in order.

        A record that fails for another reason stays too, and holds up only those about its names.
        """
        waiting: list[Location] = []
        for record in self._journal.replayable():
            if _touches(record, waiting):
                waiting += record.locations
                continue
            try:
                await self._replay(record)
            except Unavailable:
                raise
            except (FilesfsError, OSError) as error:
                self.tally.failed += 1
                waiting += record.locations
                self._report(record, str(error))
        return self.tally

    def _report(self, record: Record, why: str) -> None:
        known = self._journal.troubles.get(record.id) == why
        self._journal.troubles[record.id] = why
        level = logging.DEBUG if known else logging.ERROR
        log.log(level, "journal: %s failed, and is kept: %s", record, why)

    async def _replay(self, record: Record) -> None:
        conflicts = self.tally.conflicts
        match record.kind:
            case RecordKind.UPLOAD:
                await self._upload(record)
            case RecordKind.RENAME:
                await self._rename(record)
            case RecordKind.UNLINK:
                await self._unlink(record)
            case RecordKind.ATTRIBUTES:
                await self._attributes(record)
            case RecordKind.MKDIR:
                await self._mkdir(record)
        self.tally.stored += self.tally.conflicts == conflicts
        self._journal.forget(record.id)

    def _conflict(self, record: Record, why: str) -> None:
        self.tally.conflicts += 1
        log.error("journal: conflict: %s: %s", record, why)

    # -- content ----------------------------------------------------------------------------------
    async def _upload(self, record: Record) -> None:
        assert record.payload is not None
        buffer = self._journal.restore(record)
        base = _Base(self._backend, record.payload.base)
        target = _conditional(record, record.payload)
        try:
            await self._uploader.commit(buffer, target, base)
        except (PreconditionFailed, Gone, NotFound, Conflict) as error:
            if not await self._is_there(target.location, buffer, base):
                beside = await self._beside(buffer, target, base)
                self._conflict(record, f"{error}; our content is stored as {str(beside)!r}")
        finally:
            buffer.close()

    async def _is_there(self, location: Location, buffer: WriteBuffer, base: _Base) -> bool:
        """What overtook us may be our own upload, if the crash came right after it."""
        try:
            entry = await self._backend.stat(location)
            if entry.size != buffer.size:
                return False
            for offset in range(0, entry.size, _COMPARE):
                theirs = await self._backend.read(entry, offset, _COMPARE)
                if theirs != await buffer.read(offset, _COMPARE, base):
                    return False
        except (NotFound, Stale):
            return False
        return True

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

    # -- names and attributes ---------------------------------------------------------------------
    async def _rename(self, record: Record) -> None:
        assert record.destination is not None
        source, overwrite = record.location, record.overwrite
        try:
            if record.expected is not None:
                await self._check(source, record.expected)
            await self._backend.move(source, record.destination, record.what, overwrite=overwrite)
        except NotFound as error:  # done before the crash, or removed by another client
            log.info("journal: %s: %s", record, error)
        except (PreconditionFailed, Conflict, Unsupported) as error:
            self._conflict(record, f"{error}; it keeps its old name")

    async def _unlink(self, record: Record) -> None:
        try:
            if record.expected is not None:
                await self._check(record.location, record.expected)
            await self._backend.remove(record.location, record.what)
        except NotFound as error:
            log.info("journal: %s: %s", record, error)
        except (PreconditionFailed, Conflict) as error:
            self._conflict(record, f"{error}; it is not removed")

    async def _check(self, location: Location, expected: ETag) -> None:
        if (await self._backend.stat(location)).etag != expected:
            raise PreconditionFailed(f"{location} was changed by another client")

    async def _attributes(self, record: Record) -> None:
        try:
            await self._backend.set_attributes(record.location, record.what, record.change)
        except NotFound as error:
            self._conflict(record, str(error))
        except Unsupported as error:
            log.info("journal: %s: %s", record, error)

    async def _mkdir(self, record: Record) -> None:
        try:
            await self._backend.make_directory(record.location, record.change)
        except Conflict as error:
            log.info("journal: %s: %s", record, error)
            if (await self._backend.stat(record.location)).kind is not record.what:
                self._conflict(record, f"{error}, and is no directory")


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
        only_new=payload.only_new or (base is None and payload.resource_id is None),
        if_match=payload.if_match or (base.etag if base is not None else None),
    )


def _touches(record: Record, waiting: list[Location]) -> bool:
    """The record is about a name that an earlier one, which is still to be done, is about too."""
    return any(_related(mine, other) for mine in record.locations for other in waiting)


def _related(one: Location, other: Location) -> bool:
    if one.bucket != other.bucket:
        return False
    short, long = sorted((one.key, other.key), key=len)
    return not short or long == short or long.startswith(f"{short}/")


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

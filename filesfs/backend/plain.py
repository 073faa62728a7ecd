"""The operations against a server that knows the published API alone, more slowly and less exactly.

It must not pretend: what the server cannot do is Unsupported, and a rename, which is a copy and a
delete here, is logged as not atomic.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence

from filesfs.backend import parse
from filesfs.backend.content import session_url
from filesfs.backend.imagined import ImaginedDirectories
from filesfs.backend.keys import KeyListings
from filesfs.backend.paths import Targets, check
from filesfs.backend.requester import Request, Requester
from filesfs.backend.retry import Tries
from filesfs.backend.sessions import Abilities, HttpSession
from filesfs.domain import (
    Arrived,
    AttributeChange,
    Entry,
    ETag,
    Kind,
    Location,
    ResourceId,
    Usage,
    Whole,
)
from filesfs.errors import (
    AccessDenied,
    Conflict,
    Gone,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    Stale,
    Unsupported,
)
from filesfs.packed import Listing, Many, listing_of

log = logging.getLogger(__name__)

_COPY_PART = 8 * 1024 * 1024
# Where Range is ignored each read would fetch the whole file: the last one is kept.
_KEPT_WHOLE = 256 * 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class PlainDialect:
    """FilesBackend's operations over the nine published ones."""

    def __init__(self, requester: Requester, targets: Targets) -> None:
        self._requester = requester
        self._targets = targets
        self._imagined = ImaginedDirectories()
        self._keys = KeyListings(requester, targets)
        self._whole: tuple[Entry, bytes] | None = None

    # -- names ------------------------------------------------------------------------------------
    async def list_directory(self, location: Location) -> Listing:
        check(location)
        if not location.bucket:
            return await self._list_buckets()
        found = dict((await self._keys.get(location.bucket)).children(location.key) or {})
        for entry in self._imagined.children(location):
            found.setdefault(entry.location.name, entry)
        if not found and location.key and (await self.stat(location)).kind is not Kind.DIRECTORY:
            raise Conflict(f"{str(location)!r} is not a directory.", "not-directory")
        return listing_of(location, (found[name] for name in sorted(found)))

    async def list_walk(
        self, location: Location, levels: int, most: int
    ) -> tuple[Listing, list[Listing]]:
        return await self.list_directory(location), []

    async def stat(self, location: Location) -> Entry:
        check(location)
        if not location.bucket:
            return parse.directory(location)
        if not location.key:
            return await self._stat_bucket(location)
        if (imagined := self._imagined.get(location)) is not None:
            return imagined
        try:
            answer = await self._requester.ask(Request("GET", self._targets.of(location)))
            return parse.file_entry(answer.body)
        except NotFound:
            if (await self._keys.get(location.bucket)).children(location.key) is None:
                raise
            return parse.directory(location)

    async def look_up(self, location: Location) -> tuple[Entry, None]:
        return await self.stat(location), None

    async def usage(self) -> Usage:
        raise Unsupported("This server does not tell its usage.")

    # -- content ----------------------------------------------------------------------------------
    async def read(
        self, entry: Entry, offset: int, length: int, arrived: Arrived | None = None
    ) -> bytes:
        end = min(offset + length, entry.size)
        if end <= offset:
            return b""
        if self._whole is not None and _same(self._whole[0], entry):
            return self._whole[1][offset:end]
        try:
            return await self._read_url(entry, offset, end)
        except (AccessDenied, Gone):  # the url has expired: there is a fresh one
            fresh = await self._fresh(entry)
            return await self._read_url(fresh, offset, end)

    async def read_whole(self, location: Location, limit: int, known: Entry | None = None) -> Whole:
        entry = await self.stat(location)
        if entry.kind is Kind.DIRECTORY or entry.size > limit:
            return Whole(entry, None)
        return Whole(entry, await self.read(entry, 0, entry.size))

    async def read_many(self, directory: Location, names: Sequence[str]) -> Many:
        raise Unsupported("This server reads one file at a time.")

    async def put(
        self,
        location: Location,
        data: bytes | memoryview,
        mime_type: str,
        change: AttributeChange,
        *,
        only_new: bool = False,
        if_match: ETag | None = None,
        resource_id: ResourceId | None = None,
        kind: Kind = Kind.FILE,
    ) -> Entry:
        if kind is not Kind.FILE:
            raise Unsupported("This server holds regular files alone.")
        entry = None
        while entry is None:
            session = await self.open_upload(
                location, mime_type, change, size=len(data), only_new=only_new
            )
            try:
                entry = await session.send(data, final=True)
            except Gone:
                log.info("The upload session of %s was lost; it begins again.", location)
        return entry

    async def open_upload(
        self,
        location: Location,
        mime_type: str,
        change: AttributeChange,
        *,
        size: int | None = None,
        only_new: bool = False,
        if_match: ETag | None = None,
        resource_id: ResourceId | None = None,
        base: ETag | None = None,
        begin: int = 0,
    ) -> HttpSession:
        if size is None:
            raise Unsupported("This server needs the size when an upload begins.")
        self._targets.of(location)  # checks the names
        if location in self._imagined:
            raise Conflict(f"{str(location)!r} is a directory.", "is-directory")
        if only_new and await self._exists(location):
            raise PreconditionFailed(f"{str(location)!r} exists.")
        body = {
            "bucket": location.bucket,
            "key": location.key,
            "mime_type": mime_type,
            "size": size,
        }
        headers = {"Content-Type": "application/json"}
        request = Request("POST", self._targets.files(), headers, json.dumps(body).encode())
        url = session_url((await self._requester.ask(request)).json())
        return _PlainSession(self._requester, url, size, self._keys, location.bucket)

    # -- changes of names and attributes ----------------------------------------------------------
    async def make_directory(self, location: Location, change: AttributeChange) -> Entry:
        if await self._exists(location):
            raise Conflict(f"{str(location)!r} exists.", "exists")
        if location.key:
            return self._imagined.add(location) or parse.directory(location)
        await self._requester.ask(Request("PUT", self._targets.of(location)))
        return await self._stat_bucket(location)

    async def remove(self, location: Location, kind: Kind) -> int:
        if not location.key:
            raise Unsupported("This server cannot remove a bucket.")
        if kind is Kind.DIRECTORY:
            if (await self.list_directory(location)).entries:
                raise Conflict(f"{str(location)!r} is not empty.", "not-empty")
            self._imagined.discard(location)
            return 0
        self._keys.forget(location.bucket)
        tries = Tries()
        try:
            await self._requester.ask(Request("DELETE", self._targets.of(location)), tries)
        except NotFound:
            if not tries.lost:  # else an earlier try did it
                raise
        self._keys.forget(location.bucket)
        self._imagined.add(location.parent)  # a directory does not vanish with its last file
        return 0

    async def move(
        self,
        source: Location,
        destination: Location,
        kind: Kind,
        *,
        overwrite: bool = True,
        exchange: bool = False,
    ) -> int:
        if exchange or not source.key or not destination.key:
            raise Unsupported("This server cannot exchange names or move buckets.")
        if source == destination:
            return 0
        if f"{destination}/".startswith(f"{source}/"):
            raise InvalidRequest(f"{str(source)!r} cannot move into itself.")
        await self._check_target(destination, kind, overwrite=overwrite)
        log.warning("%s moves to %s by copy and delete: not atomic.", source, destination)
        if kind is not Kind.DIRECTORY:
            await self._move_file(await self.stat(source), destination)
            return 0
        for entry in (await self._keys.get(source.bucket)).below(source.key):
            rest = entry.location.key[len(source.key) :]
            await self._move_file(entry, Location(destination.bucket, destination.key + rest))
        self._imagined.rename(source, destination)
        self._imagined.add(source.parent)
        return 0

    async def link(self, source: Location, destination: Location) -> Entry:
        raise Unsupported("This server has no hard links.")

    async def set_attributes(
        self, location: Location, kind: Kind, change: AttributeChange
    ) -> Entry:
        raise Unsupported("This server keeps no attributes.")

    # -- inner ------------------------------------------------------------------------------------
    async def _read_url(self, entry: Entry, offset: int, end: int) -> bytes:
        headers = {} if (offset, end) == (0, entry.size) else {"Range": f"bytes={offset}-{end - 1}"}
        url = entry.content_url or (await self._fresh(entry)).content_url
        try:
            request = Request("GET", url, headers, bulk=True, expected=end - offset)
            answer = await self._requester.ask_url(request)
        except (RangeNotSatisfiable, NotFound) as error:
            raise Stale(f"{str(entry.location)!r} was replaced or removed: {error}") from error
        if answer.status != 206:
            return self._slice(entry, answer.body, offset, end)
        found = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
        total = found.group(3) if found else "*"
        if len(answer.body) != end - offset or total not in ("*", str(entry.size)):
            raise Stale(f"{str(entry.location)!r} is no longer {entry.size} bytes long.")
        return answer.body

    def _slice(self, entry: Entry, content: bytes, offset: int, end: int) -> bytes:
        if len(content) != entry.size:
            raise Stale(f"{str(entry.location)!r} is no longer {entry.size} bytes long.")
        if (offset, end) == (0, entry.size):
            return content
        if entry.size <= _KEPT_WHOLE:
            self._whole = (entry, content)
        return content[offset:end]

    async def _fresh(self, entry: Entry) -> Entry:
        try:
            fresh = await self.stat(entry.location)
        except NotFound as error:
            raise Stale(f"{str(entry.location)!r} was removed.") from error
        if not _same(fresh, entry):
            raise Stale(f"{str(entry.location)!r} was replaced.")
        return fresh

    async def _list_buckets(self) -> Listing:
        answer = await self._requester.ask(Request("GET", self._targets.files()))
        return listing_of(Location(""), parse.bucket_entries(answer.body))

    async def _stat_bucket(self, location: Location) -> Entry:
        for entry in (await self._list_buckets()).entries:
            if entry.location == location:
                return entry
        raise NotFound(f"There is no bucket {location.bucket!r}.")

    async def _exists(self, location: Location) -> bool:
        try:
            await self.stat(location)
        except NotFound:
            return False
        return True

    async def _check_target(self, location: Location, kind: Kind, *, overwrite: bool) -> None:
        try:
            there = await self.stat(location)
        except NotFound:
            return
        if not overwrite:
            raise PreconditionFailed(f"{str(location)!r} exists.")
        if (there.kind is Kind.DIRECTORY) != (kind is Kind.DIRECTORY):
            reason = "is-directory" if there.kind is Kind.DIRECTORY else "not-directory"
            raise Conflict(f"{str(location)!r} is another kind of name.", reason)
        if kind is Kind.DIRECTORY and (await self.list_directory(location)).entries:
            raise Conflict(f"{str(location)!r} is not empty.", "not-empty")

    async def _move_file(self, entry: Entry, destination: Location) -> None:
        session = await self.open_upload(
            destination, entry.mime_type, AttributeChange(), size=entry.size
        )
        while entry.size - session.offset > _COPY_PART:
            await session.send(await self.read(entry, session.offset, _COPY_PART))
        await session.send(await self.read(entry, session.offset, _COPY_PART), final=True)
        await self.remove(entry.location, Kind.FILE)


class _PlainSession(HttpSession):
    """A session whose commit makes the held listing of its bucket old."""

    def __init__(
        self, requester: Requester, url: str, size: int, keys: KeyListings, bucket: str
    ) -> None:
        super().__init__(requester, url, size, Abilities())
        self._keys = keys
        self._bucket = bucket

    async def send(
        self, data: bytes | memoryview, *, final: bool = False, crc: int | None = None
    ) -> Entry | None:
        try:
            return await super().send(data, final=final)
        finally:
            self._keys.forget(self._bucket)


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries are one version, as far as a plain server tells."""
    return (one.location, one.size, one.created_at) == (
        other.location,
        other.size,
        other.created_at,
    )

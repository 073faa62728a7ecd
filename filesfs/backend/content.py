"""Content against a server with our extensions: reads of versions, one-request puts, sessions.

It must not keep state. What may have happened unheard is cleared up here: each method says how.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping

import trio
from msgspec.structs import replace

from filesfs.backend import digests, parse
from filesfs.backend.bulk import WORTH_IT
from filesfs.backend.connection import Buffer
from filesfs.backend.landing import Landing
from filesfs.backend.paths import Targets, quoted
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
    Whole,
    lease_clock,
)
from filesfs.errors import (
    Corrupted,
    Damaged,
    Gone,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    Stale,
    Unavailable,
    Unsupported,
)
from filesfs.wire import Extension

log = logging.getLogger(__name__)

# Servers and proxies commonly refuse more than 8 KiB of headers; larger attributes go in a body.
_HEADER_ATTRIBUTES = 4096
_CORRUPTED_TRIES = 3
# The server checks ranges up to 16 MiB by itself; longer ones that are not whole blocks would come
# without checksums. The mount reads no more than 8 MiB at a time.
_CHECKED = 16 * digests.BLOCK
# Asks the server to hold the bytes against what it stored their checksums for (RFC 9530).
_CHECK = {"Want-Content-Digest": "crc32c=10"}
_LEASED = {"Files-Lease": "1"}
_NOTHING: dict[str, str] = {}


class RichContent:
    """FilesBackend's content operations over the extensions."""

    def __init__(
        self, requester: Requester, targets: Targets, extensions: frozenset[Extension]
    ) -> None:
        self._requester = requester
        self._targets = targets
        self._extensions = extensions
        self._wish = _LEASED if Extension.LEASES in extensions else _NOTHING
        self._abilities = Abilities(
            resume=Extension.RESUME in extensions,
            digests=Extension.INTEGRITY in extensions,
            cancel=Extension.CANCEL in extensions,
            copy_base=Extension.RANGES_UPLOAD in extensions,
            full_entries=True,
        )

    async def stat(self, location: Location) -> Entry:
        """A key's full entry, a directory's too; see FilesBackend."""
        answer = await self._requester.ask(Request("GET", self._targets.of(location, "view=full")))
        return parse.file_entry(answer.body)

    async def read(
        self, entry: Entry, offset: int, length: int, arrived: Arrived | None = None
    ) -> bytes:
        if length <= 0 or offset >= entry.size:
            return b""
        end = min(offset + length, entry.size)
        if end - offset > _CHECKED:
            arrived = None  # what is returned is all of it
        parts = [
            await self._read_part(entry, start, stop, arrived)
            for start, stop in _checkable(offset, end)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_whole(self, location: Location, limit: int, known: Entry | None = None) -> Whole:
        began = lease_clock()
        answered = await self._with_entry(location, limit, known, began) if limit else None
        if answered is not None:
            return answered
        target = self._targets.of(location, "view=full")
        answer = await self._requester.ask(Request("GET", target, self._wish))
        entry, lease = parse.file_entry(answer.body), parse.lease(answer.lease, began)
        if entry.kind is Kind.DIRECTORY or entry.size > limit:
            return Whole(entry, None, lease)
        if known is not None and known.etag is not None and known.etag == entry.etag:
            return Whole(entry, None, lease)
        return Whole(entry, await self.read(entry, 0, entry.size), lease)

    async def _with_entry(
        self, location: Location, limit: int, known: Entry | None, began: float
    ) -> Whole | None:
        """Entry and content in one request; None where that needs two after all."""
        headers = {"Range": f"bytes=0-{limit - 1}", **self._wish}
        if known is not None and known.etag is not None:
            headers["If-None-Match"] = known.etag
        target = self._targets.of(location, "alt=media&view=full")
        try:
            answer = await self._requester.ask(Request("GET", target, headers))
            digests.verify(answer.headers, answer.body)
        except (RangeNotSatisfiable, Corrupted, NotFound):  # empty; damaged; a directory
            return None
        told = answer.headers.get("files-entry")
        if told is None:
            return None
        entry, lease = parse.file_entry(told), parse.lease(answer.lease, began)
        if answer.status == 304 or entry.size > limit:
            return Whole(entry, None, lease)
        if len(answer.body) != entry.size:
            return None
        return Whole(entry, bytes(answer.body), lease)

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
        mime_type = mime_type if kind is Kind.FILE else kind.value
        change = stamped(change) if only_new else change
        attributes = parse.patch_body(change)
        if len(attributes) > _HEADER_ATTRIBUTES or not mime_type.isascii():  # no header holds it
            session = await self.open_upload(
                location,
                mime_type,
                change,
                size=len(data),
                only_new=only_new,
                if_match=if_match,
                resource_id=resource_id,
            )
            entry = await session.send(data, final=True)
            assert entry is not None
            return entry
        headers = {"Content-Type": mime_type}
        if len(attributes) > 2:
            headers["Files-Attributes"] = attributes.decode()
        if resource_id is not None:
            headers["Files-Resource"] = resource_id
        if self._abilities.digests and data:
            headers["Content-Digest"] = digests.digest_of(data)
        headers |= _conditions(only_new, if_match)
        target = self._targets.of(location, "alt=media&view=full")
        request = Request("PUT", target, headers, data, bulk=len(data) > digests.BLOCK)
        tries = Tries()
        try:
            return parse.file_entry((await self._requester.ask(request, tries)).body)
        except PreconditionFailed:
            if tries.lost and (ours := await self._own_put(location, data, change, only_new)):
                return ours
            raise

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
        if size is None and Extension.DEFER_LENGTH not in self._extensions:
            raise Unsupported("This server needs the size when an upload begins.")
        self._targets.of(location)  # checks the names
        body: dict[str, object] = {
            "bucket": location.bucket,
            "key": location.key,
            "mime_type": mime_type,
            "size": size or 0,
        }
        if change:
            body["attributes"] = json.loads(parse.patch_body(change))
        if resource_id is not None:
            body["resource_id"] = resource_id
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": secrets.token_urlsafe(24),
            **_conditions(only_new, if_match),
        }
        if size is None:
            headers["Upload-Defer-Length"] = "1"
        if base is not None and self._abilities.copy_base:
            headers["Files-Base"] = base
            if begin:
                headers["Upload-Offset"] = str(begin)
        request = Request("POST", self._targets.files(), headers, json.dumps(body).encode())
        # One that is asked for again because the answer was lost is the same one.
        answer = await self._requester.ask(request)
        offset = begin if answer.number("upload-offset") == begin else 0
        url = session_url(answer.json())
        shares = answer.number("files-shares-base") == 1
        return HttpSession(self._requester, url, size, self._abilities, offset, shares=shares)

    async def _read_part(
        self, entry: Entry, offset: int, end: int, arrived: Arrived | None
    ) -> bytes:
        """Corrupted bytes are asked for again, and then the server checks them as well: whether it
        was the way or the disk decides if another try is of use.
        """
        give_up = trio.current_time() + self._requester.policy.timeout
        asked: dict[str, str] = {}
        for _ in range(_CORRUPTED_TRIES - 1):
            try:
                return await self._read_once(entry, offset, end, asked, arrived)
            except Damaged:
                raise
            except Corrupted as error:
                log.warning("%s: %s Asking again.", entry.location, error)
                if trio.current_time() >= give_up:
                    raise
                asked = _CHECK
        return await self._read_once(entry, offset, end, asked, arrived)

    async def _read_once(
        self,
        entry: Entry,
        offset: int,
        end: int,
        asked: Mapping[str, str],
        arrived: Arrived | None,
    ) -> bytes:
        query = "alt=media"
        headers = dict(asked)
        if entry.etag is not None:
            query = f"alt=media&version={quoted(entry.etag)}"
        if offset or end < entry.size:
            headers["Range"] = f"bytes={offset}-{end - 1}"
        request = Request(
            "GET",
            self._targets.of(entry.location, query),
            headers,
            bulk=True,
            expected=end - offset,
            landing=arrived and _landing(entry, offset, end, arrived),
        )
        try:
            answer = await self._requester.ask(request)
        except RangeNotSatisfiable as error:
            raise Stale(f"{str(entry.location)!r} is shorter than it was: {error}") from error
        except (NotFound, Gone) as error:
            raise Stale(f"The version {entry.etag} is no more: {error}") from error
        if _is_other(entry, answer.headers):
            raise Stale(f"{str(entry.location)!r} is at another version than {entry.etag}.")
        content = answer.body
        if answer.landed is not None:
            if answer.landed != end - offset:
                wrong = offset + answer.landed
                raise Corrupted(f"What came from byte {wrong} on does not match its crc32c.")
            return b""
        if "Range" in headers and answer.status == 200:
            content = content[offset:end]
        elif len(content) == end - offset:
            digests.verify(answer.headers, content)
        if len(content) != end - offset:
            raise Corrupted(f"{len(content)} bytes came of the {end - offset} asked for.")
        return content

    async def _stat_after_loss(self, location: Location) -> Entry:
        """What is there now, to find out whether a try whose answer was lost was done. If it was,
        this waits as its answer would have, for all who have leases."""
        target = self._targets.of(location, "view=full")
        answer = await self._requester.ask(Request("GET", target, self._requester.repeated))
        return parse.file_entry(answer.body)

    async def _own_put(
        self, location: Location, data: Buffer, change: AttributeChange, only_new: bool
    ) -> Entry | None:
        """What is there now, if it is what a put whose answer was lost has made."""
        entry = await self._stat_after_loss(location)
        if entry.size != len(data) or (only_new and not is_own(entry, change)):
            return None
        return entry if await self.read(entry, 0, entry.size) == data else None


def _checkable(start: int, end: int) -> Iterator[tuple[int, int]]:
    """A range in parts that the server can check, cut where blocks begin."""
    while start < end:
        stop = min(end, start - start % digests.BLOCK + _CHECKED)
        yield start, stop
        start = stop


def _landing(entry: Entry, offset: int, end: int, arrived: Arrived) -> Landing | None:
    """How the range may arrive block by block: of this version, checked against its sums."""
    if end - offset < WORTH_IT:
        return None
    blocks = -(-end // digests.BLOCK) - offset // digests.BLOCK

    def sums(status: int, headers: dict[str, str]) -> list[int] | None:
        # A range that the server does not know of comes as the whole file, of another length.
        if status not in (200, 206) or _is_other(entry, headers):
            return None
        told = digests.block_sums(headers)
        return told if told is not None and len(told) == blocks else None

    return Landing(offset, end, sums, arrived)


def _is_other(entry: Entry, headers: Mapping[str, str]) -> bool:
    """Whether the answer is of another version."""
    return entry.etag is not None and headers.get("etag", entry.etag) != entry.etag


def session_url(body: object) -> str:
    """The URL of a FileUploadResponse."""
    if isinstance(body, dict) and isinstance(body.get("url"), str):
        return str(body["url"])
    raise Unavailable(f"The upload session's answer holds no url: {parse.shape(body)}")


def _conditions(only_new: bool, if_match: ETag | None) -> dict[str, str]:
    headers = {}
    if only_new:
        headers["If-None-Match"] = "*"
    if if_match is not None:
        headers["If-Match"] = if_match
    return headers


def stamped(change: AttributeChange) -> AttributeChange:
    """The change with a modification time of ours, by which a lost creation is known again."""
    if change.modified_ns is not None:
        return change
    return replace(change, modified_ns=time.time_ns())


def is_own(entry: Entry, change: AttributeChange) -> bool:
    return entry.attributes.modified_ns == change.modified_ns

"""From JSON bodies to domain values, cheaply: a listing may hold 100,000 entries.

Files are decoded by msgspec, which checks every type as it goes, in a fifth of the time that a dict
takes; the pydantic models of `wire` are for the server and for tests.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from filesfs.backend.connection import Buffer
from filesfs.domain import (
    PLACE,
    AttributeChange,
    Attributes,
    Change,
    Entry,
    ETag,
    Kind,
    Lease,
    Location,
    ResourceId,
    Usage,
    kind_of,
)
from filesfs.errors import Unavailable
from filesfs.packed import Packed, common_number, pack_fields
from filesfs.wire import DIRECTORY, Operation

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_LEASE = re.compile(r"([0-9a-z-]{1,64}) ([0-9]{1,5})\Z")  # a term, milliseconds
_NO_XATTRS: dict[str, bytes] = {}
Body = dict[str, Any]
Names = list[tuple[str, Packed]]  # what is in a directory: each wire name with its entry at rest

# What the kernel can be told; everything else is no answer at all.
_Size = Annotated[int, Meta(ge=0, lt=1 << 62)]
# Whose nanoseconds have 64 bits, as all that a server makes of such has.
_Seconds = Annotated[int, Meta(ge=-(1 << 63) // 10**9, le=(1 << 63) // 10**9)]
_Nanoseconds = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Mode = Annotated[int, Meta(ge=0, le=0o7777)]
Number = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]  # owner, group, links


class _Attributed(msgspec.Struct, gc=False, kw_only=True):
    """What FullFileResponse and FullBucketResponse have in common."""

    etag: str | None = None
    modified_ns: _Nanoseconds | None = None
    changed_ns: _Nanoseconds | None = None
    accessed_ns: _Nanoseconds | None = None
    mode: _Mode | None = None
    uid: Number | None = None
    gid: Number | None = None
    nlink: Number = 1
    resource_id: str | None = None
    xattrs: dict[str, str] | None = None
    read_only: bool = False


class _File(_Attributed, gc=False, kw_only=True):
    """FileResponse, and what FullFileResponse adds to it."""

    bucket: str
    key: str
    mime_type: str
    url: str
    bytes: _Size
    created_at: _Seconds


class _Bucket(_Attributed, gc=False, kw_only=True):
    """BucketResponse, and what FullBucketResponse adds to it."""

    name: str
    created_at: _Seconds = 0


class _Buckets(msgspec.Struct):
    """ListBucketsResponse."""

    data: list[_Bucket]


class _Usage(msgspec.Struct):
    """UsageResponse."""

    total_bytes: _Size
    free_bytes: _Size
    files: _Size
    reserved_bytes: _Size | None = None


class _Event(msgspec.Struct):
    """ChangeEvent."""

    operation: Operation
    keys: Annotated[list[tuple[str, str]], Meta(min_length=1)]
    resource_id: str | None = None
    etag: str | None = None
    origin: str = ""


class _Page(msgspec.Struct, gc=False):
    """A listing: of a whole bucket, or with `delimiter=/` of one directory."""

    data: list[_File]
    common_prefixes: list[_File] = []
    has_more: bool = False


class Row(msgspec.Struct, gc=False, array_like=True):
    """An entry of a directory as `Files-Rows` has it: a name, and what differs from the others."""

    name: str
    mime_type: str
    bytes: _Size
    created_at: _Seconds
    etag: str
    resource_id: str
    nlink: Number
    mode: _Mode | None
    uid: Number | None
    gid: Number | None
    modified_ns: _Nanoseconds
    changed_ns: _Nanoseconds
    accessed_ns: _Nanoseconds
    xattrs: dict[str, str] | None


class Rows(msgspec.Struct, gc=False):
    """A page of them. `url`: what stands before and behind bucket and key in each one's."""

    rows: list[Row]
    url: tuple[str, str]
    has_more: bool


class _LookedUp(_File, gc=False, kw_only=True):
    """FullFileResponse, of a directory perhaps with what is in it."""

    listing: Rows | None = None


_file = msgspec.json.Decoder(_File)
_looked_up = msgspec.json.Decoder(_LookedUp)
_page = msgspec.json.Decoder(_Page)
_bucket = msgspec.json.Decoder(_Bucket)
_buckets = msgspec.json.Decoder(_Buckets)
_usage = msgspec.json.Decoder(_Usage)
_event = msgspec.json.Decoder(_Event)
MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)  # the last: nested without end


def file_entry(body: Buffer | str) -> Entry:
    """A FileResponse or FullFileResponse."""
    try:
        return _entry(_file.decode(body))
    except MALFORMED as error:
        raise malformed(body, error) from error


def looked_up(body: Buffer) -> tuple[Entry, Names | None]:
    """An entry; of a directory, where it came along, also what is in it."""
    try:
        file = _looked_up.decode(body)
        entry = _entry(file)
        listing = file.listing
        if listing is None or listing.has_more:
            return entry, None
        return entry, names_of(listing.rows, listing.url, entry.location)
    except MALFORMED as error:
        raise malformed(body, error) from error


def names_of(rows: Sequence[Row], url: tuple[str, str], directory: Location) -> Names:
    """No Entry is made of any, which would take as long as all that is done here."""
    base = f"{directory.key}/" if directory.key else ""
    shared = PLACE.join(url)
    files: dict[str, int] = {}  # the numbers of what they share, by mime type
    directories: dict[str, int] = {}
    found = []
    for row in rows:
        name, mime_type, commons = row.name, row.mime_type, files
        if name[-1:] == "/":
            name, commons = name[:-1], directories
        common = commons.get(mime_type)
        if common is None:
            kind = kind_of(mime_type) if commons is files else Kind.DIRECTORY
            common = common_number(directory.bucket, kind, mime_type, shared)
            commons[mime_type] = common
        found.append((name, _packed(row, common, base + name)))
    return found


def _packed(row: Row, common: int, key: str) -> Packed:
    return pack_fields(
        (
            common,
            key,
            None,  # the url: it is the common one
            row.bytes,
            row.created_at,
            row.etag,
            row.resource_id,
            row.nlink,
            False,  # what is read-only does not come in rows
            row.mode,
            row.uid,
            row.gid,
            row.modified_ns,
            row.changed_ns,
            row.accessed_ns,
            _xattrs(row.xattrs) if row.xattrs else None,
        )
    )


def listing_page(body: Buffer) -> tuple[list[Entry], str, bool]:
    """One page of a listing: entries, the last key, whether more follow."""
    try:
        page = _page.decode(body)
        entries = [_entry(each) for each in page.data]
        entries.extend(_entry(each) for each in page.common_prefixes)
    except MALFORMED as error:
        raise malformed(body, error) from error
    last = max((each.key for each in (*page.data[-1:], *page.common_prefixes[-1:])), default="")
    return entries, last, page.has_more


def _entry(file: _File) -> Entry:
    key, mime_type = file.key, sys.intern(file.mime_type)
    is_directory = key.endswith("/")
    if is_directory:
        key = key[:-1]
    location = Location(sys.intern(file.bucket), key)
    kind = Kind.DIRECTORY if is_directory else kind_of(mime_type)
    before, found, behind = file.url.rpartition(f"{file.bucket}/{file.key}")
    url = sys.intern(before + PLACE + behind) if found else file.url
    if file.etag is None:  # a plain server's
        return Entry(location, kind, file.bytes, mime_type, file.created_at, url)
    return Entry(
        location,
        kind,
        file.bytes,
        mime_type,
        file.created_at,
        url,
        ETag(file.etag),
        ResourceId(file.resource_id) if file.resource_id is not None else None,
        file.nlink,
        _attributes(file),
        file.read_only,
    )


def bucket_entry(body: Buffer) -> Entry:
    """A BucketResponse or FullBucketResponse."""
    try:
        return _bucket_entry(_bucket.decode(body))
    except MALFORMED as error:
        raise malformed(body, error) from error


def bucket_entries(body: Buffer) -> list[Entry]:
    """A ListBucketsResponse, by name."""
    try:
        entries = [_bucket_entry(each) for each in _buckets.decode(body).data]
    except MALFORMED as error:
        raise malformed(body, error) from error
    return sorted(entries, key=lambda entry: entry.location.bucket)


def _bucket_entry(bucket: _Bucket) -> Entry:
    is_full = bucket.resource_id is not None
    return Entry(
        Location(bucket.name),
        Kind.DIRECTORY,
        0,
        DIRECTORY,
        bucket.created_at,
        etag=ETag(bucket.etag) if bucket.etag is not None else None,
        resource_id=ResourceId(bucket.resource_id) if bucket.resource_id is not None else None,
        nlink=bucket.nlink,
        attributes=_attributes(bucket) if is_full else Attributes(),
        read_only=bucket.read_only,
    )


def directory(location: Location) -> Entry:
    """A directory of which nothing but its existence is known."""
    return Entry(location, Kind.DIRECTORY, 0, DIRECTORY, 0)


def usage(body: Buffer) -> Usage:
    """A UsageResponse."""
    try:
        told = _usage.decode(body)
    except MALFORMED as error:
        raise malformed(body, error) from error
    return Usage(told.total_bytes, told.free_bytes, told.files, told.reserved_bytes or 0)


def change_event(data: str, cursor: str, origin: str) -> Change:
    """A ChangeEvent; `origin` is this client's own."""
    try:
        event = _event.decode(data)
    except MALFORMED as error:
        raise malformed(data, error) from error
    return Change(
        event.operation,
        tuple(Location(bucket, key.rstrip("/")) for bucket, key in event.keys),
        ResourceId(event.resource_id) if event.resource_id else None,
        ETag(event.etag) if event.etag else None,
        event.origin == origin,
        cursor,
        any(not key or key.endswith("/") for _, key in event.keys),
    )


def lease(told: str, began: float) -> Lease | None:
    """Files-Lease, of a request that was sent at `began`; None where there is none."""
    found = _LEASE.match(told)
    if found is None:
        return None
    span = int(found[2]) / 1000
    return Lease(found[1], began + span, span)


def patch_body(change: AttributeChange) -> bytes:
    """The JSON of wire.AttributesPatch: only what changes. ASCII, so that a header can hold it."""
    body: Body = {}
    for name in ("mode", "uid", "gid", "modified_ns", "accessed_ns", "mime_type"):
        if (value := getattr(change, name)) is not None:
            body[name] = value
    if change.xattrs is not None:
        body["xattrs"] = {
            name: None if value is None else base64.b64encode(value).decode()
            for name, value in change.xattrs.items()
        }
    return _COMPACT.encode(body).encode()


def _attributes(file: _Attributed) -> Attributes:
    return Attributes(
        file.mode,
        file.uid,
        file.gid,
        file.modified_ns,
        file.changed_ns,
        file.accessed_ns,
        _xattrs(file.xattrs) if file.xattrs else _NO_XATTRS,
    )


def _xattrs(values: dict[str, str]) -> dict[str, bytes]:
    return {name: _decoded(value) for name, value in values.items()}


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{value[:40]!r} is no base64") from error


def malformed(body: object, error: Exception) -> Unavailable:
    return Unavailable(f"The answer lacks what the API promises ({error!r}): {shape(body)}")


def shape(body: object) -> str:
    """What an answer is like, for a message: without values, since a url may be signed."""
    if isinstance(body, dict):
        return f"an object of {', '.join(map(str, body))}"[:200] if body else "an empty object"
    return type(body).__name__

"""From JSON bodies to domain values, cheaply: a listing may hold 100,000 entries.

Files are decoded by msgspec, which checks every type as it goes, in a fifth of the time that a dict
takes; the pydantic models of `wire` are for the server and for tests.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from typing import Any

import msgspec
import pydantic_core

from filesfs.backend.connection import Buffer
from filesfs.domain import (
    PLACE,
    AttributeChange,
    Attributes,
    Change,
    Entry,
    ETag,
    Kind,
    Location,
    ResourceId,
    Usage,
    kind_of,
)
from filesfs.errors import Unavailable
from filesfs.wire import DIRECTORY, Operation

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_NO_XATTRS: dict[str, bytes] = {}
Body = dict[str, Any]


class _File(msgspec.Struct, gc=False):
    """FileResponse, and what FullFileResponse adds to it."""

    bucket: str
    key: str
    mime_type: str
    url: str
    bytes: int
    created_at: int
    etag: str | None = None
    modified_ns: int | None = None
    changed_ns: int | None = None
    accessed_ns: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    nlink: int = 1
    resource_id: str | None = None
    xattrs: dict[str, str] | None = None
    read_only: bool = False


class _Page(msgspec.Struct, gc=False):
    """A listing: of a whole bucket, or with `delimiter=/` of one directory."""

    data: list[_File]
    common_prefixes: list[_File] = []
    has_more: bool = False


_file = msgspec.json.Decoder(_File)
_page = msgspec.json.Decoder(_Page)


def file_entry(body: Buffer | str) -> Entry:
    """A FileResponse or FullFileResponse."""
    try:
        return _entry(_file.decode(body))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _malformed(bytes(body, "utf-8") if isinstance(body, str) else body, error) from error


def listing_page(body: Buffer) -> tuple[list[Entry], str, bool]:
    """One page of a listing: entries, the last key, whether more follow."""
    try:
        page = _page.decode(body)
        entries = [_entry(each) for each in page.data]
        entries.extend(_entry(each) for each in page.common_prefixes)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _malformed(body, error) from error
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


def bucket_entry(body: Body) -> Entry:
    """A BucketResponse or FullBucketResponse."""
    try:
        is_full = "resource_id" in body
        return Entry(
            Location(body["name"]),
            Kind.DIRECTORY,
            0,
            DIRECTORY,
            body.get("created_at", 0),
            etag=ETag(body["etag"]) if is_full else None,
            resource_id=ResourceId(body["resource_id"]) if is_full else None,
            nlink=body.get("nlink", 1),
            attributes=_bucket_attributes(body) if is_full else Attributes(),
            read_only=body.get("read_only", False),
        )
    except (KeyError, TypeError) as error:
        raise _malformed(body, error) from error


def directory(location: Location) -> Entry:
    """A directory of which nothing but its existence is known."""
    return Entry(location, Kind.DIRECTORY, 0, DIRECTORY, 0)


def usage(body: Body) -> Usage:
    """A UsageResponse."""
    try:
        reserved = body.get("reserved_bytes") or 0
        return Usage(body["total_bytes"], body["free_bytes"], body["files"], reserved)
    except (KeyError, TypeError) as error:
        raise _malformed(body, error) from error


def change_event(data: str, cursor: str, origin: str) -> Change:
    """A ChangeEvent; `origin` is this client's own."""
    body: Any = data
    try:
        body = pydantic_core.from_json(data)
        if not body["keys"]:
            raise ValueError("it tells of no name")
        return Change(
            Operation(body["operation"]),
            tuple(Location(bucket, key.rstrip("/")) for bucket, key in body["keys"]),
            ResourceId(body["resource_id"]) if body.get("resource_id") else None,
            ETag(body["etag"]) if body.get("etag") else None,
            body.get("origin", "") == origin,
            cursor,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _malformed(body, error) from error


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


def _attributes(file: _File) -> Attributes:
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


def _bucket_attributes(body: Body) -> Attributes:
    names = ("mode", "uid", "gid", "modified_ns", "changed_ns", "accessed_ns")
    values = {name: body[name] for name in names}
    return Attributes(**values, xattrs=_xattrs(body["xattrs"] or {}))


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{value[:40]!r} is no base64") from error


def _malformed(body: object, error: Exception) -> Unavailable:
    return Unavailable(f"The answer lacks what the API promises ({error!r}): {shape(body)}")


def shape(body: object) -> str:
    """What an answer is like, for a message: without values, since a url may be signed."""
    if isinstance(body, dict):
        return f"an object of {', '.join(map(str, body))}"[:200] if body else "an empty object"
    return type(body).__name__

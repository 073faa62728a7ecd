"""From JSON bodies to domain values, cheaply: a listing may hold 100,000 entries.

It must not check more than what a wrong value would break: the pydantic models of `wire` are for
the server and for tests.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pydantic_core

from filesfs.domain import (
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

_NO_ATTRIBUTES = Attributes()
_COMPACT = json.JSONEncoder(separators=(",", ":"))
_NO_XATTRS: dict[str, bytes] = {}
Body = dict[str, Any]


def file_entry(body: Body) -> Entry:
    """A FileResponse or FullFileResponse."""
    try:
        return next(file_entries((body,)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _malformed(body, error) from error


def file_entries(bodies: Iterable[Body]) -> Iterator[Entry]:
    """Entries of FileResponse or FullFileResponse bodies, in their order."""
    for body in bodies:
        key: str = body["key"]
        is_directory = key.endswith("/")
        mime_type: str = body["mime_type"]
        etag = body.get("etag")
        yield Entry(
            Location(body["bucket"], key[:-1] if is_directory else key),
            Kind.DIRECTORY if is_directory else kind_of(mime_type),
            body["bytes"],
            mime_type,
            body["created_at"],
            body["url"],
            ETag(etag) if etag else None,
            ResourceId(body["resource_id"]) if etag else None,
            body["nlink"] if etag else 1,
            _attributes(body) if etag else _NO_ATTRIBUTES,
            body.get("read_only", False),
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
            attributes=_attributes(body) if is_full else _NO_ATTRIBUTES,
            read_only=body.get("read_only", False),
        )
    except (KeyError, TypeError) as error:
        raise _malformed(body, error) from error


def directory(location: Location) -> Entry:
    """A directory of which nothing but its existence is known."""
    return Entry(location, Kind.DIRECTORY, 0, DIRECTORY, 0)


def listing_page(body: Body) -> tuple[list[Entry], str, bool]:
    """One page of a `delimiter=/` listing: entries, the last key, whether more follow."""
    try:
        files, prefixes = body["data"], body.get("common_prefixes", [])
        entries = list(file_entries(files))
        entries.extend(file_entries(prefixes))
        last = max((each["key"] for each in (*files[-1:], *prefixes[-1:])), default="")
        return entries, last, bool(body.get("has_more", False))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _malformed(body, error) from error


def usage(body: Body) -> Usage:
    """A UsageResponse."""
    try:
        return Usage(body["total_bytes"], body["free_bytes"], body["files"])
    except (KeyError, TypeError) as error:
        raise _malformed(body, error) from error


def change_event(data: str, cursor: str, origin: str) -> Change:
    """A ChangeEvent; `origin` is this client's own."""
    body = pydantic_core.from_json(data)
    try:
        return Change(
            Operation(body["operation"]),
            tuple(Location(bucket, key.rstrip("/")) for bucket, key in body["keys"]),
            ResourceId(body["resource_id"]) if body.get("resource_id") else None,
            ETag(body["etag"]) if body.get("etag") else None,
            body.get("origin", "") == origin,
            cursor,
        )
    except (KeyError, TypeError, ValueError) as error:
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


def _attributes(body: Body) -> Attributes:
    xattrs = body["xattrs"]
    return Attributes(
        body["mode"],
        body["uid"],
        body["gid"],
        body["modified_ns"],
        body["changed_ns"],
        body["accessed_ns"],
        {name: _decoded(value) for name, value in xattrs.items()} if xattrs else _NO_XATTRS,
    )


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{value[:40]!r} is no base64") from error


def _malformed(body: object, error: Exception) -> Unavailable:
    return Unavailable(f"The answer lacks what the API promises ({error!r}): {str(body)[:200]}")

"""What a journal record says, and its form as JSON. Pure: no I/O, no policy.

A field that is added must have a default, so that an older journal still reads; a change that an
older filesfs would misread needs a new FORMAT. Format 1 had no `after`, and replaced a record whose
upload was under way.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from typing import Any, NewType

from msgspec.structs import asdict

from filesfs.domain import AttributeChange, Entry, ETag, Kind, Location, ResourceId
from filesfs.wire import is_registered

FORMAT = 2

JournalId = NewType("JournalId", int)


@dataclass(frozen=True, slots=True)
class Payload:
    """The content of an upload: dirty ranges over the base below `base_end` over zeros.

    The dirty bytes are in the spool file, or if `spool` is "" they are `data`, range after range.
    """

    spool: str
    data: bytes
    size: int
    base_size: int
    base_end: int
    extents: tuple[tuple[int, int], ...]
    mime_type: str
    base: Entry | None
    resource_id: ResourceId | None
    only_new: bool
    if_match: ETag | None


@dataclass(frozen=True, slots=True)
class Record:
    """One file's content (`payload`) or attributes that the server does not have yet.

    `after` is the record of the same file that must be stored before this one.
    """

    id: JournalId
    location: Location
    time: int  # Unix seconds when it was kept
    change: AttributeChange
    payload: Payload | None = None  # None: the attributes alone change
    after: JournalId | None = None

    def __str__(self) -> str:
        return f"{'attributes' if self.payload is None else 'content'} of {self.location}"

    def once_dressed(self, entry: Entry) -> Record:
        """The record once the attributes before it are there, with which the file is `entry`."""
        base = self.payload.base if self.payload is not None else None
        if base is None or not same_version(entry, base):
            return replace(self, after=None)
        return self.once_stored(entry)

    def once_stored(self, entry: Entry) -> Record:
        """The record once its predecessor is the version `entry`: what was clean over the
        predecessor's base is the same there.
        """
        if self.payload is None:
            return replace(self, after=None)
        payload = replace(
            self.payload,
            base=entry,
            base_size=entry.size,
            resource_id=entry.resource_id,
            only_new=False,
            if_match=None,
        )
        return replace(self, payload=payload, after=None)


def same_version(dressed: Entry, entry: Entry) -> bool:
    """Whether attributes met the version `entry` that they were for, and not another client's. In a
    registered location they make another version of it, of the same file in the same size.
    """
    if dressed.etag == entry.etag:
        return True
    known = dressed.resource_id is not None and is_registered(dressed.resource_id)
    return known and (dressed.resource_id, dressed.size) == (entry.resource_id, entry.size)


def done(line: dict[str, Any]) -> JournalId | None:
    """The record that a line of the log crosses out; None: the line is a record."""
    id: JournalId | None = line.get("stored", line.get("forget"))
    return id


def to_json(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "location": _from_location(record.location),
        "time": record.time,
        "change": _from_change(record.change),
        "payload": record.payload and _from_payload(record.payload),
        "after": record.after,
    }


def from_json(data: dict[str, Any]) -> Record:
    """KeyError, TypeError or ValueError for what is not a record."""
    payload = data["payload"]
    return Record(
        id=JournalId(data["id"]),
        location=_to_location(data["location"]),
        time=data["time"],
        change=_to_change(data["change"]),
        payload=_to_payload(payload) if payload else None,
        after=data.get("after"),
    )


def _from_location(location: Location) -> list[str]:
    return [location.bucket, location.key]


def _to_location(data: list[str]) -> Location:
    bucket, key = data
    return Location(bucket, key)


def _from_change(change: AttributeChange) -> dict[str, Any]:
    data = {name: value for name, value in asdict(change).items() if value is not None}
    if change.xattrs is not None:
        data["xattrs"] = {
            name: None if value is None else b64encode(value).decode()
            for name, value in change.xattrs.items()
        }
    return data


def _to_change(data: dict[str, Any]) -> AttributeChange:
    xattrs = data.get("xattrs")
    if xattrs is not None:
        xattrs = {
            name: None if value is None else b64decode(value) for name, value in xattrs.items()
        }
    return AttributeChange(**{**data, "xattrs": xattrs})


def _from_payload(payload: Payload) -> dict[str, Any]:
    names = ("spool", "size", "base_size", "base_end", "extents", "mime_type")
    data = {name: getattr(payload, name) for name in names}
    data |= {name: getattr(payload, name) for name in ("resource_id", "only_new", "if_match")}
    base = payload.base and entry_to_json(payload.base)
    return data | {"base": base, "data": b64encode(payload.data).decode()}


def _to_payload(data: dict[str, Any]) -> Payload:
    extents = tuple((start, end) for start, end in data["extents"])
    base = entry_from_json(data["base"]) if data["base"] else None
    inline = b64decode(data["data"])
    return Payload(**{**data, "extents": extents, "base": base, "data": inline})


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """What it takes to read the version again; attributes do not matter for that."""
    names = ("size", "mime_type", "created_at", "url", "etag", "resource_id")
    data = {name: getattr(entry, name) for name in names}
    return data | {"location": _from_location(entry.location), "kind": entry.kind.value}


def entry_from_json(data: dict[str, Any]) -> Entry:
    location, kind = _to_location(data["location"]), Kind(data["kind"])
    return Entry(**{**data, "location": location, "kind": kind})

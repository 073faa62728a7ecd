"""What a journal record says, and its form as JSON. Pure: no I/O, no policy.

A field that is added must have a default, so that an older journal still reads; a change that an
older filesfs would misread needs a new FORMAT.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from msgspec.structs import asdict

from filesfs.domain import AttributeChange, Entry, ETag, Kind, Location, ResourceId

FORMAT = 1

JournalId = NewType("JournalId", int)


class RecordKind(StrEnum):
    """What is to be done at the server."""

    UPLOAD = "upload"
    RENAME = "rename"
    UNLINK = "unlink"
    ATTRIBUTES = "attributes"
    MKDIR = "mkdir"


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
    """One thing that the server does not have yet. `expected`: the version that it was decided
    on.
    """

    id: JournalId
    kind: RecordKind
    location: Location
    time: int  # Unix seconds when it was kept
    change: AttributeChange = field(default_factory=AttributeChange)
    what: Kind = Kind.FILE
    destination: Location | None = None  # of a rename
    overwrite: bool = True  # of a rename
    expected: ETag | None = None
    payload: Payload | None = None  # of an upload

    @property
    def locations(self) -> tuple[Location, ...]:
        """The names that it is about."""
        return (self.location,) if self.destination is None else (self.location, self.destination)

    def __str__(self) -> str:
        return f"{self.kind} of " + " to ".join(map(str, self.locations))


def to_json(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "kind": record.kind,
        "location": _from_location(record.location),
        "time": record.time,
        "change": _from_change(record.change),
        "what": record.what.value,
        "destination": record.destination and _from_location(record.destination),
        "overwrite": record.overwrite,
        "expected": record.expected,
        "payload": record.payload and _from_payload(record.payload),
    }


def from_json(data: dict[str, Any]) -> Record:
    """KeyError, TypeError or ValueError for what is not a record."""
    destination, payload = data["destination"], data["payload"]
    return Record(
        id=JournalId(data["id"]),
        kind=RecordKind(data["kind"]),
        location=_to_location(data["location"]),
        time=data["time"],
        change=_to_change(data["change"]),
        what=Kind(data["what"]),
        destination=_to_location(destination) if destination else None,
        overwrite=data["overwrite"],
        expected=data["expected"],
        payload=_to_payload(payload) if payload else None,
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
    base = payload.base and _from_entry(payload.base)
    return data | {"base": base, "data": b64encode(payload.data).decode()}


def _to_payload(data: dict[str, Any]) -> Payload:
    extents = tuple((start, end) for start, end in data["extents"])
    base = _to_entry(data["base"]) if data["base"] else None
    inline = b64decode(data["data"])
    return Payload(**{**data, "extents": extents, "base": base, "data": inline})


def _from_entry(entry: Entry) -> dict[str, Any]:
    """What it takes to read the version again; attributes do not matter for that."""
    names = ("size", "mime_type", "created_at", "url", "etag", "resource_id")
    data = {name: getattr(entry, name) for name in names}
    return data | {"location": _from_location(entry.location), "kind": entry.kind.value}


def _to_entry(data: dict[str, Any]) -> Entry:
    location, kind = _to_location(data["location"]), Kind(data["kind"])
    return Entry(**{**data, "location": location, "kind": kind})

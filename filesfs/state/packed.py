"""Entries at rest: one `bytes` each, since a million of them are kept for the kernel's sake.

Pure but for what it remembers of the last entry, and of what entries have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, NewType

import msgspec

from filesfs.domain import PLACE, Attributes, Entry, ETag, Kind, Location, ResourceId

Packed = NewType("Packed", bytes)

_NO_XATTRS: dict[str, bytes] = {}


class _Common(NamedTuple):
    """What thousands of entries share: there are about as many as buckets times mime types."""

    bucket: str
    kind: Kind
    mime_type: str
    url: str


class _Form(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is packed. `url` is None where it is the common one."""

    common: int
    key: str
    url: str | None
    size: int
    created_at: int
    etag: str | None
    resource_id: str | None
    nlink: int
    read_only: bool
    mode: int | None
    uid: int | None
    gid: int | None
    modified_ns: int | None
    changed_ns: int | None
    accessed_ns: int | None
    xattrs: Mapping[str, bytes] | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Form).decode


class _Packer:
    def __init__(self) -> None:
        self._commons: list[_Common] = []
        self._numbers: dict[tuple[str, str, str, str], int] = {}
        # One request comes back to one entry again and again, from its directory and its node.
        self._last: tuple[Entry | None, Packed] = (None, Packed(b""))

    def pack(self, entry: Entry) -> Packed:
        if entry is self._last[0]:
            return self._last[1]
        attributes = entry.attributes
        shares = not entry.url or PLACE in entry.url
        common = self._number(entry, entry.url if shares else "")
        form = _Form(
            common,
            entry.location.key,
            None if shares else entry.url,
            entry.size,
            entry.created_at,
            entry.etag,
            entry.resource_id,
            entry.nlink,
            entry.read_only,
            attributes.mode,
            attributes.uid,
            attributes.gid,
            attributes.modified_ns,
            attributes.changed_ns,
            attributes.accessed_ns,
            attributes.xattrs or None,
        )
        packed = Packed(_encode(form))
        self._last = (entry, packed)
        return packed

    def unpack(self, packed: Packed) -> Entry:
        if packed is self._last[1] and self._last[0] is not None:
            return self._last[0]
        form = _decode(packed)
        common = self._commons[form.common]
        attributes = Attributes(
            form.mode,
            form.uid,
            form.gid,
            form.modified_ns,
            form.changed_ns,
            form.accessed_ns,
            form.xattrs or _NO_XATTRS,
        )
        entry = Entry(
            Location(common.bucket, form.key),
            common.kind,
            form.size,
            common.mime_type,
            form.created_at,
            common.url if form.url is None else form.url,
            ETag(form.etag) if form.etag is not None else None,
            ResourceId(form.resource_id) if form.resource_id is not None else None,
            form.nlink,
            attributes,
            form.read_only,
        )
        self._last = (entry, packed)
        return entry

    def _number(self, entry: Entry, url: str) -> int:
        bucket, mime_type = entry.location.bucket, entry.mime_type
        known_by = (bucket, entry.kind.value, mime_type, url)
        number = self._numbers.get(known_by)
        if number is None:
            number = self._numbers[known_by] = len(self._commons)
            self._commons.append(_Common(bucket, entry.kind, mime_type, url))
        return number


_packer = _Packer()


def pack(entry: Entry) -> Packed:
    """The entry at rest."""
    return _packer.pack(entry)


def unpack(packed: Packed) -> Entry:
    """The entry again, equal to what was packed."""
    return _packer.unpack(packed)

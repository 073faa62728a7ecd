"""Entries at rest: one `bytes` each, since a million of them are kept for the kernel's sake.

Pure but for what it remembers of the last entries, and of what entries have in common. A leaf, as
`domain` is: listings are packed where they are read, and no entry is made of what nobody looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NewType, TypeAlias, cast

import msgspec

from filesfs.domain import PLACE, Attributes, Entry, ETag, Kind, Lease, Location, ResourceId

Packed = NewType("Packed", bytes)

_NO_XATTRS: dict[str, bytes] = {}
_REMEMBERED = 64  # entries: what a few requests at a time come back to


class _Common(NamedTuple):
    """What thousands of entries share: there are about as many as buckets times mime types."""

    bucket: str
    kind: Kind
    mime_type: str
    url: str


class Form(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is packed. `common` is the number of what it shares; `url` is None where it is shared.
    The rest is Entry's and Attributes', `xattrs` None where there are none.
    """

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


_Fields: TypeAlias = tuple[  # a Form's, in its order
    int, str, str | None, int, int, str | None, str | None, int, bool, int | None, int | None,
    int | None, int | None, int | None, int | None, Mapping[str, bytes] | None,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory as of `cursor`: what is in it by wire name, in the order of these, at rest.
    `resource_id` is the directory's, where it came with another one's listing.
    """

    location: Location
    at_rest: Mapping[str, Packed]
    cursor: str = ""
    resource_id: ResourceId | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of it unpacked."""
        return tuple(map(unpack, self.at_rest.values()))


@dataclass(frozen=True, slots=True)
class Many:
    """Small files of one directory, as of `cursor` or later: entries at rest and content, each by
    wire name, in the order that they were asked for in. What the server left out is missing.
    """

    location: Location
    at_rest: Mapping[str, Packed]
    contents: Mapping[str, memoryview]
    cursor: str = ""
    lease: Lease | None = None  # of all of them


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Form).decode


class _Packer:
    def __init__(self) -> None:
        self._commons: list[_Common] = []
        self._numbers: dict[tuple[str, str, str, str], int] = {}
        # Requests come back to an entry again and again, from its directory and its node, and to
        # the directories above it. Both ways, the second by id() of an entry that it holds.
        self._unpacked: dict[Packed, Entry] = {}
        self._packed: dict[int, tuple[Entry, Packed]] = {}

    def pack(self, entry: Entry) -> Packed:
        known = self._packed.get(id(entry))
        if known is not None:
            return known[1]
        attributes = entry.attributes
        shares = not entry.url or PLACE in entry.url
        location, url = entry.location, entry.url if shares else ""
        form = Form(
            self.number(location.bucket, entry.kind, entry.mime_type, url),
            location.key,
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
        self._remember(entry, packed)
        return packed

    def unpack(self, packed: Packed) -> Entry:
        known = self._unpacked.get(packed)
        if known is not None:
            return known
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
        self._remember(entry, packed)
        return entry

    def _remember(self, entry: Entry, packed: Packed) -> None:
        if len(self._packed) >= _REMEMBERED:
            self._unpacked.clear()
            self._packed.clear()
        self._unpacked[packed] = entry
        self._packed[id(entry)] = entry, packed

    def number(self, bucket: str, kind: Kind, mime_type: str, url: str) -> int:
        known_by = (bucket, kind.value, mime_type, url)
        number = self._numbers.get(known_by)
        if number is None:
            number = self._numbers[known_by] = len(self._commons)
            self._commons.append(_Common(bucket, kind, mime_type, url))
        return number

    def kind(self, form: Form) -> Kind:
        return self._commons[form.common].kind


_packer = _Packer()


def pack(entry: Entry) -> Packed:
    """The entry at rest."""
    return _packer.pack(entry)


def unpack(packed: Packed) -> Entry:
    """The entry again, equal to what was packed."""
    return _packer.unpack(packed)


def listing_of(location: Location, entries: Iterable[Entry], cursor: str = "") -> Listing:
    """These entries, in their order, as a listing."""
    return Listing(location, {entry.location.name: pack(entry) for entry in entries}, cursor)


def common_number(bucket: str, kind: Kind, mime_type: str, url: str) -> int:
    """Form.common of entries that share all this. The URL has PLACE in it, or is ""."""
    return _packer.number(bucket, kind, mime_type, url)


# For thousands of entries, where one more call of Python counts:
# as `pack`, from the fields of the form, which takes two thirds of making a Form and packing it;
pack_fields = cast("Callable[[_Fields], Packed]", _encode)
# what is packed, as it is, a third of the cost of `unpack`, where a few fields are enough;
form_of = cast("Callable[[Packed], Form]", _decode)
# and the kind of the entry that it is the form of.
kind_of_form = _packer.kind

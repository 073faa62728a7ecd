"""Frozen values that cross layers. A leaf: imports nothing of filesfs but `wire`'s constants.

What there may be a million of, or many a request, is a msgspec.Struct: made and changed
(`msgspec.structs.replace`) in a tenth of the time of a frozen dataclass, in half the memory.

It must not hold behaviour beyond what follows from the value itself, and no I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NewType

import msgspec

from filesfs import wire

Inode = NewType("Inode", int)
Handle = NewType("Handle", int)
ResourceId = NewType("ResourceId", str)
ETag = NewType("ETag", str)  # as on the wire, with its quotes
# Told of content that is there, checked, while the rest is on its way: where it begins, its bytes.
Arrived = Callable[[int, memoryview], None]


PLACE = "\0"


class Kind(Enum):
    """What a name is, by its mime type (contract, part 2)."""

    __hash__ = object.__hash__  # each is there once; Enum's own goes through Python

    FILE = ""
    DIRECTORY = wire.DIRECTORY
    SYMLINK = wire.SYMLINK
    FIFO = wire.FIFO
    SOCKET = wire.SOCKET
    CHARDEVICE = wire.CHARDEVICE
    BLOCKDEVICE = wire.BLOCKDEVICE


# For loops over thousands: to look a member up in its class takes nine times as long, 90 ns.
FILE, DIRECTORY = Kind.FILE, Kind.DIRECTORY
DEVICES = (Kind.CHARDEVICE, Kind.BLOCKDEVICE)  # their content is their number

_KINDS = {kind.value: kind for kind in Kind if kind is not Kind.FILE}
_KINDS["application/x-directory"] = Kind.DIRECTORY


def kind_of(mime_type: str) -> Kind:
    """The kind that a mime type names; anything else is a regular file."""
    return _KINDS.get(mime_type, Kind.FILE)


class Location(msgspec.Struct, frozen=True, gc=False):
    """A name on the server. bucket "" is the root above all buckets; key "" is the bucket itself.

    Keys are wire keys (escaped), without a trailing slash, for files and directories alike.
    """

    bucket: str
    key: str = ""

    def child(self, name: str) -> Location:
        """The location of the wire name `name` in this directory."""
        if not self.bucket:
            return Location(name)
        return Location(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2] if self.key else self.bucket

    @property
    def parent(self) -> Location:
        """The directory that holds this location; the root's parent is the root."""
        if not self.key:
            return Location("")
        return Location(self.bucket, self.key.rpartition("/")[0])

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else self.bucket or "/"


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What stat(2) shows and PATCH changes. None: never set, the mount's default shows.

    Times are nanoseconds since the epoch; mode is the 12 permission bits.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    modified_ns: int | None = None
    changed_ns: int | None = None
    accessed_ns: int | None = None
    xattrs: Mapping[str, bytes] = {}


class AttributeChange(msgspec.Struct, frozen=True, gc=False):
    """A change of attributes. None: leave as it is. An xattr of None is removed."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    modified_ns: int | None = None
    accessed_ns: int | None = None
    xattrs: Mapping[str, bytes | None] | None = None
    mime_type: str | None = None

    def __bool__(self) -> bool:
        return self != NO_CHANGE

    def then(self, later: AttributeChange) -> AttributeChange:
        """This change followed by `later`, as one."""
        xattrs = self.xattrs
        if later.xattrs is not None:
            xattrs = {**(self.xattrs or {}), **later.xattrs}
        return AttributeChange(
            later.mode if later.mode is not None else self.mode,
            later.uid if later.uid is not None else self.uid,
            later.gid if later.gid is not None else self.gid,
            later.modified_ns if later.modified_ns is not None else self.modified_ns,
            later.accessed_ns if later.accessed_ns is not None else self.accessed_ns,
            xattrs,
            later.mime_type if later.mime_type is not None else self.mime_type,
        )

    def written(self, mode: int | None, now: int) -> AttributeChange:
        """This change followed by a write, which happens for each block of a file."""
        mode = self.mode if mode is None else mode
        return AttributeChange(
            *(mode, self.uid, self.gid, now, self.accessed_ns, self.xattrs, self.mime_type)
        )


NO_CHANGE = AttributeChange()


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What the server says of one name: a file, a directory, a link or a bucket.

    `url` is kept with PLACE for the part that is bucket and key, so that entries share it.
    `resource_id` is None on a server without rich stat, `etag` on one without versions. `cursor` is
    the change-feed cursor ("EPOCH-NUMBER") that came with the answer, "" without a feed.
    """

    location: Location
    kind: Kind
    size: int
    mime_type: str
    created_at: int
    url: str = ""
    etag: ETag | None = None
    resource_id: ResourceId | None = None
    nlink: int = 1
    attributes: Attributes = Attributes()
    read_only: bool = False

    @property
    def content_url(self) -> str:
        """Where the server says the content is read; "" if it did not say."""
        return self.url.replace(PLACE, f"{self.location.bucket}/{self.location.key}")


@dataclass(frozen=True, slots=True)
class Usage:
    """For statfs: bytes and number of files. `reserved_bytes` are free for the disk's root only."""

    total_bytes: int
    free_bytes: int
    files: int
    reserved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One event of the change feed, as the mount uses it. Locations carry no slash at their end.

    Without locations nothing has changed: all changes up to `cursor` were told.
    """

    operation: wire.Operation
    locations: tuple[Location, ...]
    resource_id: ResourceId | None
    etag: ETag | None
    own: bool  # made by this very mount
    cursor: str
    is_tree: bool = False  # of a directory or a bucket: what is below it may be meant, too
    recall: str = ""  # a term: nothing changed, the change before waits until that confirms it


class Lease(NamedTuple):
    """The server's promise that nobody else's change of a file is answered before we have heard of
    it. `until` and `span` are seconds, of `lease_clock`; all leases of a term run out together.
    """

    term: str
    until: float
    span: float


class Whole(NamedTuple):
    """A file as open() wants it: `content` if that was asked for and is no longer than that."""

    entry: Entry
    content: bytes | None
    lease: Lease | None = None


def lease_clock() -> float:
    """Seconds, those of a suspended machine too: for the server they pass."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

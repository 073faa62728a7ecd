"""What the mount needs of a Files API server. No implementation, no I/O here.

Every method raises the exceptions of `filesfs.errors` and nothing else. Each one retries what is
worth retrying until its deadline (the settings' `timeout`, 30 s), and then raises DeadlineExceeded.
Requests whose effect may have happened unheard (a lost answer) are repeated only where that is
safe: the implementation makes each of them so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from filesfs.domain import (
    Arrived,
    AttributeChange,
    Change,
    Entry,
    ETag,
    Kind,
    Lease,
    Location,
    ResourceId,
    Usage,
    Whole,
)
from filesfs.packed import Listing, Many
from filesfs.wire import Extension


class UploadSession(Protocol):
    """A running upload session. One user at a time; parts go in order."""

    @property
    def offset(self) -> int:
        """Bytes that the server has accepted."""

    async def send(
        self, data: bytes | memoryview, *, final: bool = False, crc: int | None = None
    ) -> Entry | None:
        """Append `data` at the offset; with `final` the length becomes known and the file commits.

        Resumes by itself after a broken connection: asks for the offset and sends the rest. Returns
        the committed entry when final, else None. Raises Gone when the session is lost (start
        again). `crc`: the crc32c of the whole file, which the server compares before it commits;
        InvalidRequest when it has other bytes.
        """

    @property
    def pushes(self) -> bool:
        """Whether `push` can be used."""

    async def push(self, pieces: Sequence[bytes | memoryview], crc: int) -> int:
        """Append bytes without waiting for the server's word; returns `crc` (crc32c) continued over
        them.

        They count once `settle` has returned, which comes before any other call. After Unavailable
        from either, `recover` says where to go on. Raises Gone as `send` does.
        """

    async def settle(self) -> None:
        """What was pushed is the server's, durably."""

    async def recover(self) -> int:
        """After Unavailable: the offset at which the server is, within its deadline."""

    async def copy_base(self, length: int) -> None:
        """Take the next `length` bytes from the version that the session was opened on.

        Only where the server has Extension.RANGES_UPLOAD and the session was opened with a base.
        """

    async def cancel(self) -> None:
        """Give the session up; never raises."""


class FilesBackend(Protocol):
    """A Files API server, as the mount sees it."""

    @property
    def extensions(self) -> frozenset[Extension]:
        """What OPTIONS advertised; empty for a plain server."""

    async def connect(self) -> None:
        """Probe the server once: reachable, credentials, extensions. Raises what is wrong."""

    async def aclose(self) -> None: ...

    # -- names ------------------------------------------------------------------------------------
    async def list_directory(self, location: Location) -> Listing:
        """Everything directly in a directory, the buckets for Location(""). Complete, in key order.

        Entries carry full attributes where the server has rich stat. NotFound when it does not
        exist.
        """

    async def list_walk(
        self, location: Location, levels: int, most: int
    ) -> tuple[Listing, list[Listing]]:
        """As `list_directory`; and, where the server sends them along, what is in the directories
        that a walk comes to next: those below, those behind it, and those behind `levels` - 1 of
        the directories above. Whole ones only, within `most` entries in all, and none with a file
        that has other names: not every event about it names each of them.
        """

    async def stat(self, location: Location) -> Entry:
        """What is at this name: file, directory (implied too), link, bucket; or NotFound."""

    async def look_up(self, location: Location) -> tuple[Entry, Listing | None]:
        """As `stat`; and of a small directory, where the server sends it along, what is in it."""

    async def usage(self) -> Usage: ...

    # -- content ----------------------------------------------------------------------------------
    async def read(
        self, entry: Entry, offset: int, length: int, arrived: Arrived | None = None
    ) -> bytes:
        """`length` bytes from `offset` of exactly the version `entry.etag`, fewer only at its end.

        Verified against the server's checksums where it sends them. Stale when that version is no
        more. With `arrived` a long range may come that way, piece by piece from its beginning, and
        then b"" is returned; after trouble it is told from the beginning once more.
        """

    async def read_whole(self, location: Location, limit: int, known: Entry | None = None) -> Whole:
        """Entry and content in one request; no content beyond `limit` bytes of it. Used at open().

        `known`: if the server still has this version the content part is None (304). With a lease,
        where the server grants one.
        """

    async def read_many(self, directory: Location, names: Sequence[str]) -> Many:
        """Of these wire names in a directory (at most wire.MOST_CONTENTS) the small files, with
        their content, as many as one answer holds. Only with Extension.CONTENTS.

        Content that is not what its checksum says is left out, as all else is that is not there.
        With a lease of all of them, where the server grants one. NotFound without the directory;
        Unsupported in registered locations.
        """

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
        """Create or replace a file in one round trip, attributes in the same commit.

        `resource_id`: replace that resource wherever its names are now; Gone when none is left.
        `kind` other than FILE makes a link, FIFO, socket or device with `data` as its content.
        PreconditionFailed where `only_new`/`if_match` do not hold.
        """

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
    ) -> UploadSession:
        """Begin an upload session. `size` None: not yet known (needs Extension.DEFER_LENGTH).

        `begin`: how long `base` is, where the file begins with all of it. A server that needs no
        copy for that has the session begin there; see its offset.
        """

    # -- changes of names and attributes ----------------------------------------------------------
    async def make_directory(self, location: Location, change: AttributeChange) -> Entry:
        """A directory marker, or a bucket for Location(bucket). Else Conflict("exists")."""

    async def remove(self, location: Location, kind: Kind) -> int:
        """Remove one name: file, link, empty directory or empty bucket.

        Keeps the parent (Files-Keep-Parent). The nanosecond that the server stamped the parent and
        the file's other names with, by its clock; 0 where it does not say.
        """

    async def move(
        self,
        source: Location,
        destination: Location,
        kind: Kind,
        *,
        overwrite: bool = True,
        exchange: bool = False,
    ) -> int:
        """Rename, atomic at the server where it has MOVE, by copy and delete (logged) elsewhere.

        Answers as `remove`. PreconditionFailed when `overwrite` is False and the destination
        exists. Unsupported for buckets and registered locations.
        """

    async def link(self, source: Location, destination: Location) -> Entry:
        """A hard link (BIND): the entry under its new name. Unsupported on servers without it."""

    async def set_attributes(
        self, location: Location, kind: Kind, change: AttributeChange
    ) -> Entry:
        """PATCH. On a server without it raises Unsupported: only the caller keeps the change."""

    # -- change feed ------------------------------------------------------------------------------
    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """The change feed from now on (or from the last cursor seen). Only with Extension.CHANGES.

        Entering returns once connected. The iterator ends by raising Unavailable when the
        connection is lost (10 s of silence), Gone when the epoch changed or the cursor was pruned:
        drop all clean caches.
        """

    async def extend_leases(self, term: str, heard: str = "") -> Lease | None:
        """Leases last longer, and what was changed up to the cursor `heard` is no longer leased.
        Another term: of the one asked for, nothing is.
        """

    async def return_leases(self, term: str) -> None:
        """Nobody has to wait for us any more."""

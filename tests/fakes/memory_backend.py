"""A FilesBackend in memory, with every extension and with faults on demand.

It must not do I/O: unit tests of the layers above run on it, without a kernel and without a server.

    tree = MemoryTree()
    mine, other = MemoryBackend(tree), MemoryBackend(tree, origin="other")   # two clients
    mine.faults.fail("read", Unavailable("down"), times=2)     # the next two reads raise
    mine.faults.fail("put", Unavailable("lost"), after=True)   # done, but the answer is lost
    gate = mine.faults.hold("put")       # puts wait; `await gate.reached.wait()`, `gate.open()`
    mine.faults.calls                    # [("read", Location(...)), ...]
    mine.drop_feeds(Gone("pruned"))      # every change feed of this client ends with that
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from filesfs.backend.protocol import FilesBackend
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
from filesfs.errors import FilesfsError, Gone, InvalidRequest, Stale, Unavailable, Unsupported
from filesfs.packed import Listing, Many, listing_of
from filesfs.wire import Extension
from tests.fakes.memory_tree import MemoryTree


@dataclass
class Gate:
    """Holds calls of one operation until it is opened."""

    reached: trio.Event = field(default_factory=trio.Event)
    opened: trio.Event = field(default_factory=trio.Event)

    def open(self) -> None:
        self.opened.set()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.opened.wait()


@dataclass
class _Fault:
    operation: str
    error: Exception
    times: float
    after: bool


class Faults:
    """What goes wrong, by operation name ("send", "commit" and "cancel" for upload sessions)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Location]] = []
        self._faults: list[_Fault] = []
        self._gates: dict[str, Gate] = {}

    def fail(
        self, operation: str, error: Exception, *, times: float = 1, after: bool = False
    ) -> None:
        """The next `times` calls raise `error`; `after`: once their effect is done."""
        self._faults.append(_Fault(operation, error, times, after))

    def always(self, operation: str, error: Exception) -> None:
        """Every call raises `error` until `clear`."""
        self.fail(operation, error, times=math.inf)

    def hold(self, operation: str) -> Gate:
        """Calls of `operation` wait until the gate is opened."""
        gate = self._gates[operation] = Gate()
        return gate

    def clear(self) -> None:
        self._faults.clear()
        for gate in self._gates.values():
            gate.open()
        self._gates.clear()

    def count(self, operation: str) -> int:
        return sum(1 for name, _ in self.calls if name == operation)

    async def before(self, operation: str, location: Location) -> None:
        self.calls.append((operation, location))
        await trio.lowlevel.checkpoint()
        if gate := self._gates.get(operation):
            await gate.pass_through()
        self._raise(operation, after=False)

    def after(self, operation: str) -> None:
        self._raise(operation, after=True)

    def _raise(self, operation: str, *, after: bool) -> None:
        for fault in self._faults:
            if fault.operation == operation and fault.after is after and fault.times > 0:
                fault.times -= 1
                raise fault.error


class MemoryBackend:
    """One client's view of a MemoryTree."""

    def __init__(
        self,
        tree: MemoryTree | None = None,
        *,
        origin: str = "mine",
        extensions: frozenset[Extension] = frozenset(Extension),
    ) -> None:
        self.tree = tree if tree is not None else MemoryTree()
        self.faults = Faults()
        self.origin = origin
        self.lease: Lease | None = None  # what comes with each file that is opened
        self.extended: list[tuple[str, str]] = []
        self.sends_along = False  # listings, with what their directories are
        self.usage_answer = Usage(1 << 40, 1 << 39, 0)
        self._extensions = extensions
        self._feeds: list[trio.MemorySendChannel[Change | FilesfsError]] = []

    @property
    def extensions(self) -> frozenset[Extension]:
        return self._extensions

    async def connect(self) -> None:
        await self.faults.before("connect", Location(""))

    async def aclose(self) -> None:
        self.drop_feeds(Unavailable("closed"))

    # -- names ------------------------------------------------------------------------------------
    async def list_directory(self, location: Location) -> Listing:
        await self.faults.before("list_directory", location)
        listing = listing_of(location, self.tree.children(location), self.tree.cursor)
        self.faults.after("list_directory")
        return listing

    async def list_walk(
        self, location: Location, levels: int, most: int
    ) -> tuple[Listing, list[Listing]]:
        listing = await self.list_directory(location)
        return listing, list(self._following(location, levels, most - len(listing.at_rest)))

    def _following(self, location: Location, levels: int, most: int) -> Iterator[Listing]:
        ahead = self._directories(location)[::-1]
        while True:
            while ahead:
                where = ahead.pop()
                listing = listing_of(where, self.tree.children(where), self.tree.cursor)
                most -= len(listing.at_rest) + 10
                if most < 0:
                    return
                if all(
                    entry.kind is Kind.DIRECTORY or entry.nlink < 2 for entry in listing.entries
                ):
                    resource = self.tree.stat(where).resource_id
                    yield dataclasses.replace(listing, resource_id=resource)
                ahead += self._directories(where)[::-1]
            if not levels or not location.key:
                return
            beside = self._directories(location.parent)
            ahead = [each for each in beside if each.key > location.key][::-1]
            levels, location = levels - 1, location.parent

    def _directories(self, location: Location) -> list[Location]:
        found = self.tree.children(location)
        return [each.location for each in found if each.kind is Kind.DIRECTORY]

    async def stat(self, location: Location) -> Entry:
        await self.faults.before("stat", location)
        entry = self.tree.stat(location)
        self.faults.after("stat")
        return entry

    async def look_up(self, location: Location) -> tuple[Entry, Listing | None]:
        entry = await self.stat(location)
        if entry.kind is not Kind.DIRECTORY or not location.key or not self.sends_along:
            return entry, None
        return entry, listing_of(location, self.tree.children(location), self.tree.cursor)

    async def usage(self) -> Usage:
        await self.faults.before("usage", Location(""))
        return dataclasses.replace(self.usage_answer, files=len(self.tree.names))

    async def extend_leases(self, term: str, heard: str = "") -> Lease | None:
        self.extended.append((term, heard))
        return self.lease

    async def return_leases(self, term: str) -> None:
        self.lease = None

    # -- content ----------------------------------------------------------------------------------
    async def read(
        self, entry: Entry, offset: int, length: int, arrived: Arrived | None = None
    ) -> bytes:
        await self.faults.before("read", entry.location)
        content = self.tree.versions.get(entry.etag) if entry.etag is not None else None
        if content is None:
            raise Stale(f"The version {entry.etag} of {str(entry.location)!r} is no more.")
        self.faults.after("read")
        return content[offset : offset + length]

    async def read_whole(self, location: Location, limit: int, known: Entry | None = None) -> Whole:
        if not limit:
            return Whole(await self.stat(location), None, self.lease)
        await self.faults.before("read_whole", location)
        entry = self.tree.stat(location)
        unchanged = known is not None and known.etag == entry.etag
        if entry.kind is Kind.DIRECTORY or unchanged or entry.size > limit:
            return Whole(entry, None, self.lease)
        self.faults.after("read_whole")
        return Whole(entry, self.tree.resource(location).content, self.lease)

    async def read_many(self, directory: Location, names: Sequence[str]) -> Many:
        await self.faults.before("read_many", directory)
        if Extension.CONTENTS not in self._extensions:
            raise Unsupported("This server reads one file at a time.")
        at_rest, contents = self.tree.small_files(directory, names)
        self.faults.after("read_many")
        return Many(directory, at_rest, contents, self.tree.cursor, self.lease)

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
        await self.faults.before("put", location)
        entry = self.tree.commit(
            location,
            bytes(data),
            mime_type if kind is Kind.FILE else kind.value,
            change,
            only_new=only_new,
            if_match=if_match,
            resource_id=resource_id,
            origin=self.origin,
        )
        self.faults.after("put")
        return entry

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
    ) -> MemorySession:
        await self.faults.before("open_upload", location)
        if size is None and Extension.DEFER_LENGTH not in self._extensions:
            raise Unsupported("This server needs the size when an upload begins.")
        if base is not None and base not in self.tree.versions:
            raise Gone(f"The version {base} is no more.")
        if resource_id is None:
            self.tree.check_commit(location, only_new=only_new, if_match=if_match)
        commit = partial(
            self.tree.commit,
            location,
            mime_type=mime_type,
            change=change,
            only_new=only_new,
            if_match=if_match,
            resource_id=resource_id,
            origin=self.origin,
        )
        session = MemorySession(self, location, commit, size, base)
        if base is not None and begin == len(self.tree.versions[base]):
            session.begin(begin)
        return session

    # -- changes of names and attributes ----------------------------------------------------------
    async def make_directory(self, location: Location, change: AttributeChange) -> Entry:
        await self.faults.before("make_directory", location)
        entry = self.tree.make_directory(location, change, self.origin)
        self.faults.after("make_directory")
        return entry

    async def remove(self, location: Location, kind: Kind) -> int:
        await self.faults.before("remove", location)
        self.tree.remove(location, kind, self.origin)
        self.faults.after("remove")
        return 0

    async def move(
        self,
        source: Location,
        destination: Location,
        kind: Kind,
        *,
        overwrite: bool = True,
        exchange: bool = False,
    ) -> int:
        await self.faults.before("move", source)
        self.tree.move(
            source, destination, overwrite=overwrite, exchange=exchange, origin=self.origin
        )
        self.faults.after("move")
        return 0

    async def link(self, source: Location, destination: Location) -> Entry:
        await self.faults.before("link", source)
        entry = self.tree.link(source, destination, self.origin)
        self.faults.after("link")
        return entry

    async def set_attributes(
        self, location: Location, kind: Kind, change: AttributeChange
    ) -> Entry:
        await self.faults.before("set_attributes", location)
        if Extension.PATCH not in self._extensions:
            raise Unsupported("This server keeps no attributes.")
        entry = self.tree.set_attributes(location, change, self.origin)
        self.faults.after("set_attributes")
        return entry

    # -- change feed ------------------------------------------------------------------------------
    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[Change]]:
        await self.faults.before("changes", Location(""))
        send, receive = trio.open_memory_channel[Change | FilesfsError](math.inf)

        def subscriber(origin: str, change: Change) -> None:
            send.send_nowait(dataclasses.replace(change, own=origin == self.origin))

        unsubscribe = self.tree.subscribe(subscriber)
        self._feeds.append(send)
        try:
            async with aclosing(_events(receive)) as events:
                yield events
        finally:
            unsubscribe()
            if send in self._feeds:
                self._feeds.remove(send)

    def tell(self, change: Change) -> None:
        """This client's running change feeds of something."""
        for feed in self._feeds:
            feed.send_nowait(change)

    def drop_feeds(self, error: FilesfsError) -> None:
        """End this client's running change feeds with `error`."""
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.send_nowait(error)


async def _events(
    receive: trio.MemoryReceiveChannel[Change | FilesfsError],
) -> AsyncGenerator[Change, None]:
    async for item in receive:
        if isinstance(item, FilesfsError):
            raise item
        yield item


class MemorySession:
    """An upload session of a MemoryBackend."""

    def __init__(
        self,
        backend: MemoryBackend,
        location: Location,
        commit: partial[Entry],
        size: int | None,
        base: ETag | None,
    ) -> None:
        self._backend = backend
        self._location = location
        self._commit = commit
        self._size = size
        self._base = base
        self._content = bytearray()
        self._entry: Entry | None = None
        self._cancelled = False

    @property
    def offset(self) -> int:
        return len(self._content)

    pushes = False

    async def settle(self) -> None: ...

    async def send(
        self, data: bytes | memoryview, *, final: bool = False, crc: int | None = None
    ) -> Entry | None:
        await self._backend.faults.before("send", self._location)
        self._check(len(data))
        self._content += data
        self._backend.faults.after("send")
        if not final:
            return None
        if self._size is not None and self.offset != self._size:
            raise InvalidRequest(f"{self.offset} bytes were sent of the {self._size} announced.")
        await self._backend.faults.before("commit", self._location)
        if self._entry is None:
            self._entry = self._commit(content=bytes(self._content))
        self._backend.faults.after("commit")
        return self._entry

    def begin(self, length: int) -> None:
        """The whole base is there already."""
        assert self._base is not None
        self._content += self._backend.tree.versions[self._base][:length]

    async def copy_base(self, length: int) -> None:
        await self._backend.faults.before("copy_base", self._location)
        if self._base is None:
            raise InvalidRequest("This session was opened without a base version.")
        part = self._backend.tree.versions[self._base][self.offset : self.offset + length]
        if len(part) != length:
            raise InvalidRequest(f"The base version ends before {self.offset + length} bytes.")
        self._check(length)
        self._content += part

    async def cancel(self) -> None:
        self._backend.faults.calls.append(("cancel", self._location))
        await trio.lowlevel.checkpoint()
        self._cancelled = True

    def _check(self, length: int) -> None:
        if self._cancelled:
            raise Gone("The upload session was cancelled.")
        if self._size is not None and self.offset + length > self._size:
            raise InvalidRequest(f"More than the announced {self._size} bytes.")


_conforms: type[FilesBackend] = MemoryBackend  # mypy holds the fake to the protocol

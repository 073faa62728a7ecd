"""A small in-memory server for the write path's tests: versions, sessions, conditions, and faults
on demand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio
from crc32c import crc32c
from msgspec.structs import replace

from filesfs.domain import (
    Arrived,
    AttributeChange,
    Attributes,
    Entry,
    ETag,
    Kind,
    Location,
    ResourceId,
)
from filesfs.errors import Conflict, Gone, InvalidRequest, NotFound, PreconditionFailed, Unsupported
from filesfs.wire import Extension

EVERYTHING = frozenset(Extension)
NO_CHANGE = AttributeChange()


@dataclass
class Server:
    """What the uploader and the replayer use of FilesBackend. `fault` is called before each
    request.
    """

    extensions: frozenset[Extension] = EVERYTHING
    files: dict[Location, tuple[Entry, bytes]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fault: Callable[[str], None] = lambda call: None
    sessions: list[Session] = field(default_factory=list)
    pushes: bool = False
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def called(self, call: str) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        self.fault(call)

    def store(
        self,
        location: Location,
        data: bytes,
        mime_type: str = "text/plain",
        change: AttributeChange = NO_CHANGE,
        resource_id: ResourceId | None = None,
        kind: Kind = Kind.FILE,
    ) -> Entry:
        number = next(self._numbers)
        old = self.files.get(location)
        resource = resource_id or (old[0].resource_id if old else ResourceId(f"r{number}"))
        attributes = _patched(old[0].attributes if old else Attributes(), change)
        etag = ETag(f'"{number}"')
        entry = Entry(location, kind, len(data), mime_type, 0, "", etag, resource)
        entry = replace(entry, attributes=attributes)
        self.files[location] = entry, data
        return entry

    def place(self, location: Location, resource_id: ResourceId | None) -> Location:
        if resource_id is None:
            return location
        for where, (entry, _) in self.files.items():
            if entry.resource_id == resource_id:
                return where
        raise Gone("no name is left")

    def check(self, location: Location, only_new: bool, if_match: ETag | None) -> None:
        there = self.files.get(location)
        if only_new and there:
            raise PreconditionFailed(f"{location} exists")
        if if_match and (not there or there[0].etag != if_match):
            raise PreconditionFailed(f"{location} is another version")

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
        await self.called(f"put {len(data)}")
        location = self.place(location, resource_id)
        self.check(location, only_new, if_match)
        return self.store(location, bytes(data), mime_type, change, resource_id, kind)

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
    ) -> Session:
        await self.called(f"open {size}")
        where = self.place(location, resource_id)
        self.check(where, only_new, if_match)

        def commit(data: bytes) -> Entry:
            where = self.place(location, resource_id)
            self.check(where, only_new, if_match)
            return self.store(where, data, mime_type, change, resource_id)

        old = self.files[where][1] if base else b""
        session = Session(self, size, commit, old)
        self.sessions.append(session)
        return session

    async def stat(self, location: Location) -> Entry:
        await self.called(f"stat {location}")
        if location not in self.files:
            raise NotFound(f"{location} does not exist")
        return self.files[location][0]

    async def read(
        self, entry: Entry, offset: int, length: int, arrived: Arrived | None = None
    ) -> bytes:
        await self.called("read")
        return self.files[entry.location][1][offset : offset + length]

    async def remove(self, location: Location, kind: Kind) -> int:
        await self.called(f"remove {location}")
        if self.files.pop(location, None) is None:
            raise NotFound(f"{location} does not exist")
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
        await self.called(f"move {source} {destination}")
        if source not in self.files:
            raise NotFound(f"{source} does not exist")
        self.check(destination, not overwrite, None)
        entry, data = self.files.pop(source)
        self.files[destination] = replace(entry, location=destination), data
        return 0

    async def make_directory(self, location: Location, change: AttributeChange) -> Entry:
        await self.called(f"mkdir {location}")
        if location in self.files:
            raise Conflict(f"{location} exists", "exists")
        return self.store(location, b"", "inode/directory", change, kind=Kind.DIRECTORY)

    async def set_attributes(
        self, location: Location, kind: Kind, change: AttributeChange
    ) -> Entry:
        await self.called("attributes")
        if Extension.PATCH not in self.extensions:
            raise Unsupported("no PATCH")
        if location not in self.files:
            raise NotFound(f"{location} does not exist")
        entry, data = self.files[location]
        entry = replace(entry, attributes=_patched(entry.attributes, change))
        self.files[location] = entry, data
        return entry


class Session:
    """An upload session; checks the length it was opened with."""

    def __init__(
        self, server: Server, size: int | None, commit: Callable[[bytes], Entry], base: bytes
    ) -> None:
        self.server = server
        self.size = size
        self.commit = commit
        self.base = base
        self.data = bytearray()
        self.flying = bytearray()
        self.cancelled = False

    @property
    def offset(self) -> int:
        return len(self.data)

    @property
    def pushes(self) -> bool:
        return self.server.pushes

    async def push(self, pieces: Sequence[bytes | memoryview], crc: int) -> int:
        assert not self.cancelled
        for piece in pieces:
            self.flying += piece
            crc = crc32c(piece, crc)
        await self.server.called("push")
        return crc

    async def settle(self) -> None:
        if self.flying:
            await self.server.called("settle")
            self.data += self.flying
            self.flying.clear()

    async def recover(self) -> int:
        """Half of what was on its way has arrived."""
        self.data += self.flying[: len(self.flying) // 2]
        self.flying.clear()
        await self.server.called("recover")
        return len(self.data)

    async def send(
        self, data: bytes | memoryview, *, final: bool = False, crc: int | None = None
    ) -> Entry | None:
        await self.server.called(f"send {len(data)}{' final' if final else ''}")
        assert not self.cancelled
        assert not self.flying
        self.data += data
        if crc is not None and crc != crc32c(bytes(self.data)):
            raise InvalidRequest("other bytes arrived")
        if not final:
            return None
        assert self.size in (None, len(self.data))
        return self.commit(bytes(self.data))

    async def copy_base(self, length: int) -> None:
        await self.server.called(f"copy {length}")
        piece = self.base[self.offset : self.offset + length]
        assert len(piece) == length
        self.data += piece

    async def cancel(self) -> None:
        self.cancelled = True


def _patched(old: Attributes, change: AttributeChange) -> Attributes:
    names = ("mode", "uid", "gid", "modified_ns", "accessed_ns")
    new = {name: value for name in names if (value := getattr(change, name)) is not None}
    return replace(old, **new)

"""The FilesBackend over HTTP: probes the server once, then speaks the dialect that it knows.

It must not do anything of its own beyond that choice.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from filesfs.backend import parse
from filesfs.backend.answers import Answer
from filesfs.backend.changes import ChangeFeed
from filesfs.backend.paths import Targets
from filesfs.backend.plain import PlainDialect
from filesfs.backend.protocol import FilesBackend
from filesfs.backend.requester import Request, Requester
from filesfs.backend.rich import NEEDED, RichDialect
from filesfs.backend.sessions import HttpSession
from filesfs.backend.settings import BackendSettings
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
    lease_clock,
)
from filesfs.errors import InvalidRequest, NotFound, Unsupported
from filesfs.packed import Listing, Many
from filesfs.wire import Extension

log = logging.getLogger(__name__)


async def connect_backend(settings: BackendSettings) -> HttpBackend:
    """A backend that is connected; raises what stands against it."""
    backend = HttpBackend(settings)
    try:
        await backend.connect()
    except BaseException:
        await backend.aclose()
        raise
    return backend


class HttpBackend:
    """FilesBackend over HTTP. Runs on trio; see `FilesBackend` for every method."""

    def __init__(self, settings: BackendSettings) -> None:
        self.server_id = settings.server_id
        self._requester = Requester(settings)
        self._targets = Targets(settings.prefix)
        self._extensions: frozenset[Extension] = frozenset()
        self._dialect: RichDialect | PlainDialect = PlainDialect(self._requester, self._targets)
        wanted = "changes=1" if settings.own_changes else "changes=1&own=0"
        self._feed = ChangeFeed(self._requester, self._targets.files(wanted))

    @property
    def extensions(self) -> frozenset[Extension]:
        return self._extensions

    async def connect(self) -> None:
        self._use(_advertised(await self._probe()))
        if not self._extensions:  # a plain server may answer OPTIONS without asking who we are
            await self._dialect.list_directory(Location(""))

    def attend(self, kernel: int) -> None:
        """What there is to be read from this descriptor goes before waiting for answers."""
        self._requester.lone.kernel = kernel

    async def aclose(self) -> None:
        await self._requester.aclose()

    # -- names ------------------------------------------------------------------------------------
    async def list_directory(self, location: Location) -> Listing:
        return await self._dialect.list_directory(location)

    async def list_walk(
        self, location: Location, levels: int, most: int
    ) -> tuple[Listing, list[Listing]]:
        return await self._dialect.list_walk(location, levels, most)

    async def stat(self, location: Location) -> Entry:
        return await self._dialect.stat(location)

    async def look_up(self, location: Location) -> tuple[Entry, Listing | None]:
        return await self._dialect.look_up(location)

    async def usage(self) -> Usage:
        return await self._dialect.usage()

    # -- content ----------------------------------------------------------------------------------
    async def read(
        self, entry: Entry, offset: int, length: int, arrived: Arrived | None = None
    ) -> bytes:
        return await self._dialect.read(entry, offset, length, arrived)

    async def read_whole(self, location: Location, limit: int, known: Entry | None = None) -> Whole:
        return await self._dialect.read_whole(location, limit, known)

    async def read_many(self, directory: Location, names: Sequence[str]) -> Many:
        return await self._dialect.read_many(directory, names)

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
        return await self._dialect.put(
            location,
            data,
            mime_type,
            change,
            only_new=only_new,
            if_match=if_match,
            resource_id=resource_id,
            kind=kind,
        )

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
    ) -> HttpSession:
        return await self._dialect.open_upload(
            location,
            mime_type,
            change,
            size=size,
            only_new=only_new,
            if_match=if_match,
            resource_id=resource_id,
            base=base,
            begin=begin,
        )

    # -- changes of names and attributes ----------------------------------------------------------
    async def make_directory(self, location: Location, change: AttributeChange) -> Entry:
        return await self._dialect.make_directory(location, change)

    async def remove(self, location: Location, kind: Kind) -> int:
        return await self._dialect.remove(location, kind)

    async def move(
        self,
        source: Location,
        destination: Location,
        kind: Kind,
        *,
        overwrite: bool = True,
        exchange: bool = False,
    ) -> int:
        return await self._dialect.move(
            source, destination, kind, overwrite=overwrite, exchange=exchange
        )

    async def link(self, source: Location, destination: Location) -> Entry:
        return await self._dialect.link(source, destination)

    async def set_attributes(
        self, location: Location, kind: Kind, change: AttributeChange
    ) -> Entry:
        return await self._dialect.set_attributes(location, kind, change)

    # -- change feed ------------------------------------------------------------------------------
    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        if Extension.CHANGES not in self._extensions:
            raise Unsupported("This server has no change feed.")
        return self._feed.open()

    async def extend_leases(self, term: str, heard: str = "") -> Lease | None:
        began = lease_clock()
        headers = {"Files-Lease": term} | ({"Last-Event-ID": heard} if heard else {})
        request = Request("POST", self._targets.files("leases=1"), headers, urgent=True)
        return parse.lease((await self._requester.ask(request)).lease, began)

    async def return_leases(self, term: str) -> None:
        headers = {"Files-Lease": term}
        request = Request("DELETE", self._targets.files("leases=1"), headers, urgent=True)
        await self._requester.ask(request)

    # -- inner ------------------------------------------------------------------------------------
    async def _probe(self) -> Answer | None:
        """What OPTIONS answers; None where the server does not know it."""
        try:
            return await self._requester.ask(Request("OPTIONS", self._targets.files()))
        except (NotFound, Unsupported, InvalidRequest) as error:
            log.debug("The server does not answer OPTIONS: %s", error)
            return None

    def _use(self, extensions: frozenset[Extension]) -> None:
        if extensions >= NEEDED:
            self._extensions = extensions
            self._requester.is_extended = True
            self._dialect = RichDialect(self._requester, self._targets, extensions)
            return
        if extensions:
            missing = ", ".join(sorted(NEEDED - extensions))
            log.warning("The server lacks the extensions %s; used as a plain one.", missing)


def _advertised(answer: Answer | None) -> frozenset[Extension]:
    tokens = answer.headers.get("files-extensions", "") if answer is not None else ""
    known = set(Extension)
    return frozenset(
        Extension(token) for each in tokens.split(",") if (token := each.strip()) in known
    )


_conforms: type[FilesBackend] = HttpBackend  # mypy holds it to the protocol

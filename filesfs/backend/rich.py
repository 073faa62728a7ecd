"""Names and attributes against a server with our extensions: one request each, where possible.

It must not keep state. A lost answer is cleared up here: each method says how.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter

from filesfs.backend import many, parse
from filesfs.backend.answers import Answer
from filesfs.backend.content import RichContent, is_own, stamped
from filesfs.backend.paths import check, quoted
from filesfs.backend.requester import Request
from filesfs.backend.retry import Tries, repeat
from filesfs.backend.rows import rows_page
from filesfs.domain import (
    AttributeChange,
    Entry,
    Kind,
    Location,
    Usage,
    lease_clock,
)
from filesfs.errors import (
    Conflict,
    NotFound,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from filesfs.packed import Listing, Many, listing_of, pack
from filesfs.wire import DIRECTORY, Extension

_MOST_PAGES = 5_000  # of a listing: more entries than memory holds
_IN_ROWS = {"Files-Rows": "1"}  # a server that does not know them answers as ever
NEEDED = frozenset(
    {
        Extension.CONTENT,
        Extension.VERSIONS,
        Extension.PUT,
        Extension.LISTING,
        Extension.RICH_STAT,
        Extension.DIRECTORIES,
        Extension.MOVE,
        Extension.PATCH,
    }
)
# Of so many entries a listing takes as long as the request for it that is saved by it.
_WITH_LISTING = {"Files-Listing": "500"}


def _page(answer: Answer, directory: Location) -> tuple[parse.Names, str, bool, list[Listing]]:
    """What is in the directory, the last key, whether more follow; what a walk comes to next."""
    if "files-rows" in answer.headers:
        return rows_page(answer.body, directory, answer.cursor)
    entries, last, more = parse.listing_page(answer.body)
    inside = [entry for entry in entries if entry.location.key != directory.key]
    return [(entry.location.name, pack(entry)) for entry in inside], last, more, []


class RichDialect(RichContent):
    """FilesBackend's operations over the extensions."""

    page = 4_000  # entries of a listing in one answer: 8 ms to take in, which nothing else gets

    # -- names ------------------------------------------------------------------------------------
    async def list_directory(self, location: Location) -> Listing:
        return (await self.list_walk(location, 0, 0))[0]

    async def list_walk(
        self, location: Location, levels: int, most: int
    ) -> tuple[Listing, list[Listing]]:
        if not location.bucket:
            return await self._list_buckets(), []
        check(location)
        walk = {"Files-Walk": str(most), "Files-Walk-Levels": str(levels)} if most else {}
        target = self._targets.of(Location(location.bucket))
        prefix = f"{location.key}/" if location.key else ""
        query = f"prefix={prefix}&delimiter=/&view=full&limit={self.page}"
        names: parse.Names = []
        followed: list[Listing] = []
        cursor, after, more, pages = "", "", True, 0
        while more:
            page = f"{query}&after={quoted(after)}" if after else query
            answer = await self._requester.ask(Request("GET", f"{target}?{page}", _IN_ROWS | walk))
            cursor, walk = cursor or answer.cursor, {}
            found, last, more, behind = _page(answer, location)
            names.extend(found)
            followed.extend(behind)
            pages += 1
            if more and (last <= after or pages == _MOST_PAGES):
                raise Unavailable(f"The listing of {str(location)!r} does not end.")
            after = last
        if not names and location.key:
            await self._require_directory(location)
        names.sort(key=itemgetter(0))
        return Listing(location, dict(names), cursor), followed

    async def read_many(self, directory: Location, names: Sequence[str]) -> Many:
        check(directory)
        if Extension.CONTENTS not in self._extensions or not directory.bucket:
            raise Unsupported("This server reads one file at a time.")
        prefix = f"{directory.key}/" if directory.key else ""
        body = json.dumps({"prefix": prefix, "names": list(names)}).encode()
        target = self._targets.of(Location(directory.bucket), "contents=1")
        headers, began = {"Content-Type": "application/json", **self._wish}, lease_clock()
        answer = await self._requester.ask(Request("POST", target, headers, body, bulk=True))
        found, contents = many.contents_of(answer.body, directory, names)
        lease = parse.lease(answer.lease, began)
        return Many(directory, dict(found), contents, answer.cursor, lease)

    async def stat(self, location: Location) -> Entry:
        if not location.bucket:
            return parse.directory(location)
        if not location.key:
            return await self._stat_bucket(location)
        answer = await self._requester.ask(Request("GET", self._targets.of(location, "view=full")))
        return parse.file_entry(answer.body)

    async def look_up(self, location: Location) -> tuple[Entry, Listing | None]:
        if not location.key:
            return await self.stat(location), None
        target = self._targets.of(location, "view=full")
        answer = await self._requester.ask(Request("GET", target, _WITH_LISTING))
        entry, names = parse.looked_up(answer.body)
        if names is None or entry.location != location:
            return entry, None
        names.sort(key=itemgetter(0))
        return entry, Listing(location, dict(names), answer.cursor)

    async def usage(self) -> Usage:
        answer = await self._requester.ask(Request("GET", self._targets.files("usage=1")))
        return parse.usage(answer.body)

    # -- changes of names and attributes ----------------------------------------------------------
    async def make_directory(self, location: Location, change: AttributeChange) -> Entry:
        if not location.key:
            return await self._make_bucket(location, change)
        change = stamped(change)
        headers = {
            "Content-Type": DIRECTORY,
            "If-None-Match": "*",
            "Files-Attributes": parse.patch_body(change).decode(),
        }
        target = self._targets.of(location, "alt=media&view=full", Kind.DIRECTORY)
        tries = Tries()
        try:
            answer = await self._requester.ask(Request("PUT", target, headers), tries)
            return parse.file_entry(answer.body)
        except (PreconditionFailed, Conflict) as error:
            if tries.lost and is_own(entry := await self.stat(location), change):
                return entry
            if isinstance(error, PreconditionFailed) or error.reason == "is-directory":
                raise Conflict(str(error), "exists") from error
            raise

    async def remove(self, location: Location, kind: Kind) -> int:
        headers = {"Files-Keep-Parent": "1"} if location.key else {}
        tries = Tries()
        try:
            request = Request("DELETE", self._targets.of(location, kind=kind), headers)
            return (await self._requester.ask(request, tries)).changed_ns
        except NotFound:
            if not tries.lost:  # else an earlier try did it
                raise
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
        if not source.key or not destination.key:
            raise Unsupported("A bucket cannot be moved.")
        if exchange:
            return await self._exchange(source, destination)
        headers = {
            "Destination": self._targets.of(destination, kind=kind),
            "Files-Keep-Parent": "1",
        }
        if not overwrite:
            headers["Overwrite"] = "F"
        tries = Tries()
        try:
            request = Request("MOVE", self._targets.of(source, kind=kind), headers)
            return (await self._requester.ask(request, tries)).changed_ns
        except (NotFound, PreconditionFailed):
            if not (tries.lost and await self._was_moved(source, destination)):
                raise
            return 0

    async def link(self, source: Location, destination: Location) -> Entry:
        headers = {"Destination": self._targets.of(destination)}
        request = Request("BIND", self._targets.of(source, "view=full"), headers)
        tries = Tries()
        try:
            return parse.file_entry((await self._requester.ask(request, tries)).body)
        except Conflict:
            if tries.lost:
                entry = await self._stat_after_loss(destination)
                if entry.resource_id == (await self.stat(source)).resource_id:
                    return entry
            raise

    async def set_attributes(
        self, location: Location, kind: Kind, change: AttributeChange
    ) -> Entry:
        headers = {"Content-Type": "application/merge-patch+json"}
        target = self._targets.of(location, "view=full", kind)
        request = Request("PATCH", target, headers, parse.patch_body(change))
        answer = await self._requester.ask(request)
        if location.key:
            return parse.file_entry(answer.body)
        return parse.bucket_entry(answer.body)

    # -- inner ------------------------------------------------------------------------------------
    async def _list_buckets(self) -> Listing:
        answer = await self._requester.ask(Request("GET", self._targets.files("view=full")))
        return listing_of(Location(""), parse.bucket_entries(answer.body), answer.cursor)

    async def _stat_bucket(self, location: Location) -> Entry:
        self._targets.of(location)
        for entry in (await self._list_buckets()).entries:
            if entry.location == location:
                return entry
        raise NotFound(f"There is no bucket {location.bucket!r}.")

    async def _require_directory(self, location: Location) -> None:
        if (await self.stat(location)).kind is not Kind.DIRECTORY:
            raise Conflict(f"{str(location)!r} is not a directory.", "not-directory")

    async def _make_bucket(self, location: Location, change: AttributeChange) -> Entry:
        try:
            await self._stat_bucket(location)
        except NotFound:
            pass
        else:
            raise Conflict(f"There is a bucket {location.bucket!r} already.", "exists")
        # Registering a plain name again does nothing, so it can be repeated.
        await self._requester.ask(Request("PUT", self._targets.of(location)))
        if change:
            return await self.set_attributes(location, Kind.DIRECTORY, change)
        return await self._stat_bucket(location)

    async def _was_moved(self, source: Location, destination: Location) -> bool:
        try:
            await self.stat(source)
        except NotFound:
            try:
                await self._stat_after_loss(destination)
            except NotFound:
                return False
            return True
        return False

    async def _exchange(self, source: Location, destination: Location) -> int:
        """Swap two names. Done twice it is undone, so before a second try identities are asked."""
        one, other = await self.stat(source), await self.stat(destination)
        target = self._targets.of(destination, kind=one.kind)  # what it becomes
        request = Request(
            "MOVE",
            self._targets.of(source, kind=one.kind),
            {"Destination": target, "Exchange": "T"},
        )
        tries = Tries()

        async def attempt() -> int:
            if tries.lost:
                there = await self._stat_after_loss(source)
                if there.resource_id == other.resource_id:
                    return 0
            return (await self._requester.once(request)).changed_ns

        return await repeat(self._requester.policy, attempt, tries)

"""A plain server's listing, which is all keys of a bucket at once, folded into directories.

It must not hold a listing for longer than a tree walk needs: it is the server's state, not ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from filesfs.backend import parse
from filesfs.backend.paths import Targets
from filesfs.backend.requester import Request, Requester
from filesfs.domain import Entry, Kind, Location

# As long as a change by another client may stay unseen where there is no feed.
_FRESH = 1.0
# A bucket that takes a second to list must not be listed again for each directory of a walk.
_FRESH_TIMES_COST = 5.0


class FoldedBucket:
    """All keys of a bucket as a tree. Immutable once made."""

    def __init__(self, bucket: str, entries: Iterable[Entry]) -> None:
        self.bucket = bucket
        self._children: dict[str, dict[str, Entry]] = {"": {}}  # by directory key, then by name
        for entry in entries:
            self._add(entry)

    def children(self, key: str) -> dict[str, Entry] | None:
        """By name, what is directly in a directory; None when there is no such directory."""
        return self._children.get(key)

    def below(self, key: str) -> list[Entry]:
        """Every file under a directory, in key order."""
        found: list[Entry] = []
        for entry in (self._children.get(key) or {}).values():
            if entry.kind is Kind.DIRECTORY:
                found.extend(self.below(entry.location.key))
            else:
                found.append(entry)
        return sorted(found, key=lambda entry: entry.location.key)

    def _add(self, entry: Entry) -> None:
        location = entry.location
        if entry.kind is Kind.DIRECTORY:
            self._directory(location.key)
            return
        parent, _, name = location.key.rpartition("/")
        self._directory(parent)[name] = entry

    def _directory(self, key: str) -> dict[str, Entry]:
        if (found := self._children.get(key)) is not None:
            return found
        parent, _, name = key.rpartition("/")
        # A file of the same name stays: it is what op 6 answers for the key.
        self._directory(parent).setdefault(name, parse.directory(Location(self.bucket, key)))
        return self._children.setdefault(key, {})


class KeyListings:
    """Owner of the folded listings; one shared fetch a bucket."""

    def __init__(self, requester: Requester, targets: Targets) -> None:
        self._requester = requester
        self._targets = targets
        self._held: dict[str, tuple[float, FoldedBucket]] = {}  # until when, what
        self._locks: dict[str, trio.Lock] = {}

    async def get(self, bucket: str) -> FoldedBucket:
        """The bucket as it was a moment ago. Raises NotFound when there is none."""
        async with self._locks.setdefault(bucket, trio.Lock()):
            until, folded = self._held.get(bucket, (0.0, None))
            if folded is not None and trio.current_time() < until:
                return folded
            return await self._fetch(bucket)

    def forget(self, bucket: str) -> None:
        """A change of our own: what is held is no longer so."""
        self._held.pop(bucket, None)

    async def _fetch(self, bucket: str) -> FoldedBucket:
        start = trio.current_time()
        target = self._targets.of(Location(bucket))
        answer = await self._requester.ask(Request("GET", target))
        folded = FoldedBucket(bucket, parse.listing_page(answer.body)[0])
        now = trio.current_time()
        fresh = max(_FRESH, _FRESH_TIMES_COST * (now - start))
        self._held[bucket] = (now + fresh, folded)
        return folded

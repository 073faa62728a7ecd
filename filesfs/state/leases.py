"""Leases: of which files the server answers nobody's change before this mount has heard of it.

Sync throughout. It must not ask for anything: who opens a file brings the leases, and the change
feed ends them. A leased file is what it was when the lease came, so open() need not ask the server
whether it still is: see docs/decisions/0041-leases.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from filesfs.domain import Change, Entry, ETag, Lease, Location, ResourceId, lease_clock
from filesfs.wire import Operation

MOST = 50_000  # files; the server grants twice as many
_REMEMBERED = 1_000  # files and resources that others' changes were about
# Of a directory, what lies below is meant, too.
_OF_TREES = frozenset({Operation.MOVE, Operation.EXCHANGE, Operation.DELETE, Operation.BUCKET})


class _Held(NamedTuple):
    etag: ETag
    resource_id: ResourceId


class Leases:
    """Owner of what is leased, by the place that was asked for. Times are of `lease_clock`."""

    def __init__(self, clock: Callable[[], float] = lease_clock) -> None:
        self.term = ""
        self._clock = clock
        self._until = 0.0
        self._span = 0.0
        self._listening = False  # to the change feed
        self._news = 0
        self._recent: deque[tuple[int, Location | ResourceId]] = deque()  # what the last were about
        self._unknown = 0  # what was asked for before so much was heard may be over
        self._held: dict[Location, _Held] = {}
        self._places: dict[ResourceId, Location] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def mark(self) -> int:
        """To be taken before a file is asked for: what is heard of until its lease comes may have
        ended that.
        """
        return self._news

    @property
    def is_half_over(self) -> bool:
        """Time to ask for more."""
        return self._clock() > self._until - self._span / 2

    def grant(self, lease: Lease | None, mark: int, entry: Entry) -> None:
        """The answer that brought this entry of a file brought a lease, too, or none."""
        if lease is None or not self._listening or self._is_overtaken(mark, entry):
            return
        self.extend(lease)
        self._drop(entry.location)
        if entry.nlink != 1 or entry.etag is None or entry.resource_id is None:
            return  # by another name it may be changed unheard; or it cannot be told from another
        if len(self._held) < MOST:
            self._held[entry.location] = _Held(entry.etag, entry.resource_id)
            self._places[entry.resource_id] = entry.location

    def extend(self, lease: Lease) -> None:
        """All of this term last so long. Of other terms nothing is left."""
        if lease.term != self.term:
            self._forget()
            self.term, self._until = lease.term, lease.until
        self._until, self._span = max(self._until, lease.until), lease.span

    def covers(self, location: Location, etag: str | None) -> bool:
        """Whether this version is leased at this place."""
        held = self._held.get(location)
        return held is not None and held.etag == etag and self._clock() < self._until

    def holds(self, location: Location, entry: Entry) -> bool:
        """Whether at this place there is still this version of this file."""
        held = self._held.get(location)
        if held is None or held != (entry.etag, entry.resource_id):
            return False
        if self._clock() < self._until:
            return True
        self._forget()
        return False

    def heard(self, change: Change) -> None:
        """Somebody else's change."""
        self._news += 1
        if change.is_tree and change.operation in _OF_TREES:
            self.clear()
            return
        for location in change.locations:
            self._drop(location)
            self._remember(location)
        if change.resource_id is not None:
            if change.resource_id in self._places:
                self._drop(self._places[change.resource_id])
            self._remember(change.resource_id)

    def moved(self, *places: Location, tree: bool) -> None:
        """We changed what these names lead to, which no event tells us: by a move or the like. What
        is moved back may be another file by then, put there by somebody who waited for nobody.
        """
        if tree:
            self.clear()
            return
        self._news += 1
        for place in places:
            self._drop(place)
            self._remember(place)

    def feed_connected(self) -> None:
        self._listening = True

    def feed_lost(self) -> None:
        """Nothing is heard of any more."""
        self._listening = False
        self.clear()

    def clear(self) -> None:
        """Nothing is leased, nor what is on its way."""
        self._news += 1
        self._unknown = self._news
        self._recent.clear()
        self._forget()

    def _forget(self) -> None:
        self._held.clear()
        self._places.clear()

    def _remember(self, changed: Location | ResourceId) -> None:
        self._recent.append((self._news, changed))
        if len(self._recent) > _REMEMBERED:
            self._unknown = self._recent.popleft()[0]

    def _is_overtaken(self, mark: int, entry: Entry) -> bool:
        """Whether something was heard of it, or of we do not know what, since then."""
        if mark < self._unknown:
            return True
        if mark == self._news:  # nearly always
            return False
        since = (changed for number, changed in self._recent if number > mark)
        return any(changed in (entry.location, entry.resource_id) for changed in since)

    def _drop(self, location: Location) -> None:
        held = self._held.pop(location, None)
        if held is not None and self._places.get(held.resource_id) == location:
            del self._places[held.resource_id]

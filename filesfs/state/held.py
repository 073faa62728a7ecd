"""Listings that came before anybody asked for them, until somebody does.

Sync throughout, and it fetches nothing. Those of directories that a walk comes to next are kept
here, whether a node stands for the directory or not: news reaches them by place (others' changes)
or by resource (ours), also while they are still on their way (`Flight`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from filesfs.domain import Location, ResourceId
from filesfs.packed import Listing

_MOST_ENTRIES = 10_000  # 2 MB; each directory counts as ten of them besides
_DIRECTORY = 10
_SECONDS = 30.0  # a walk that has not come by then may have gone elsewhere


@dataclass(frozen=True, slots=True)
class Stamp:
    """When an answer was taken: feed generation (None: no feed then) and monotonic seconds."""

    feed: int | None
    taken: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """A listing that came before anybody asked for it."""

    listing: Listing
    stamp: Stamp

    @property
    def weight(self) -> int:
        return len(self.listing.at_rest) + _DIRECTORY


@dataclass(slots=True, eq=False)
class Flight:
    """What was heard since listings were asked for: they may be older than that."""

    places: set[Location] = field(default_factory=set)
    trees: list[Location] = field(default_factory=list)
    resources: set[ResourceId] = field(default_factory=set)

    def overtook(self, listing: Listing) -> bool:
        place = listing.location
        return (
            place in self.places
            or listing.resource_id in self.resources
            or any(_is_in(place, tree) for tree in self.trees)
        )


class HeldListings:
    """Owner of those of walks."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: OrderedDict[ResourceId, Ahead] = OrderedDict()  # the oldest first
        self._places: dict[Location, ResourceId] = {}  # of each of these, and of no others
        self._flights: list[Flight] = []
        self.entries = 0  # with the directories' own weight
        self._used = self._lost = 0

    def __bool__(self) -> bool:
        """Whether news is of interest."""
        return bool(self._held or self._flights)

    @contextmanager
    def flight(self) -> Iterator[Flight]:
        """While listings are on their way."""
        flight = Flight()
        self._flights.append(flight)
        try:
            yield flight
        finally:
            self._flights.remove(flight)

    def keep(self, flight: Flight, ahead: Ahead, *, wanted: bool = True) -> None:
        """Unless it was overtaken. Older ones make room for it."""
        resource, place = ahead.listing.resource_id, ahead.listing.location
        if not wanted or resource is None or flight.overtook(ahead.listing):
            self._lost += ahead.weight
            return
        self._drop(resource)
        self._drop(self._places.get(place))
        self._held[resource], self._places[place] = ahead, resource
        self.entries += ahead.weight
        while self.entries > _MOST_ENTRIES:
            self._drop(next(iter(self._held)))

    def expire(self) -> None:
        """Those that nobody came for."""
        until = self._clock() - _SECONDS
        while self._held and next(iter(self._held.values())).stamp.taken < until:
            self._drop(next(iter(self._held)))

    def take(self, resource: ResourceId, place: Location) -> Ahead | None:
        """That of this directory, once, if it is still there."""
        ahead = self._held.get(resource)
        if ahead is None or ahead.listing.location != place:
            return None
        self._drop(resource)
        self._lost -= ahead.weight
        self._used += ahead.weight
        return ahead

    def told(self) -> tuple[int, int]:
        """How many entries were used since this was last asked, how many went unused."""
        used, lost = self._used, self._lost
        self._used = self._lost = 0
        return used, lost

    # -- news -------------------------------------------------------------------------------------
    def changed(self, resource: ResourceId) -> None:
        """We changed something in this directory, or know better what is in it."""
        self._drop(resource)
        for flight in self._flights:
            flight.resources.add(resource)

    def heard(self, place: Location) -> None:
        """Somebody changed this name. Its directory shows it, the one above that directory's times
        and links, and all above may have come or gone with it, where keys imply them.
        """
        while True:
            self._drop(self._places.get(place))
            for flight in self._flights:
                flight.places.add(place)
            if not place.bucket:
                return
            place = place.parent

    def moved(self, place: Location) -> None:
        """What is or was here, and all below it, is somewhere else by now."""
        for each in [each for each in self._places if _is_in(each, place)]:
            self._drop(self._places[each])
        for flight in self._flights:
            flight.trees.append(place)

    def _drop(self, resource: ResourceId | None) -> None:
        ahead = self._held.pop(resource, None) if resource is not None else None
        if ahead is not None:
            del self._places[ahead.listing.location]
            self.entries -= ahead.weight
            self._lost += ahead.weight


def _is_in(place: Location, tree: Location) -> bool:
    if place.bucket != tree.bucket:
        return False
    return not tree.key or place.key == tree.key or place.key.startswith(f"{tree.key}/")

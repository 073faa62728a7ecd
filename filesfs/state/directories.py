"""DirectoryCache: what the server said is in each directory, what it said is not, and what only we
have.

Sync throughout. It must not fetch: the filesystem layer does, and hands the answers in. An answer
is fresh while the change feed has been connected without a gap since it was taken, and otherwise
for `ttl` seconds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from filesfs.domain import Entry, Inode, Kind, Location
from filesfs.packed import Packed, pack, unpack
from filesfs.state.held import Ahead, HeldListings, Stamp
from filesfs.state.inodes import Node, registered

# Events remembered, so that an answer older than an event about its directory is not cached.
_EVENTS = 10_000
_DIGITS = 18  # of a change's number


@dataclass(slots=True)
class Directory:
    """One directory. `entries` is complete when `listed` is fresh; single answers have stamps of
    their own.
    """

    entries: dict[bytes, Packed] = field(default_factory=dict)
    listed: Stamp | None = None
    stamps: dict[bytes, Stamp] = field(default_factory=dict)  # of names asked for one by one
    doubts: set[bytes] = field(default_factory=set)  # changed by others since `listed`
    local: dict[bytes, Node] = field(default_factory=dict)  # not on the server under this name yet
    ahead: Ahead | None = None  # goes with all that is learned of any name in it
    mutations: int = 0  # ours and others'; a listing that one of them overtook is not cached
    events: int = 0  # others' alone
    strayed: bool = False  # others have moved it, and nobody has looked up where it is


class DirectoryCache:
    """Owner of all `Directory` states, by inode."""

    def __init__(self, ttl: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.ttl = ttl
        self._clock = clock
        self._directories: dict[Inode, Directory] = {}
        self._feed: int | None = None
        self._generation = 0
        self._resumed = float("-inf")  # what was taken before is on its ttl
        self._events: OrderedDict[Location, int] = OrderedDict()
        self._event_floor = 0
        self.held = HeldListings(clock)

    # -- freshness --------------------------------------------------------------------------------
    def feed_connected(self, *, gap: bool) -> None:
        """The feed runs. `gap`: events may have been missed, so what was taken before stays on its
        ttl. Else it does so until `feed_caught_up`: the events of the pause are on their way.
        """
        self._resumed = self._clock()
        if gap or self._generation == 0:
            self._generation += 1
            self._events.clear()
            self._event_floor = 0
            self._resumed = float("-inf")
        self._feed = self._generation

    def feed_caught_up(self) -> None:
        """All events of the pause were told."""
        self._resumed = float("-inf")

    def feed_lost(self) -> None:
        self._feed = None

    @property
    def feed(self) -> bool:
        """Whether the server tells us of changes just now."""
        return self._feed is not None

    @property
    def lost(self) -> bool:
        """The feed ran and does not now: the server may be away."""
        return self._generation > 0 and self._feed is None

    def stamp(self, node: Node) -> Stamp:
        """For an answer about this node, or what is in it. Of registered locations the feed tells
        nothing, so there an answer is good for the ttl alone.
        """
        return Stamp(None if registered(node) else self._feed, self._clock())

    def fresh(self, stamp: Stamp | None) -> bool:
        if stamp is None:
            return False
        told_of = self._feed is not None and stamp.feed == self._feed
        if told_of and stamp.taken >= self._resumed:
            return True
        return self._clock() - stamp.taken < self.ttl

    def now(self) -> float:
        """As in stamps."""
        return self._clock()

    def asked(self, node: Node, name: bytes) -> float:
        """When the server was asked for what is known of this name."""
        directory = self.of(node)
        stamp = None if name in directory.doubts else directory.stamps.get(name, directory.listed)
        return stamp.taken if stamp is not None else float("-inf")

    def heard(self, node: Node, name: bytes) -> tuple[object, ...]:
        """What is known of this name, and heard of its directory; another value after any news. An
        answer that news overtook is not kept: it may be older.
        """
        directory = self.of(node)
        return directory.events, directory.stamps.get(name), directory.entries.get(name)

    def overtaken(self, location: Location, cursor: str) -> bool:
        """Whether an event about this directory is newer than an answer with this cursor."""
        number = cursor_number(cursor)
        if number is None:
            return False
        return number < max(self._events.get(location, 0), self._event_floor)

    def note_event(self, location: Location, cursor: str) -> None:
        self._events[location] = cursor_number(cursor) or 0
        self._events.move_to_end(location)
        while len(self._events) > _EVENTS:
            self._event_floor = max(self._event_floor, self._events.popitem(last=False)[1])

    def told_of(self, location: Location) -> bool:
        """Whether an event about what is in this directory is remembered."""
        return location in self._events

    def told_below(self, location: Location) -> bool:
        """As `told_of`, of this directory or one below it."""
        above = f"{location.key}/"
        return any(
            each == location or (each.bucket == location.bucket and each.key.startswith(above))
            for each in self._events
        )

    # -- contents ---------------------------------------------------------------------------------
    def of(self, node: Node) -> Directory:
        return self._directories.setdefault(node.inode, Directory())

    def __iter__(self) -> Iterator[Inode]:
        return iter(list(self._directories))

    def known(self, node: Node) -> Directory | None:
        return self._directories.get(node.inode)

    def released(self, node: Node) -> None:
        """The kernel forgot the directory: no event reaches it any more, so nothing of it is fresh.

        While the server may be away the stale listing is kept: it is all there is to show.
        """
        directory = self._directories.get(node.inode)
        if directory is not None and self.lost:
            directory.stamps.clear()
            directory.listed = directory.listed and Stamp(None, float("-inf"))
        else:
            self.drop(node)

    def drop(self, node: Node) -> None:
        """The node is gone, or nothing of its contents is trusted any more; local names stay."""
        self._learned(node)
        directory = self._directories.get(node.inode)
        if directory is None:
            return
        if directory.local:
            directory.entries.clear()
            directory.stamps.clear()
            directory.doubts.clear()
            directory.listed = directory.ahead = None
        else:
            del self._directories[node.inode]

    def keep_ahead(self, node: Node, ahead: Ahead | None) -> None:
        """This came with the directory's own entry. Where anything was known of it, or happened in
        it, that is newer.
        """
        if ahead is None or self.overtaken(ahead.listing.location, ahead.listing.cursor):
            return
        if self._is_unknown(node):
            self.of(node).ahead = ahead

    def _is_unknown(self, node: Node) -> bool:
        """Nothing was ever known of what is in it, nor happened there."""
        directory = self._directories.get(node.inode)
        if directory is None:
            return True
        return directory.listed is None and not (directory.entries or directory.mutations)

    def ahead(self, node: Node, name: bytes, place: Location) -> Entry | None:
        """What such a listing has under this name. None is no word that there is nothing: others
        may have made it since, and be asking for it by name.
        """
        if self.held and self._is_unknown(node):
            self.keep_ahead(node, self._held_of(node, place.parent))
        directory = self._directories.get(node.inode)
        ahead = directory.ahead if directory is not None else None
        if directory is None or ahead is None or not self.fresh(ahead.stamp):
            return None
        packed = ahead.listing.at_rest.get(place.name)
        if packed is None:
            return None
        directory.entries[name] = packed
        directory.stamps[name] = ahead.stamp
        return unpack(packed)

    def take_ahead(self, node: Node, where: Location) -> Ahead | None:
        """It, once, if it is still fresh and the directory where it was."""
        directory = self.of(node)
        ahead, directory.ahead = directory.ahead, None
        for each in (ahead, self._held_of(node, where)):
            if each is not None and each.listing.location == where and self.fresh(each.stamp):
                return each
        return None

    def _held_of(self, node: Node, where: Location) -> Ahead | None:
        """What came with another directory's listing; once."""
        entry = node.entry if self.held else None
        if entry is None or entry.resource_id is None:
            return None
        return self.held.take(entry.resource_id, where)

    def _learned(self, node: Node) -> None:
        """Something in this directory is known by now that no such listing need have."""
        entry = node.entry if self.held and node.kind is Kind.DIRECTORY else None
        if entry is not None and entry.resource_id is not None:
            self.held.changed(entry.resource_id)

    def keep_listing(self, node: Node, entries: dict[bytes, Packed], stamp: Stamp) -> None:
        directory = self.of(node)
        self._learned(node)
        directory.ahead = None
        directory.entries = entries
        directory.stamps.clear()
        directory.doubts.clear()
        directory.listed = stamp

    def keep_entry(self, node: Node, name: bytes, entry: Entry | None, stamp: Stamp) -> None:
        """A single answer: there is this entry, or (None) nothing under that name."""
        directory = self.of(node)
        self._learned(node)
        directory.ahead = None
        if entry is None:
            directory.entries.pop(name, None)
        else:
            directory.entries[name] = pack(entry)
        if name in directory.doubts or not self.fresh(directory.listed):
            directory.stamps[name] = stamp
        directory.doubts.discard(name)

    def mutate(self, node: Node, name: bytes, entry: Entry | None) -> None:
        """We changed this name on the server, and know the outcome. A doubt stays: the change that
        it tells of may have followed ours, and overtaken our answer.
        """
        directory = self.of(node)
        directory.mutations += 1
        doubted = name in directory.doubts
        self.keep_entry(node, name, entry, self.stamp(node))
        if doubted:
            directory.stamps.pop(name, None)
            directory.doubts.add(name)

    def refine(self, node: Node, name: bytes, entry: Entry) -> None:
        """The same resource as is cached under this name, with attributes that we know to be newer;
        as fresh as before.
        """
        self._learned(node)
        directory = self._directories.get(node.inode)
        if directory is None:
            return
        directory.ahead = None
        known = directory.entries.get(name)
        if known is None:
            return
        if unpack(known).resource_id == entry.resource_id:
            directory.entries[name] = pack(entry)

    def doubt(self, node: Node, name: bytes) -> None:
        """Somebody changed this name: ask again at its next use."""
        self._learned(node)
        directory = self._directories.get(node.inode)
        if directory is None:
            return
        directory.mutations += 1
        directory.events += 1
        directory.ahead = None
        directory.stamps.pop(name, None)
        directory.doubts.add(name)

    def distrust(self, node: Node) -> None:
        """Events about what is in it may have been missed: it is only what to show when the server
        is away.
        """
        self._learned(node)
        directory = self._directories.get(node.inode)
        if directory is None:
            return
        directory.mutations += 1
        directory.events += 1
        directory.ahead = None
        directory.stamps.clear()
        directory.listed = directory.listed and Stamp(None, float("-inf"))

    def strays(self, node: Node, *, away: bool) -> None:
        """Others have moved it `away` from where it was, or a lookup has found it."""
        if away:
            self.of(node).strayed = True
        elif (directory := self._directories.get(node.inode)) is not None:
            directory.strayed = False

    def has_strayed(self, node: Node) -> bool:
        """What was asked of it, or of what is below, may have been asked of another place."""
        above: Node | None = node
        while above is not None:
            directory = self._directories.get(above.inode)
            if directory is not None and directory.strayed:
                return True
            above = above.above
        return False

    def complete(self, node: Node) -> Directory | None:
        """The directory if its listing is fresh and nobody touched a name of it since."""
        directory = self._directories.get(node.inode)
        if directory is None or directory.doubts or not self.fresh(directory.listed):
            return None
        return directory

    def lookup(self, node: Node, name: bytes) -> tuple[bool, Entry | None]:
        """(known, entry): known and None is a fresh negative."""
        directory = self._directories.get(node.inode)
        if directory is None:
            return False, None
        if name in directory.doubts:
            return False, None
        if self.fresh(directory.listed) or self.fresh(directory.stamps.get(name)):
            return True, self.stale(node, name)
        return False, None

    def stale(self, node: Node, name: bytes) -> Entry | None:
        """The last known entry, fresh or not: for the time when the server cannot be asked."""
        directory = self._directories.get(node.inode)
        packed = directory.entries.get(name) if directory is not None else None
        return unpack(packed) if packed is not None else None


def cursor_number(cursor: str) -> int | None:
    """The number of "EPOCH-NUMBER"."""
    number = cursor.rpartition("-")[2]
    return int(number) if number.isdecimal() and len(number) <= _DIGITS else None

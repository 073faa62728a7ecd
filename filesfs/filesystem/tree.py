"""Tree: from a name to a node, and a directory's listing. Local state first, then what is cached,
then one request.

It must not change anything on the server.
"""

from __future__ import annotations

import errno
import itertools
import logging
from typing import cast

import trio
from msgspec.structs import replace

from filesfs.domain import Entry, Kind, Location
from filesfs.errors import FileSystemError, NotFound, Unavailable
from filesfs.filesystem.content import unsent
from filesfs.filesystem.core import Core, version_of
from filesfs.filesystem.walks import Walks
from filesfs.packed import Listing, Packed
from filesfs.state import names
from filesfs.state.directories import Directory
from filesfs.state.held import Ahead, Stamp
from filesfs.state.inodes import Node, inside, registered

log = logging.getLogger(__name__)

# Single lookups in one directory after which its whole listing is fetched instead: a walk, not a
# visit.
_LOOKUPS_BEFORE_LISTING = 4
_ENTRIES_A_REQUEST = 50  # so many listed entries cost as much as one question, on either side
# A busy directory may overtake an answer; this often it is asked for again.
_TRIES = 3
_AWAY_SECONDS = 1.0
_STEP = 4000  # names taken over before other tasks get their turn: some 2 ms


class Tree:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._fetches: dict[Node, tuple[int, trio.Event]] = {}
        self._misses: dict[Node, int] = {}
        self._walks = Walks(core)

    # -- paths ------------------------------------------------------------------------------------
    def wire_name(self, parent: Node, name: bytes) -> str:
        """The key segment, or at the root the bucket, that a name in this directory stands for."""
        if parent is self._core.inodes.root and not self._core.rules.root.bucket:
            return names.bucket_to_wire(name, self._core.rules.names)
        return names.to_wire(name, self._core.rules.names)

    def shown_name(self, location: Location) -> bytes | None:
        """The name under which a location shows; None: not shown."""
        policy = self._core.rules.names
        if not location.key:
            return names.bucket_from_wire(location.bucket, policy)
        return names.from_wire(location.name, policy)

    def location(self, node: Node) -> Location:
        """Where the node is now; for one without a name, where it was last."""
        return self._joined(node, [])

    def place(self, parent: Node, name: bytes) -> Location:
        return self._joined(parent, [self.wire_name(parent, name)])

    def _joined(self, node: Node, segments: list[str]) -> Location:
        """The location of what lies below the node by these segments, the last one first."""
        while (parent := node.above) is not None:
            segments.append(self.wire_name(parent, node.name))
            node = parent
        if node is self._core.inodes.root:
            start = self._core.rules.root
        elif node.last_location is not None:
            start = node.last_location
        else:
            raise FileSystemError(errno.ESTALE, "the file has no name any more")
        if segments and not start.bucket:
            start = Location(segments.pop())
        if not segments:
            return start
        below = "/".join(reversed(segments))
        return Location(start.bucket, f"{start.key}/{below}" if start.key else below)

    def located(self, node: Node) -> Entry:
        """The node's entry under its present location (a rename above leaves entries alone)."""
        assert node.entry is not None
        return replace(node.entry, location=self.location(node))

    def find(self, location: Location) -> Node | None:
        """The known directory at this place, without asking anybody."""
        node, here = self._core.inodes.root, self._core.rules.root
        segments = _below(here, location)
        if segments is None:
            return None
        for segment in segments:
            here = here.child(segment)
            name = self.shown_name(here)
            entry = self._core.directories.stale(node, name) if name is not None else None
            found = self._core.inodes.find(entry) if entry is not None else None
            if found is None:
                return None
            node = found
        return node

    def read_only(self, node: Node) -> bool:
        """Whether the mount or the node's bucket takes no changes."""
        if self._core.rules.read_only:
            return True
        while (entry := node.entry) is None or not entry.read_only:
            if node.above is None:
                return False
            node = node.above
        return True

    def registered(self, node: Node) -> bool:
        """Whether it lies in a registered location."""
        return registered(node)

    # -- nodes ------------------------------------------------------------------------------------
    def adopt(self, parent: Node, name: bytes, entry: Entry) -> Node:
        """The node for an answer about this name. A version that an open node cannot show gets a
        new one.
        """
        inodes = self._core.inodes
        node = inodes.find(entry)
        if node is not None and (
            node.kind is not entry.kind
            or self._pinned(node, entry)
            or _would_hold_itself(node, parent)
        ):
            inodes.detach(node)
            node = None
        if node is None:
            node = inodes.new_for(entry)
        elif not unsent(node):
            inodes.set_entry(node, entry)
        inodes.add_name(node, parent, name)
        if len(node.names) > 1 and (entry.nlink <= 1 or entry.kind is Kind.DIRECTORY):
            self._only_name(node, parent, name)
        return node

    def _only_name(self, node: Node, parent: Node, name: bytes) -> None:
        for other in [pair for pair in node.names if pair != (parent, name)]:
            self._core.inodes.drop_name(node, *other)

    def _pinned(self, node: Node, entry: Entry) -> bool:
        """An open handle keeps its version, and the kernel the size that it knows: what is on its
        way there may bring back an old one, and cut pages, or what is being written, at it. A
        kernel that gathers writes keeps the times too.
        """
        held = node.entry
        if node.kind is not Kind.FILE or held is None or held is entry or unsent(node):
            return False
        known, other = version_of(held), version_of(entry)
        if self._core.rules.exclusive and node.lookups:
            before, now = held.attributes.modified_ns, entry.attributes.modified_ns
            return (known, before) != (other, now)
        resized = bool(node.lookups) and held.size != entry.size
        return known != other and (node.opens > 0 or resized)

    # -- lookup -----------------------------------------------------------------------------------
    async def child(self, parent: Node, name: bytes) -> Node | None:
        """The node under this name, None if there is none."""
        directory = self._core.directories.known(parent)
        if directory is not None and name in directory.local:
            return directory.local[name]
        entry, ahead = await self._entry(parent, name)
        if entry is None:
            return None
        node = self.adopt(parent, name, entry)
        if node.kind is Kind.DIRECTORY:
            self._core.directories.strays(node, away=False)
        self._core.directories.keep_ahead(node, ahead)
        return node

    async def _entry(self, parent: Node, name: bytes) -> tuple[Entry | None, Ahead | None]:
        known, entry = self._core.directories.lookup(parent, name)
        if known and entry is None:
            self.wire_name(parent, name)  # raises of one that cannot be
        if known:
            return entry, None
        place = self.place(parent, name)
        entry = self._core.directories.ahead(parent, name, place)
        if entry is not None:
            return entry, None
        if self._walking(parent):
            await self.listing(parent)
            known, entry = self._core.directories.lookup(parent, name)
            if known:  # else it changes all the time, and the listing may be older than the name
                return entry, None
        stale = self._core.directories.stale(parent, name)
        try:
            with self._patience(stale is not None):
                return await self._ask(parent, name, place)
        except Unavailable:
            if stale is None:
                raise
        return stale, None

    def _patience(self, cached: bool) -> trio.CancelScope:
        """How long to wait for an answer that something cached can stand in for."""
        away = cached and self._core.directories.lost
        return trio.move_on_after(_AWAY_SECONDS if away else float("inf"))

    def _walking(self, parent: Node) -> bool:
        misses = self._misses[parent] = self._misses.get(parent, 0) + 1
        if len(self._misses) > 1000:
            self._misses.clear()
        # A large directory that was listed before is worth more questions for single names.
        known = len(self._core.directories.of(parent).entries) // _ENTRIES_A_REQUEST
        enough = max(_LOOKUPS_BEFORE_LISTING, known)
        return misses > enough and parent is not self._core.inodes.root

    async def _ask(
        self, parent: Node, name: bytes, place: Location
    ) -> tuple[Entry | None, Ahead | None]:
        """One request. An answer that a change of ours or of others overtook is asked for again."""
        directory = self._core.directories.of(parent)
        entry: Entry | None = None
        for _ in range(_TRIES):
            listing: Listing | None = None
            before = self._core.directories.heard(parent, name)
            stamp = self._core.directories.stamp(parent)
            try:
                if name in directory.entries:  # what is in it was wanted before, or is not
                    entry = await self._core.backend.stat(place)
                else:
                    entry, listing = await self._core.backend.look_up(place)
            except NotFound:
                entry = None
            if self._core.directories.heard(parent, name) == before:
                self._core.directories.keep_entry(parent, name, entry, stamp)
                return entry, Ahead(listing, stamp) if listing is not None else None
        return entry, None

    # -- listing ----------------------------------------------------------------------------------
    async def listing(self, node: Node) -> Directory:
        """The directory, complete. Concurrent callers share one fetch that began after their last
        change.
        """
        for attempt in itertools.count(1):
            fresh = self._core.directories.complete(node)
            if fresh is not None:
                return fresh
            directory = self._core.directories.of(node)
            if attempt < _TRIES and self._few_doubts(directory):
                await self._settle_doubts(node, directory)
                continue
            running = self._fetches.get(node)
            if running is not None and running[0] == directory.mutations:
                await running[1].wait()
                continue
            try:
                with self._patience(directory.listed is not None) as patience:
                    if await self._fetch(node, directory, last=attempt >= _TRIES):
                        break
                if not patience.cancelled_caught:
                    continue
            except Unavailable:
                if directory.listed is None:
                    raise
            log.warning("%s: the server is away, showing what is cached", self.location(node))
            break
        return directory

    def _few_doubts(self, directory: Directory) -> bool:
        """Whether asking for each doubted name costs less than listing the directory anew."""
        doubts = len(directory.doubts) * _ENTRIES_A_REQUEST
        return self._core.directories.fresh(directory.listed) and doubts <= len(directory.entries)

    async def _settle_doubts(self, node: Node, directory: Directory) -> None:
        for name in list(directory.doubts):
            await self._ask(node, name, self.place(node, name))

    async def _fetch(self, node: Node, directory: Directory, *, last: bool) -> bool:
        """At most one request. False when a change overtook it; the last try's answer is shown, not
        trusted.
        """
        done = trio.Event()
        mutations, stamp = directory.mutations, self._core.directories.stamp(node)
        self._fetches[node] = (mutations, done)
        try:
            where = self.location(node)
            walking = self._walks.came_to(node)
            ahead = self._core.directories.take_ahead(node, where)
            if ahead is not None:
                listing, stamp = ahead.listing, ahead.stamp
            elif walking:
                listing = await self._walks.ask(node, where, stamp)
            else:
                listing = await self._core.backend.list_directory(where)
            shown = await self._shown(node, listing)
        finally:
            done.set()
            if self._fetches.get(node) == (mutations, done):
                del self._fetches[node]
        overtaken = directory.mutations != mutations
        if overtaken and not last:
            return False
        if overtaken:
            stamp = Stamp(None, float("-inf"))
        if self._core.directories.overtaken(where, listing.cursor):
            stamp = Stamp(None, stamp.taken)
        self._misses.pop(node, None)
        self._core.directories.keep_listing(node, shown, stamp)
        return True

    async def _shown(self, node: Node, listing: Listing) -> dict[bytes, Packed]:
        """By name, in steps that let others go on."""
        shown: dict[bytes | None, Packed] = {}
        policy = self._core.rules.names
        from_wire = names.all_from_wire if listing.location.bucket else names.buckets_from_wire
        wire_names, at_rest = list(listing.at_rest), list(listing.at_rest.values())
        for start in range(0, len(at_rest), _STEP):
            if start:
                await trio.lowlevel.checkpoint()
            step = slice(start, start + _STEP)
            found = from_wire(wire_names[step], policy)
            shown.update(zip(found, at_rest[step], strict=True))
        shown.pop(None, None)  # what such names are told as
        if hidden := len(at_rest) - len(shown):
            log.info("%s: %d keys have names that Linux cannot hold", self.location(node), hidden)
        return cast("dict[bytes, Packed]", shown)

    async def snapshot(self, node: Node) -> list[bytes]:
        """The names, the server's and then the local ones."""
        directory = await self.listing(node)
        local = (name for name in directory.local if name not in directory.entries)
        return [*directory.entries, *local]


def _would_hold_itself(node: Node, parent: Node) -> bool:
    """No path may come round to where it began. What a sane server says never does; of what we
    remember, something is old.
    """
    return node.kind is Kind.DIRECTORY and inside(parent, node)


def _below(root: Location, location: Location) -> list[str] | None:
    """The segments from the mount's root down to the location; None if it lies elsewhere."""
    above = [part for part in (root.bucket, *root.key.split("/")) if part]
    path = [part for part in (location.bucket, *location.key.split("/")) if part]
    return path[len(above) :] if path[: len(above)] == above else None

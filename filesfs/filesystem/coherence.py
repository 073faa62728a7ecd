"""Coherence: what others change, as the change feed tells it, drops what we and the kernel have
cached of it.

It must not fetch anything: a doubt is enough, the next use asks.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import trio

from filesfs.domain import Change, Kind, Location
from filesfs.errors import FilesfsError, Gone
from filesfs.filesystem.core import Core
from filesfs.filesystem.tree import Tree
from filesfs.state.inodes import Node
from filesfs.wire import Extension, Operation

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 1.0
_MOVES = (Operation.MOVE, Operation.EXCHANGE)
_LEAVES_NAMES = (Operation.MOVE, Operation.DELETE)


class Coherence:
    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self._gap = True

    async def run(self) -> None:
        """Follow the feed for the life of the mount; without one, everything stays on its ttl."""
        if Extension.CHANGES not in self._core.backend.extensions:
            return
        while True:
            try:
                async with self._core.backend.changes() as events:
                    self._core.directories.feed_connected(gap=self._gap)
                    self._core.leases.feed_connected()
                    self._gap = False
                    async for change in events:
                        if change.recall:
                            self._core.nursery.start_soon(self._confirm, change)
                        else:
                            self.apply(change)
            except Gone:
                log.warning("the change feed has a gap: cached names are asked for again")
                self._gap = True
            except FilesfsError as error:
                log.info("change feed: %s", error)
            except Exception:  # nobody waits for it here, and the mount must live
                log.exception("change feed: unexpected")
                self._gap = True
            self._lost()
            await trio.sleep(_RECONNECT_SECONDS)

    async def _confirm(self, recall: Change) -> None:
        """Somebody's change waits until we have heard of it, which we have: events come in order.
        If he does not learn that, the leases run out.
        """
        try:
            lease = await self._core.backend.extend_leases(recall.recall, recall.cursor)
            if lease is not None:
                self._core.leases.extend(lease)
        except FilesfsError as error:
            log.info("a recalled lease is not confirmed: %s", error)

    async def end(self) -> None:
        """The mount goes: nobody has to wait for it."""
        leases = self._core.leases
        if leases.term and self._core.directories.feed:  # else it has no use, or cannot be told
            leases.feed_lost()
            with suppress(FilesfsError):
                await self._core.backend.return_leases(leases.term)

    def _lost(self) -> None:
        """Without the feed nothing is believed for longer than the ttl, by the kernel neither."""
        self._core.leases.feed_lost()
        self._core.directories.feed_lost()
        for node in self._core.inodes:
            for parent, name in node.names:
                self._core.kernel.entry_changed(parent.inode, name)
            self._core.kernel.inode_changed(node.inode, content=False)

    def apply(self, change: Change) -> None:
        """One event."""
        if not change.locations:
            self._core.directories.feed_caught_up()
        for location in change.locations:
            self._core.directories.note_event(location.parent, change.cursor)
        if not change.own:
            self._core.leases.heard(change)
            for location in change.locations:
                self.doubt(location, change.operation)
            if change.resource_id is not None:
                node = self._core.inodes.of_resource(change.resource_id)
                self._doubt_links(node)
                self._doubt_below(node, change.operation)

    def _doubt_links(self, node: Node | None) -> None:
        """A file's other names: the event has one, but its link count shows under each."""
        if node is None or node.kind is Kind.DIRECTORY:
            return
        for parent, name in node.names:
            self._core.directories.doubt(parent, name)
            self._core.kernel.entry_changed(parent.inode, name)
        self._core.kernel.inode_changed(node.inode, content=False)

    def _doubt_below(self, moved: Node | None, operation: Operation) -> None:
        """Until somebody looks up its new name, no event about what is in a directory finds it."""
        if moved is not None and moved.kind is Kind.DIRECTORY and operation in _MOVES:
            self._core.distrust_below(moved)
            self._core.directories.strays(moved, away=True)

    def _doubt_times(self, directory: Location) -> None:
        """A name in it changed, and so did its own attributes."""
        above, name = self._tree.find(directory.parent), self._tree.shown_name(directory)
        if above is not None and name is not None and directory.bucket:
            self._core.directories.doubt(above, name)

    def _doubt_implied(self, directory: Location, operation: Operation) -> None:
        """Directories that keys imply come with the first name in them and go with the last one,
        several at once, and no event names them: of those above the changed name, each that may
        have come or gone.
        """
        while directory.key and directory != self._core.rules.root:
            above, name = self._tree.find(directory.parent), self._tree.shown_name(directory)
            if above is not None and name is not None:
                known = self._core.directories.stale(above, name) is not None
                if known and operation not in _LEAVES_NAMES:
                    return
                self._core.directories.doubt(above, name)
                self._core.kernel.entry_changed(above.inode, name)
                self._core.kernel.inode_changed(above.inode, content=False)
                if not (known and self._may_be_bare(above)):
                    return
            directory = directory.parent

    def _may_be_bare(self, directory: Node) -> bool:
        """Nothing is known to be left in it."""
        known = self._core.directories.known(directory)
        return known is None or all(name in known.doubts for name in known.entries)

    def appeared(self, location: Location) -> None:
        """We stored a version here that no node of ours stands for, and no event will tell."""
        self._core.leases.moved(location, tree=False)
        self.doubt(location, Operation.COMMIT)

    def doubt(self, location: Location, operation: Operation) -> None:
        """Somebody changed this name: nothing cached of it counts, here or in the kernel."""
        if held := self._core.directories.held:
            held.heard(location)
            if operation in _MOVES:
                held.moved(location)
        root = self._core.rules.root
        if location == root:
            self._core.kernel.inode_changed(self._core.inodes.root.inode, content=False)
            return
        name = self._tree.shown_name(location)
        parent = self._tree.find(location.parent)
        if parent is None or name is None:
            self._doubt_times(location.parent)
            self._doubt_implied(location.parent, operation)
            return
        entry = self._core.directories.stale(parent, name)
        self._core.directories.doubt(parent, name)
        self._core.kernel.entry_changed(parent.inode, name)
        self._core.kernel.inode_changed(parent.inode, content=False)
        self._doubt_times(location.parent)
        if operation in _LEAVES_NAMES and self._may_be_bare(parent):
            self._doubt_implied(location.parent, operation)
        node = self._core.inodes.find(entry) if entry is not None else None
        self._doubt_below(node, operation)
        if node is not None:
            clean = operation is Operation.COMMIT or operation in _MOVES
            self._core.kernel.inode_changed(node.inode, content=clean and node.opens == 0)

"""Filesystem: what a path operation means. Knows neither pyfuse3 nor httpx.

The parts, in the order a request goes through them: `tree` finds nodes, `files` has their bytes,
`namespace` and `rename` change names, `attributes` show and change what stat tells, `coherence`
hears of others' changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from filesfs.domain import FILE, Entry, Handle, Inode, Kind, Usage
from filesfs.errors import FilesfsError, FileSystemError
from filesfs.filesystem.attributes import AttributeView
from filesfs.filesystem.coherence import Coherence
from filesfs.filesystem.core import Caller, Core, Kernel, Rules, Stat
from filesfs.filesystem.files import Files
from filesfs.filesystem.namespace import Namespace
from filesfs.filesystem.rename import Renaming
from filesfs.filesystem.tree import Tree
from filesfs.packed import form_of, unpack
from filesfs.state.directories import Directory
from filesfs.state.handles import DirectoryHandle, HandleTable
from filesfs.state.inodes import Node

__all__ = ["Caller", "Core", "Filesystem", "Kernel", "Rules", "Stat"]

_USAGE_SECONDS = 1.0  # statfs is asked for in bursts


class Filesystem:
    """The facade that the kernel's side calls, and the tests without a kernel."""

    def __init__(self, core: Core) -> None:
        self.core = core
        core.inodes.on_release = self._released
        self.tree = Tree(core)
        self.files = Files(core, self.tree)
        self.namespace = Namespace(core, self.tree, self.files)
        self.renaming = Renaming(core, self.tree, self.files, self.namespace)
        self.attributes = AttributeView(core, self.tree, self.files)
        self.coherence = Coherence(core, self.tree)
        self.files.commits.backlog.on_appeared = self.coherence.appeared
        self.directories: HandleTable[DirectoryHandle] = HandleTable()
        self._usage: tuple[float, Usage] | None = None

    def _released(self, node: Node) -> None:
        """No event reaches a directory without a node, so nothing cached of it may outlive it."""
        if node.kind is Kind.DIRECTORY:
            self.files.prefetch.forget(node)
            self.core.directories.released(node)

    # -- directories ------------------------------------------------------------------------------
    async def opendir(self, inode: Inode) -> Handle:
        node = self.core.node(inode)
        handle = DirectoryHandle(node, await self.tree.snapshot(node))
        return self.directories.add(handle)

    async def entries(self, number: Handle, start: int) -> list[bytes]:
        """The snapshot, to be read from position `start` on; a rewind takes it anew."""
        handle = self.directories[number]
        if start == 0 and handle.started:
            handle.snapshot = await self.tree.snapshot(handle.node)
        handle.started = True
        return handle.snapshot

    def listed(
        self, parent: Node, snapshot: list[bytes], start: int, *, counts: bool
    ) -> Iterator[tuple[int, bytes, Node, Stat]]:
        """Of each name from position `start` on: the position, the name, the node for it as it is
        now, and what stat shows of that. Names that went since the listing was taken are left out.
        `counts`: what `listing_counts` says. Only after a device there may be an `await`.
        """
        known, ttl = self.core.directories.known(parent), self.attributes.ttl(None)
        at_rest, stat_at_rest = self.core.inodes.at_rest, self.attributes.stat_at_rest
        for position in range(start, len(snapshot)):
            if known is None:
                return
            name = snapshot[position]
            packed, node = known.entries.get(name), None
            if packed is not None and name not in known.local:
                form = form_of(packed)
                node = at_rest(form, packed, parent, name)
            if node is not None:  # nearly always
                status = stat_at_rest(node, form, ttl)
            elif found := self._listed(known, parent, name, counts=counts):
                node, status = found
            else:
                continue
            yield position, name, node, status
            if node.kind is not FILE:  # a device's number may have been waited for
                known, ttl = self.core.directories.known(parent), self.attributes.ttl(None)

    def _listed(
        self, known: Directory, parent: Node, name: bytes, *, counts: bool
    ) -> tuple[Node, Stat] | None:
        node = known.local.get(name)
        if node is None:
            packed = known.entries.get(name)
            if packed is None:
                return None
            node = self._listed_again(parent, name, unpack(packed), counts=counts)
        return node, self.attributes.stat(node)

    def _listed_again(self, parent: Node, name: bytes, entry: Entry, *, counts: bool) -> Node:
        if not counts:
            there = self.core.inodes.find(entry)
            if there is not None and there.names:  # it may have moved since, and we know better
                return there
        return self.tree.adopt(parent, name, entry)

    def listing_counts(self, parent: Node) -> bool:
        """The names are as they are now. Else changes overtook the listing, and the kernel must
        look each name up before it uses it: an old one would lead to a file that has moved on.
        """
        return self.core.directories.complete(parent) is not None

    def releasedir(self, number: Handle) -> None:
        self.directories.pop(number)

    # -- names ------------------------------------------------------------------------------------
    async def look_up(self, parent: Node, name: bytes, thread: int) -> Node | None:
        """The node under this name, None if there is none."""
        second, directories = self.files.second_tries, self.core.directories
        if not second:
            return await self.tree.child(parent, name)
        if directories.asked(parent, name) < second.needs(thread, (parent.inode, name)):
            directories.doubt(parent, name)
        node = await self.tree.child(parent, name)
        if node is not None:
            second.found(node, (parent.inode, name), directories.asked(parent, name))
        else:
            second.end(thread)
        return node

    async def fresh(self, node: Node, thread: int) -> Stat:
        """What stat shows, for a kernel that asks because what it knew has run out. In the second
        try of the thread's open() the node is what was looked up for it.
        """
        second = self.files.second_tries
        if second and self.files.is_asked(node, thread):
            return self.attributes.stat(node)
        try:
            return await self.attributes.fresh(node)
        except FileSystemError:  # ESTALE
            second.spend(thread)
            raise

    # -- the rest ---------------------------------------------------------------------------------
    async def usage(self) -> Usage:
        """Bytes and files, at most a second old."""
        now = trio.current_time()
        if self._usage is None or now - self._usage[0] > _USAGE_SECONDS:
            try:
                self._usage = (now, await self.core.backend.usage())
            except FilesfsError:
                if self._usage is None:
                    raise
        return self._usage[1]

    def forget(self, inode: Inode, count: int) -> None:
        self.core.inodes.forget(inode, count)

    async def fsyncdir(self, inode: Inode) -> None:
        """What is local in a directory and was asked to be durable: its new files."""
        known = self.core.directories.known(self.core.node(inode))
        for node in list(known.local.values()) if known is not None else []:
            await self.files.commits.commit(node)

"""Walks: who goes through directories one after the other has the next ones listed along.

It must not change anything on the server, nor decide what a listing is worth: that is the cache's.
"""

from __future__ import annotations

from filesfs.domain import Location
from filesfs.filesystem.core import Core
from filesfs.packed import Listing
from filesfs.state.held import Ahead, Stamp
from filesfs.state.inodes import Node, registered
from filesfs.state.walking import Walking


class Walks:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._walking = Walking()

    def came_to(self, node: Node) -> bool:
        """Somebody wants this directory's listing; whether that is a step of a walk."""
        above = node.above
        if above is None or not self._listed_above(node):
            return False
        return self._walking.step(node.inode, above.inode)

    async def ask(self, node: Node, where: Location, stamp: Stamp) -> Listing:
        """The directory's listing from the server, those of the next ones along with it."""
        most = 0 if registered(node) else self._size()
        if not most:
            return await self._core.backend.list_directory(where)
        directories, levels = self._core.directories, self._listed_above(node)
        with directories.held.flight() as flight:
            listing, behind = await self._core.backend.list_walk(where, levels, most)
            for each in behind:
                directories.held.keep(flight, Ahead(each, stamp), wanted=not self._is_known(each))
        return listing

    def _size(self) -> int:
        held = self._core.directories.held
        held.expire()
        used, lost = held.told()
        return self._walking.size(used=used, lost=lost, held=held.entries)

    def _listed_above(self, node: Node) -> int:
        """How many of the directories above were listed, from the next one on."""
        levels, above = 0, node.above
        while above is not None:
            known = self._core.directories.known(above)
            if known is None or known.listed is None:
                break
            levels, above = levels + 1, above.above
        return levels

    def _is_known(self, listing: Listing) -> bool:
        resource = listing.resource_id
        node = self._core.inodes.of_resource(resource) if resource is not None else None
        return node is not None and self._core.directories.complete(node) is not None

"""Small files of a directory that is walked are fetched before they are opened, many in a request.

What comes with a lease can be opened and read without asking anybody (0041). It must not hold up an
open(), nor tell anybody of its troubles: each file can be asked for by itself. What is not as the
directory knows it by then, or was changed meanwhile, here or by others, is left to that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import trio

from filesfs.domain import Inode, Kind, Lease, Location
from filesfs.errors import FilesfsError, FileSystemError
from filesfs.filesystem.core import Core, version_of
from filesfs.filesystem.tree import Tree
from filesfs.packed import Packed, form_of, kind_of_form, unpack
from filesfs.read.ahead import UNREAD_BYTES, Ahead, Fetch, Order
from filesfs.state.directories import Directory
from filesfs.state.inodes import Node, derived_inode, registered
from filesfs.wire import CONTENT_BYTES, Extension

log = logging.getLogger(__name__)

_DIGITS = re.compile(rb"([0-9]{1,18})")
_NEEDED = frozenset({Extension.CONTENTS, Extension.LEASES})
_PATIENCE_SECONDS = 10.0
# What is fetched takes the place of what was read longest ago: a small part of the cache at most.
_PART = 8
_SORTED = 2_000  # names that are put into another order: 4 ms
_STEP = 32  # files taken in before other tasks get their turn: 0.3 ms


class Prefetch:
    """Owner of what is known of walks. Sync but for the fetches, which nobody waits for."""

    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self._walks: Ahead[Inode] = Ahead(self._drop)

    def __len__(self) -> int:
        """Directories."""
        return len(self._walks)

    def opened(self, node: Node, *, leased: bool) -> None:
        """A file is about to be read; without a lease the server is about to be asked for it."""
        parent = node.above
        if parent is None or (leased and not self._walks.expects(parent.inode, node.name)):
            return
        if not self._is_of_use(parent):
            return
        directory = self._core.directories.known(parent)
        if directory is None or not self._core.directories.fresh(directory.listed):
            return
        try:
            files = _Files(self._core, self._tree, parent, directory)
        except FileSystemError:  # it has no place any more
            return
        fetch = self._walks.opened(parent.inode, node.name, files)
        if fetch is not None:
            self._core.nursery.start_soon(self._run, fetch)

    def forget(self, directory: Node) -> None:
        """The kernel forgot it: what is known of a walk, with all names, does not outlive it."""
        self._walks.forget(directory.inode)

    def _is_of_use(self, parent: Node) -> bool:
        core = self._core
        if not core.directories.feed or not core.backend.extensions >= _NEEDED:
            return False
        return core.blocks.holds(_PART * UNREAD_BYTES) and not registered(parent)

    async def _run(self, fetch: Fetch[Inode]) -> None:
        sizes: dict[bytes, int] = {}
        try:
            with trio.move_on_after(_PATIENCE_SECONDS):
                sizes = await self._fetch(fetch)
        except FilesfsError as error:
            log.debug("not fetched ahead: %s", error)
        except Exception:  # nobody waits for it here, and the mount must live
            log.exception("fetching ahead: unexpected")
        self._walks.came(fetch, sizes)

    async def _fetch(self, fetch: Fetch[Inode]) -> dict[bytes, int]:
        """How long each of the files is that can be opened now without asking anybody."""
        parent = self._core.node(fetch.key)
        where, mark = self._tree.location(parent), self._core.leases.mark
        names = {self._tree.wire_name(parent, name): name for name in fetch.names}
        many = await self._core.backend.read_many(where, list(names))
        sizes: dict[bytes, int] = {}
        for number, (wire_name, packed) in enumerate(many.at_rest.items(), 1):
            if self._core.inodes.get(fetch.key) is not parent or self._is_moved(parent, where):
                break
            name, content = names[wire_name], many.contents[wire_name]
            known = self._is_known(parent, name, packed)
            if known and self._take(packed, content, many.lease, mark):
                sizes[name] = len(content)
            if not number % _STEP:
                await trio.lowlevel.checkpoint()
        return sizes

    def _is_moved(self, parent: Node, where: Location) -> bool:
        return bool(self._core.moving) or self._tree.location(parent) != where

    def _is_known(self, parent: Node, name: bytes, packed: Packed) -> bool:
        """Whether the directory has just this under the name."""
        known = self._core.directories.of(parent).entries.get(name)
        return known is not None and _state(known) == _state(packed)

    def _take(self, packed: Packed, content: memoryview, lease: Lease | None, mark: int) -> bool:
        """Whether it was leased, so that its content will be of use."""
        entry = unpack(packed)
        self._core.leases.grant(lease, mark, entry)
        if not self._core.leases.covers(entry.location, entry.etag):
            return False
        if content:
            # In bytes of its own, or each one would keep all of the answer in memory.
            self._core.blocks.put(version_of(entry), 0, bytes(content))
        return True

    def _drop(self, inode: Inode, name: bytes) -> None:
        """Nobody is going to read it."""
        parent = self._core.inodes.get(inode)
        directory = self._core.directories.known(parent) if parent is not None else None
        packed = directory.entries.get(name) if directory is not None else None
        if packed is not None:
            self._core.blocks.drop(version_of(unpack(packed)))


class _Files:
    """read.ahead.Directory of one that was listed."""

    def __init__(self, core: Core, tree: Tree, parent: Node, directory: Directory) -> None:
        self._leases = core.leases
        self._directory = directory
        self._place = tree.location(parent)
        self._tree = tree
        self._parent = parent

    def names(self, order: Order) -> Sequence[bytes]:
        entries = self._directory.entries
        if order is Order.LISTING:
            return list(entries)
        if len(entries) > _SORTED:
            return ()
        if order is Order.NATURAL:
            return sorted(entries, key=_natural)
        return sorted(entries, key=lambda name: _number(entries[name]))

    def size(self, name: bytes) -> int | None:
        """None of what is no small file, or is leased already; what has several names cannot be."""
        packed = self._directory.entries.get(name)
        if packed is None or name in self._directory.local or name in self._directory.doubts:
            return None
        form = form_of(packed)
        if form.size > CONTENT_BYTES or form.nlink != 1 or kind_of_form(form) is not Kind.FILE:
            return None
        location = self._place.child(self._tree.wire_name(self._parent, name))
        return None if self._leases.covers(location, form.etag) else form.size


def _natural(name: bytes) -> list[bytes | int]:
    """Text and numbers take turns."""
    parts: list[bytes | int] = list(_DIGITS.split(name))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _number(packed: Packed) -> int:
    """The inode's, as readdir tells it of a file with one name."""
    resource_id = form_of(packed).resource_id
    return derived_inode(resource_id) if resource_id else 0


def _state(packed: Packed) -> tuple[object, ...]:
    """What differs after each change."""
    form = form_of(packed)
    return form.resource_id, form.etag, form.changed_ns, form.nlink

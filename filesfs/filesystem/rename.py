"""Renaming: one MOVE at the server, or none at all for what is not there yet.

A directory is renamed alone (NamespaceLock): no commit of a new file below it may be under way.
Afterwards the nodes hang elsewhere and their paths follow, because a path is made of names and
never stored.
"""

from __future__ import annotations

import errno
from contextlib import AsyncExitStack, suppress
from operator import attrgetter

import trio

from filesfs.domain import Kind
from filesfs.errors import (
    Conflict,
    FileSystemError,
    NotFound,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from filesfs.filesystem.content import Content
from filesfs.filesystem.core import Core
from filesfs.filesystem.files import Files
from filesfs.filesystem.namespace import Namespace
from filesfs.filesystem.tree import Tree
from filesfs.state.inodes import Node, inside

NOREPLACE = 1  # renameat2(2)
EXCHANGE = 2


class Renaming:
    def __init__(self, core: Core, tree: Tree, files: Files, namespace: Namespace) -> None:
        self._core = core
        self._tree = tree
        self._files = files
        self._namespace = namespace

    async def rename(self, old: tuple[Node, bytes], new: tuple[Node, bytes], flags: int) -> None:
        """rename(2) and renameat2(2). Errors are the kernel's own, in its order."""
        if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
            raise FileSystemError(errno.EINVAL)
        source = await self._source(old, new)
        target = await self._tree.child(*new)
        self._check(source, target, old[0], new[0], flags)
        for node in (source, target) if flags & EXCHANGE else ():
            if node is not None and node.local:
                await self._files.commits.push(node)
        if source is target:
            return  # two names of one file: nothing happens, POSIX says
        directory = source.kind is Kind.DIRECTORY or (
            target is not None and target.kind is Kind.DIRECTORY
        )
        if directory:  # once without holding anything up, and again with the lock
            await self._send_below(source, old, new, flags)
        async with AsyncExitStack() as held:
            await self._hold(held, source, target, (old[0], new[0]))
            if directory:
                await self._send_below(source, old, new, flags)
            await self._locked(source, target, old, new, flags)
        for node in (source, target):
            if node is not None and isinstance(node.content, Content):
                await self._files.commits.settle(node)

    async def _send_below(
        self, source: Node, old: tuple[Node, bytes], new: tuple[Node, bytes], flags: int
    ) -> None:
        """The journal knows paths: what it has below a directory goes up before that moves."""
        if source.kind is Kind.DIRECTORY:
            await self._files.commits.backlog.clear_below(self._tree.place(*old))
        if flags & EXCHANGE:
            await self._files.commits.backlog.clear_below(self._tree.place(*new))

    async def _source(self, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> Node:
        if any(map(self._tree.read_only, {old[0], new[0]})):
            raise FileSystemError(errno.EROFS, "read-only")
        source = await self._tree.child(*old)
        if source is None:
            raise FileSystemError(errno.ENOENT)
        return source

    def _check(
        self, source: Node, target: Node | None, from_: Node, into: Node, flags: int
    ) -> None:
        root = self._core.inodes.root
        if not self._core.rules.root.bucket and root in (from_, into):
            code = errno.EPERM if source.kind is Kind.FILE else errno.EXDEV
            raise FileSystemError(code, "a bucket cannot be renamed, nothing else lives beside it")
        if inside(into, source) or (flags & EXCHANGE and target and inside(from_, target)):
            raise FileSystemError(errno.EINVAL, "into its own subtree")
        if flags & EXCHANGE:
            if target is None:
                raise FileSystemError(errno.ENOENT)
            return
        if target is not None:
            self._check_target(source, target, flags)

    def _check_target(self, source: Node, target: Node, flags: int) -> None:
        if flags & NOREPLACE:
            raise FileSystemError(errno.EEXIST)
        if source.kind is Kind.DIRECTORY and target.kind is not Kind.DIRECTORY:
            raise FileSystemError(errno.ENOTDIR)
        if source.kind is not Kind.DIRECTORY and target.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EISDIR)
        known = self._core.directories.known(target)
        if target.kind is Kind.DIRECTORY and known is not None and known.local:
            raise FileSystemError(errno.ENOTEMPTY)

    async def _hold(
        self, held: AsyncExitStack, source: Node, target: Node | None, stays: tuple[Node, ...]
    ) -> None:
        """With no commit of either under way: both content locks, in a fixed order, and then the
        namespace, as a commit takes them.
        """
        both = [source] if target is None else sorted((source, target), key=attrgetter("inode"))
        moves = tuple(node for node in both if node.kind is Kind.DIRECTORY)
        for node in both:
            if isinstance(node.content, Content):
                await held.enter_async_context(node.content.lock)
        await held.enter_async_context(self._core.namespace.held(stays=stays, moves=moves))

    async def _locked(
        self,
        source: Node,
        target: Node | None,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
        flags: int,
    ) -> None:
        """With the locks."""
        await self._send_ahead(source, target, old, new)
        moved = dict.fromkeys(filter(None, (source, target)), trio.Event())
        self._core.moving |= moved
        try:
            if flags & EXCHANGE:
                assert target is not None
                await self._exchange(source, target, old, new)
            elif source.local:
                await self._uncover(*old)
                self._hang(source, target, old, new)
            else:
                await self._move(source, target, old, new, flags)
        finally:
            for node, told in moved.items():
                told.set()
                if self._core.moving.get(node) is told:  # not a later rename's
                    del self._core.moving[node]

    async def _send_ahead(
        self,
        source: Node,
        target: Node | None,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
    ) -> None:
        """What the journal has of them goes up first; only a new file that covers nothing, here or
        there, takes its record along: then nothing is awaited until it is there.
        """
        covered = [place for place in (old, new) if self._core.directories.stale(*place)]
        free = target is None and not covered
        if not free or not source.local or not self._files.commits.backlog.movable(source):
            await self._files.commits.backlog.clear(source)
        if target is not None:
            await self._files.commits.backlog.clear(target)

    async def _move(
        self,
        source: Node,
        target: Node | None,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
        flags: int,
    ) -> None:
        over_local = target is not None and target.local
        overwrite = not flags & NOREPLACE or over_local
        stamped = await self._ask(source, old, new, overwrite=overwrite, exchange=False)
        if target is not None:
            self._namespace.disappeared(target, *new, stamped)
            self._core.directories.drop(target)
        self._rehang(source, old, new, stamped)
        self._doubt_below(source)
        self._count_links(source, target, old[0], new[0])

    async def _ask(
        self,
        source: Node,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
        *,
        overwrite: bool,
        exchange: bool,
    ) -> int:
        """When the server stamped it; 0 where it does not say."""
        places = self._tree.place(*old), self._tree.place(*new)
        try:
            stamped = await self._core.backend.move(
                *places, source.kind, overwrite=overwrite, exchange=exchange
            )
        except PreconditionFailed as error:
            raise FileSystemError(errno.EEXIST) from error
        except NotFound as error:
            self._core.directories.doubt(*old)
            raise FileSystemError(errno.ENOENT) from error
        except Unsupported as error:
            raise FileSystemError(errno.EXDEV, str(error)) from error
        except Conflict:
            self._core.directories.doubt(*new)
            raise
        except Unavailable:  # it may have been done
            self._core.leases.clear()
            for parent, name in (old, new):
                self._core.directories.doubt(parent, name)
                self._core.kernel.entry_changed(parent.inode, name)
            raise
        finally:  # also where its answer was lost
            if source.kind is Kind.DIRECTORY or exchange:
                for place in (old, new):
                    self._core.directories.held.moved(self._tree.place(*place))
        self._core.leases.moved(*places, tree=exchange or source.kind is Kind.DIRECTORY)
        return stamped

    async def _uncover(self, parent: Node, name: bytes) -> None:
        """What an unsent file stood in front of was replaced by it, and goes now that it leaves."""
        covered = self._core.directories.stale(parent, name)
        if covered is not None:
            with suppress(NotFound):
                await self._core.backend.remove(self._tree.place(parent, name), covered.kind)
            self._core.directories.mutate(parent, name, None)

    def _hang(
        self, source: Node, target: Node | None, old: tuple[Node, bytes], new: tuple[Node, bytes]
    ) -> None:
        """A file that is not on the server yet: only its place changes. What it covers stays until
        it commits.
        """
        if target is not None:
            covered = self._core.directories.stale(*new)
            self._namespace.disappeared(target, *new)
            if covered is not None:  # still there for others, and for a crash
                self._core.directories.mutate(*new, covered)
        self._swap_names(source, old, new)
        self._core.directories.of(old[0]).local.pop(old[1], None)
        self._core.directories.of(new[0]).local[new[1]] = source

    def _rehang(
        self, source: Node, old: tuple[Node, bytes], new: tuple[Node, bytes], stamped: int
    ) -> None:
        """The server has moved it: entries and names follow, the ctime is now's."""
        entry = source.entry
        assert entry is not None
        self._core.directories.mutate(*old, None)
        self._core.directories.mutate(*new, entry)
        self._swap_names(source, old, new, stamped)
        if source.kind is Kind.DIRECTORY and entry.resource_id is None:
            self._core.directories.drop(source)

    def _doubt_below(self, moved: Node) -> None:
        """What others did in it before we had our answer was told of a place unknown to us."""
        if moved.kind is not Kind.DIRECTORY:
            return
        if self._core.directories.told_below(self._tree.location(moved)):
            self._core.distrust_below(moved)

    def _swap_names(
        self, source: Node, old: tuple[Node, bytes], new: tuple[Node, bytes], stamped: int = 0
    ) -> None:
        inodes = self._core.inodes
        inodes.move_name(source, old, new)
        try:
            self._files.commits.backlog.moved(source)
        except OSError:  # the journal's disk is full: its record has the old name
            inodes.move_name(source, new, old)
            raise
        now = stamped or self._core.now()
        for parent in {old[0], new[0]}:
            self._core.touched(parent, now)
        source.pending_ctime = now

    async def _exchange(
        self, source: Node, target: Node, old: tuple[Node, bytes], new: tuple[Node, bytes]
    ) -> None:
        stamped = await self._ask(source, old, new, overwrite=True, exchange=True)
        assert source.entry is not None
        assert target.entry is not None
        self._core.directories.mutate(*old, target.entry)
        self._core.directories.mutate(*new, source.entry)
        inodes = self._core.inodes
        for node, was, is_ in ((source, old, new), (target, new, old)):
            inodes.add_name(node, *is_)
            inodes.drop_name(node, *was)
        now = stamped or self._core.now()
        for node in {old[0], new[0]}:
            self._core.touched(node, now)
        source.pending_ctime = target.pending_ctime = now
        for node, from_, into in ((source, old[0], new[0]), (target, new[0], old[0])):
            self._count_links(node, None, from_, into)
            self._doubt_below(node)

    def _count_links(self, source: Node, target: Node | None, from_: Node, into: Node) -> None:
        if source.kind is Kind.DIRECTORY:
            self._namespace.count_link(from_, -1)
            self._namespace.count_link(into, 1)
        if target is not None and target.kind is Kind.DIRECTORY:
            self._namespace.count_link(into, -1)

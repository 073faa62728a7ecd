"""What the parts of the file system share: settings, the caller, stat values, the owners. No
policy, no I/O.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Container
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import trio
from msgspec.structs import replace

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import Entry, Inode, Kind, Location
from filesfs.errors import FileSystemError
from filesfs.read.blocks import BlockCache, version_of
from filesfs.state.directories import DirectoryCache
from filesfs.state.inodes import InodeTable, Node, inside
from filesfs.state.leases import Leases
from filesfs.state.names import NamePolicy
from filesfs.write.buffer import SpoolFolder
from filesfs.write.journal import Journal
from filesfs.write.upload import Uploader

__all__ = ["Caller", "Core", "Kernel", "NamespaceLock", "Rules", "Stat", "version_of"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: numeric ids, the umask for what is created, how to learn the other groups, which is
    only done where they count, and the thread's number, 0 for none.
    """

    uid: int = 0
    gid: int = 0
    umask: int = 0
    groups: Callable[[], Container[int]] = field(default=tuple, compare=False)
    thread: int = 0

    def is_in(self, gid: int) -> bool:
        """Whether this is root or a member of the group."""
        return self.uid == 0 or self.gid == gid or gid in self.groups()

    def without_setid(self, mode: int, gid: int) -> int:
        """The mode of a file of this group once this caller has changed it. Without execution by
        the group, setgid means nothing, and stays if the caller could set it.
        """
        if mode & 0o2000 and (mode & 0o0010 or not self.is_in(gid)):
            mode &= ~0o2000
        return mode & ~0o4000


@dataclass(frozen=True, slots=True)
class Rules:
    """The mount's options that change semantics. Times in seconds."""

    root: Location = field(default_factory=lambda: Location(""))
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    names: NamePolicy = NamePolicy.ESCAPE
    read_only: bool = False
    xattr: bool = False
    acl: bool = False  # the kernel enforces access control lists
    conflict_fail: bool = False
    writeback: bool = False  # close() acknowledges once the journal has it
    exclusive: bool = False  # the kernel gathers writes, and knows size and times itself
    ttl: float = 1.0  # how long names and attributes are trusted without the feed
    feed_ttl: float = 60.0  # how long the kernel may trust them with it; invalidated by push


class Stat(NamedTuple):
    """What stat(2) shows. Times are nanoseconds, `mode` without the file type, `ttl` seconds for
    the kernel.
    """

    inode: Inode
    kind: Kind
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    ttl: float


_CLOCK_REALTIME_COARSE = 5  # from <linux/time.h>; Python has no name for it


class Kernel(Protocol):
    """What the file system tells the kernel, without waiting: see fuse/kernel.py."""

    def entry_changed(self, parent: Inode, name: bytes) -> None: ...

    def inode_changed(self, inode: Inode, *, content: bool) -> None: ...

    def forget_attributes(self, inode: Inode) -> None:
        """At once, before this returns: only of an inode that the call being served holds."""

    def forget_content(self, inode: Inode) -> None:
        """As `forget_attributes`, and the pages: only of a file that nobody has open."""


class _Claim:
    """Directories of which one side moves or goes away, and the other needs the path of. Held for
    as long as its context lasts.
    """

    __slots__ = ("_lock", "moves", "stays", "turn")

    def __init__(
        self, lock: NamespaceLock, moves: tuple[Node, ...], stays: tuple[Node, ...]
    ) -> None:
        self._lock = lock
        self.moves = moves
        self.stays = stays
        self.turn: trio.Event | None = None  # of one that had to wait

    async def __aenter__(self) -> None:
        if not self._lock.take(self):  # else without a switch of tasks
            await self._lock.wait(self)

    async def __aexit__(self, *error: object) -> None:
        self._lock.let_go(self)

    def meets(self, other: _Claim) -> bool:
        if not (self.moves or other.moves):  # nearly always
            return False
        return self._moves_under(other) or other._moves_under(self)

    def _moves_under(self, other: _Claim) -> bool:
        nodes = (*other.moves, *other.stays)
        return any(inside(node, moved) for moved in self.moves for node in nodes)


class NamespaceLock:
    """Commits of new files hold on to their directories; a rename or removal of a directory has it
    and all below alone, so that no path changes under a commit.

    First come, first served: with commits always under way a rename would else wait for ever. But
    whoever is about other directories waits for none of them: a commit may take minutes. Whoever
    has it must not ask for it again.
    """

    def __init__(self) -> None:
        self._held: list[_Claim] = []
        self._waiting: list[_Claim] = []  # in order

    def held(
        self, *, stays: tuple[Node, ...] = (), moves: tuple[Node, ...] = ()
    ) -> AbstractAsyncContextManager[None]:
        """`moves`: directories that have no place, or another one, afterwards."""
        return _Claim(self, moves, stays)

    def take(self, claim: _Claim) -> bool:
        """If nobody has, or waits for, what it is about, it is held now."""
        for other in (*self._held, *self._waiting):
            if claim.meets(other):
                return False
        self._held.append(claim)
        return True

    async def wait(self, claim: _Claim) -> None:
        """Until it is held."""
        claim.turn = trio.Event()
        self._waiting.append(claim)
        try:
            await claim.turn.wait()
        except BaseException:
            self.let_go(claim)
            raise

    def let_go(self, claim: _Claim) -> None:
        (self._waiting if claim in self._waiting else self._held).remove(claim)
        if self._waiting:
            self._go_on()

    def _go_on(self) -> None:
        """Those whose turn it is have it."""
        waiting, self._waiting = self._waiting, []
        for claim in waiting:
            if self.take(claim):
                assert claim.turn is not None
                claim.turn.set()
            else:
                self._waiting.append(claim)


def _ticks() -> int:
    """Nanoseconds as the kernel stamps files with them."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


@dataclass(slots=True)
class Core:
    """The owners of state and the way to the server, as handed to each part."""

    rules: Rules
    backend: FilesBackend
    inodes: InodeTable
    directories: DirectoryCache
    blocks: BlockCache
    uploader: Uploader
    spool: SpoolFolder
    journal: Journal
    nursery: trio.Nursery
    kernel: Kernel
    leases: Leases = field(default_factory=Leases)
    namespace: NamespaceLock = field(default_factory=NamespaceLock)
    # Nodes whose rename here waits for its answer, and what tells of that.
    moving: dict[Node, trio.Event] = field(default_factory=dict)
    clock_offset: int = 0  # nanoseconds that the server's clock is ahead of ours
    clock: Callable[[], int] = time.time_ns
    ticks: Callable[[], int] = _ticks

    def now(self) -> int:
        """Nanoseconds, by the server's clock as well as we know it, in the kernel's own ticks: a
        utimensat() with UTIME_NOW sends those, and must not fall behind a write before it.
        """
        return self.ticks() + self.clock_offset

    def saw_commit(self, entry: Entry, before: int) -> None:
        """Learn the server's clock from a change that it has just stamped; `before` is when we
        asked.
        """
        stamped = entry.attributes.changed_ns
        if stamped is not None:
            # It was stamped between the two, and nobody knows when: what is known of the offset
            # stays if it can be right, or times of two changes in a row would go backwards.
            least, most = stamped - self.clock(), stamped - before
            self.clock_offset = min(max(self.clock_offset, least), most)

    def node(self, inode: Inode) -> Node:
        node = self.inodes.get(inode)
        if node is None:
            raise FileSystemError(errno.ESTALE, f"inode {inode} is not known any more")
        return node

    def distrust_below(self, moved: Node) -> None:
        """Events about what is in this directory, or below it, may have found nobody."""
        for inode in self.directories:
            node = self.inodes.get(inode)
            if node is not None and inside(node, moved):
                self.directories.distrust(node)
                self.kernel.inode_changed(inode, content=False)

    def touched(self, node: Node, when: int | None = None) -> None:
        """A name in this directory changed: its times, as the server stamps them in the same
        transaction.
        """
        entry = node.entry
        if entry is not None:
            stamp = max(when or self.now(), entry.attributes.modified_ns or 0)
            attributes = replace(entry.attributes, modified_ns=stamp, changed_ns=stamp)
            self.refine(node, replace(entry, attributes=attributes))

    def refine(self, node: Node, entry: Entry) -> None:
        """What we know follows from our own change: for the node, and where listings show it."""
        node.entry = entry
        for parent, name in node.names:
            self.directories.refine(parent, name, entry)

"""Files: open, read, write, close.

A write goes to the inode's buffer; FLUSH and FSYNC commit it and tell the truth (commits.py);
RELEASE hands what an mmap wrote after the last FLUSH to the journal. It must not change names:
namespace.py does.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from typing import NamedTuple, NoReturn

from filesfs.domain import Attributes, Entry, Handle, Kind, Lease, Location
from filesfs.errors import FilesfsError, FileSystemError, NotFound
from filesfs.filesystem.commits import Commits
from filesfs.filesystem.content import unsent
from filesfs.filesystem.core import Caller, Core, version_of
from filesfs.filesystem.prefetch import Prefetch
from filesfs.filesystem.second import SecondTries
from filesfs.filesystem.tree import Tree
from filesfs.read.stream import ReadStream
from filesfs.state.handles import FileHandle, HandleTable
from filesfs.state.held import Stamp
from filesfs.state.inodes import Node

log = logging.getLogger(__name__)

# Bytes of a file, as with ext4: holes travel as zeros, and a plan of what travels is in memory.
LARGEST = 16 << 40
_TRIES = 5  # to find a file that renames here move all the time
SMALL = 128 << 10  # a file up to this size comes whole with the request that open() makes anyway


class _News(NamedTuple):
    """Of a name in a directory, and when it was asked for; the lease that came along."""

    parent: Node
    name: bytes
    stamp: Stamp
    lease: Lease | None
    mark: int


class Files:
    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self.handles: HandleTable[FileHandle] = HandleTable()
        self.commits = Commits(core, tree)
        self.prefetch = Prefetch(core, tree)
        self.second_tries = SecondTries()
        self._extending = False

    # -- open -------------------------------------------------------------------------------------
    async def open(self, node: Node, flags: int, caller: Caller) -> tuple[Handle, bool]:
        """A handle, and whether the kernel's pages of the file are still right."""
        writable = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if writable and self._tree.read_only(node):
            raise FileSystemError(errno.EROFS, "read-only")
        await self._ready(node, caller, readable=not flags & os.O_TRUNC)
        keep = self._pages_are_right(node)
        handle = self.attach(node, flags, caller)
        if flags & os.O_TRUNC:
            self._truncate(node, 0, caller)
        return handle, keep

    async def _ready(self, node: Node, caller: Caller, *, readable: bool) -> None:
        """Wait until the node is what its name leads to now. ESTALE if that is another one."""
        asked = bool(self.second_tries) and self.is_asked(node, caller.thread)
        is_second = self.second_tries.end(caller.thread)  # then the kernel does not try again
        name = node.names[0] if node.names else None
        began = self._core.directories.now()
        try:
            if not asked:
                self._refuse_given_up(node)
            if node.kind is Kind.FILE and not unsent(node):
                await self.commits.backlog.clear(node)
                leased = self._is_leased(node)
                if readable:
                    self.prefetch.opened(node, leased=leased)
                if not (asked or leased):
                    await self._revalidate(node, readable=readable)
        except FileSystemError as error:
            if error.code == errno.ESTALE and name is not None and not is_second:
                self.second_tries.begin(caller.thread, (name[0].inode, name[1]), began)
            raise

    def _is_leased(self, node: Node) -> bool:
        """Whether the server would have told us if its name did not lead to this version now."""
        leases, entry = self._core.leases, node.entry
        if not leases or entry is None or self._core.moving:  # where what moves is, nobody knows
            return False
        if not leases.holds(self._tree.location(node), entry):
            return False
        if leases.is_half_over and not self._extending:
            self._extending = True
            self._core.nursery.start_soon(self._extend)
        return True

    async def _extend(self) -> None:
        """Whoever opens files all the time keeps their leases."""
        leases = self._core.leases
        try:
            lease = await self._core.backend.extend_leases(leases.term)
            if lease is not None:
                leases.extend(lease)
        except FilesfsError as error:  # then they run out
            log.debug("leases: %s", error)
        finally:
            self._extending = False

    def is_asked(self, node: Node, thread: int) -> bool:
        """Whether the node is what the server had while the thread's running open() asked."""
        now = self._core.directories.now()
        return node.entry is not None and self.second_tries.is_asked(thread, node, now)

    def attach(self, node: Node, flags: int, caller: Caller) -> Handle:
        """A handle on a node whose state is known to be right."""
        node.opens += 1
        self.commits.content(node)
        writable = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        append = bool(flags & os.O_APPEND)
        return self.handles.add(FileHandle(node, append, caller, writable))

    def _pages_are_right(self, node: Node) -> bool:
        if node.entry is None or unsent(node):
            return node.opens > 0
        version = version_of(node.entry)
        cached, node.cached_version = node.cached_version, version
        if cached not in (None, version) and not node.opens:
            # Now: whoever opens it next is told to keep them, and may come before the kernel drops
            # them for this one.
            self._core.kernel.forget_content(node.inode)
        return cached == version

    async def _revalidate(self, node: Node, *, readable: bool) -> None:
        """Strict open: is the name still this resource, and in which version? Small content comes
        along.
        """
        assert node.entry is not None
        entry, news = await self._undisturbed(node, readable)
        if unsent(node):
            return  # written through another handle while we asked
        if version_of(entry) != version_of(node.entry):
            resized = entry.size != node.entry.size
            if node.opens or resized or self._core.rules.exclusive:
                # open handles, or the kernel, keep what they know; the name gets a new inode
                self._core.inodes.detach(node)
                self._other_resource(node)
            # The event may still be on its way: what stat shows is to be of the new content.
            self._core.kernel.forget_attributes(node.inode)
        self._core.inodes.set_entry(node, entry)
        if news is not None and (news.parent, news.name) in node.names:
            self._core.directories.keep_entry(news.parent, news.name, entry, news.stamp)
            self._core.leases.grant(news.lease, news.mark, entry)

    async def _undisturbed(self, node: Node, readable: bool) -> tuple[Entry, _News | None]:
        """What the server has under the node's name, and what that tells of the name: nothing if
        others' changes are heard of each time it is asked, as the answer may be older.
        """
        directories = self._core.directories
        for _ in range(_TRIES):
            place, stamp = node.names[0] if node.names else None, directories.stamp(node)
            before = directories.heard(*place) if place is not None else ()
            mark = self._core.leases.mark
            entry, lease = await self._present(node, readable)
            if place is None or unsent(node):
                break
            if directories.heard(*place) == before:
                return entry, _News(*place, stamp, lease, mark)
        return entry, None

    async def _present(self, node: Node, readable: bool) -> tuple[Entry, Lease | None]:
        """What the server has under the node's name; ESTALE if that is another resource. If a
        rename of ours came in between, it is asked again, under the name after that.
        """
        assert node.entry is not None
        for _ in range(_TRIES):
            moving, where = self._core.moving.get(node), self._tree.location(node)
            with suppress(NotFound):
                entry, lease = await self._latest(node, where, readable)
                if entry.kind is node.kind and _same(entry, node.entry):
                    return entry, lease
            moving = self._core.moving.get(node, moving)
            if moving is not None:
                await moving.wait()
            elif self._tree.location(node) == where:
                break
        return self._other_resource(node)

    async def _latest(
        self, node: Node, location: Location, readable: bool
    ) -> tuple[Entry, Lease | None]:
        assert node.entry is not None
        known = self._core.blocks.find(version_of(node.entry), 0, 0, 1) is not None
        wanted = readable and not known and 0 < node.entry.size <= SMALL
        entry, data, lease = await self._core.backend.read_whole(location, SMALL if wanted else 0)
        if data:
            self._core.blocks.put(version_of(entry), 0, data)
        return entry, lease

    def _refuse_given_up(self, node: Node) -> None:
        """ESTALE for a file that nobody has, which the kernel has not heard of yet."""
        if not node.names and not node.opens:
            self._other_resource(node)

    def _other_resource(self, node: Node) -> NoReturn:
        """ESTALE: the kernel looks the name up again, and finds what is there now."""
        for parent, name in node.names[:1]:
            self._core.directories.doubt(parent, name)
            self._core.kernel.entry_changed(parent.inode, name)
        raise FileSystemError(errno.ESTALE, "the name leads to another file by now")

    # -- read -------------------------------------------------------------------------------------
    async def read(self, number: Handle, offset: int, length: int) -> bytes | memoryview:
        """From the inode's buffer if it has one, else of its version; short only at the end."""
        handle = self.handles[number]
        content = self.commits.content(handle.node)
        if content.buffer is not None:
            return await content.buffer.read(offset, length, content)
        stream = await self._stream(handle)
        return b"" if stream is None else await stream.view(offset, length)

    async def _stream(self, handle: FileHandle) -> ReadStream | None:
        """The handle's stream of the inode's version; another handle's commit moves it on."""
        entry = handle.node.entry
        if entry is None:
            return None
        if handle.stream is None or handle.version != version_of(entry):
            old, handle.stream = handle.stream, self.commits.new_stream(handle.node, entry)
            handle.version = version_of(entry)
            if old is not None:
                await old.aclose()
        stream = handle.stream
        assert isinstance(stream, ReadStream)
        return stream

    # -- write ------------------------------------------------------------------------------------
    async def write(self, number: Handle, offset: int, data: bytes) -> int:
        handle = self.handles[number]
        node = handle.node
        buffer = self.commits.buffer(node)
        # With its writeback cache the kernel knows the end, and sends the times itself.
        append = handle.append and not self._core.rules.exclusive
        start = buffer.size if append else offset
        _refuse_beyond(start + len(data))
        written = buffer.write(start, data)
        self._stamp_write(node, handle.opener)
        if node.names and not self._core.rules.writeback:  # else what goes up is the journal's
            uploader = self._core.uploader
            if uploader.note_write(buffer, lambda: self.commits.target(node)):
                await uploader.room(buffer)
        return written

    def _stamp_write(self, node: Node, caller: Caller) -> None:
        now = self._core.now()
        mode = None if caller.uid == 0 else self._without_setid(node, caller)
        node.pending = node.pending.written(mode, now)
        node.pending_ctime = now

    def _without_setid(self, node: Node, caller: Caller) -> int | None:
        """The mode as the caller's write leaves it, None if nothing changes."""
        stored = node.entry.attributes if node.entry is not None else Attributes()
        mode = node.pending.mode if node.pending.mode is not None else stored.mode
        if mode is None or not mode & 0o6000:
            return None
        gids = (node.pending.gid, stored.gid, self._core.rules.gid)
        cleared = caller.without_setid(mode, next(gid for gid in gids if gid is not None))
        return cleared if cleared != mode else None

    def _truncate(self, node: Node, size: int, caller: Caller) -> None:
        _refuse_beyond(size)
        self.commits.buffer(node).truncate(size)
        self.commits.content(node).touched = True
        self._stamp_write(node, caller)

    async def truncate(self, node: Node, size: int, caller: Caller, *, open_: bool) -> None:
        """ftruncate() waits for close; truncate() of a path commits before it answers."""
        if self._tree.read_only(node):
            raise FileSystemError(errno.EROFS, "read-only")
        self._refuse_given_up(node)
        self._truncate(node, size, caller)
        if not open_:
            try:
                await self.commits.commit(node)
            finally:
                await self.commits.settle(node)

    # -- close ------------------------------------------------------------------------------------
    async def flush(self, number: Handle) -> None:
        """A reader's close publishes nothing of what a writer has not closed yet, does not wait for
        it, and does not hear why it cannot be stored.
        """
        if self.handles[number].writable:
            await self.fsync(number)

    async def fsync(self, number: Handle) -> None:
        await self.commits.commit(self.handles[number].node)

    async def release(self, number: Handle) -> None:
        handle = self.handles.pop(number)
        if handle is None:
            return
        if handle.stream is not None:
            await handle.stream.aclose()
        node = handle.node
        node.opens -= 1
        if handle.writable and node.opens and unsent(node) and node not in self.handles.written():
            await self.commits.hand_over(node)
        await self.commits.settle(node)

    def unsent(self, *, closed: bool = False) -> int:
        """How many files have something that the server does not have. `closed`: and no writer."""
        busy = self.handles.written() if closed else frozenset()
        nodes = (node for node in self._core.inodes if node not in busy)
        return sum(1 for node in nodes if node.content is not None and unsent(node))

    async def drain(self, *, written: bool = False) -> None:
        """Bring up all that is dirty: before an unmount. What a program has open for writing stays,
        unless `written`: it is not acknowledged, and may grow for hours.
        """
        busy = frozenset() if written else self.handles.written()
        await self.commits.drain([node for node in self._core.inodes if node not in busy])


def _same(one: Entry, other: Entry) -> bool:
    return one.resource_id is None or one.resource_id == other.resource_id


def _refuse_beyond(size: int) -> None:
    if size > LARGEST:
        raise FileSystemError(errno.EFBIG, f"a file has at most {LARGEST >> 40} TiB")

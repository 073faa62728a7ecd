"""Files: open, read, write, and the commit that close() and fsync() wait for.

A write goes to the inode's buffer; FLUSH and FSYNC commit it and tell the truth; RELEASE hands what
an mmap wrote after the last FLUSH to a background commit. It must not change names: namespace.py
does.
"""

from __future__ import annotations

import errno
import logging
import os

from filesfs.domain import AttributeChange, Entry, Handle, Kind
from filesfs.errors import (
    FileSystemError,
    Gone,
    NoSpace,
    NotFound,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from filesfs.filesystem.backlog import Backlog
from filesfs.filesystem.content import Content, NodeReader, unsent
from filesfs.filesystem.core import Caller, Core, version_of
from filesfs.filesystem.tree import Tree
from filesfs.read.stream import ReadStream
from filesfs.state import mime
from filesfs.state.handles import FileHandle, HandleTable
from filesfs.state.inodes import Node
from filesfs.write.buffer import WriteBuffer
from filesfs.write.upload import Target

log = logging.getLogger(__name__)

SMALL = 128 << 10  # a file up to this size comes whole with the request that open() makes anyway


class Files:
    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self.handles: HandleTable[FileHandle] = HandleTable()
        self.backlog = Backlog(core, self._described, self._send, self.settle)

    # -- open -------------------------------------------------------------------------------------
    async def open(self, node: Node, flags: int, caller: Caller) -> tuple[Handle, bool]:
        """A handle, and whether the kernel's pages of the file are still right."""
        writable = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if writable and self._tree.read_only(node):
            raise FileSystemError(errno.EROFS, "read-only")
        if node.kind is Kind.FILE and not unsent(node):
            await self._revalidate(node, readable=not flags & os.O_TRUNC)
        keep = self._pages_are_right(node)
        handle = self.attach(node, flags, caller)
        if flags & os.O_TRUNC:
            self._truncate(node, 0, privileged=caller.uid == 0)
        return handle, keep

    def attach(self, node: Node, flags: int, caller: Caller) -> Handle:
        """A handle on a node whose state is known to be right."""
        node.opens += 1
        self.content(node)
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        append = bool(flags & os.O_APPEND)
        return self.handles.add(FileHandle(node, append, caller.uid == 0, writable))

    def content(self, node: Node) -> Content:
        if node.content is None:
            node.content = Content(node)
        assert isinstance(node.content, Content)
        return node.content

    def _pages_are_right(self, node: Node) -> bool:
        if node.entry is None or unsent(node):
            return node.opens > 0
        version = version_of(node.entry)
        keep = node.cached_version == version
        node.cached_version = version
        return keep

    async def _revalidate(self, node: Node, *, readable: bool) -> None:
        """Strict open: is the name still this resource, and in which version? Small content comes
        along.
        """
        assert node.entry is not None
        stamp = self._core.directories.stamp()
        try:
            entry = await self._latest(node, readable)
        except NotFound:
            self._other_resource(node)
        if entry.kind is not node.kind or not _same(entry, node.entry):
            self._other_resource(node)
        if unsent(node):
            return  # written through another handle while we asked
        if version_of(entry) != version_of(node.entry) and node.opens:
            # open handles keep the old version; the name gets a new inode
            self._core.inodes.detach(node)
            self._other_resource(node)
        self._core.inodes.set_entry(node, entry)
        if node.names:
            self._core.directories.keep_entry(*node.names[0], entry, stamp)

    async def _latest(self, node: Node, readable: bool) -> Entry:
        assert node.entry is not None
        location = self._tree.location(node)
        known = self._core.blocks.find(version_of(node.entry), 0, 0, 1) is not None
        if not readable or known or not 0 < node.entry.size <= SMALL:
            return await self._core.backend.stat(location)
        entry, data = await self._core.backend.read_whole(location, SMALL, None)
        if data is not None and data:
            self._core.blocks.put(version_of(entry), 0, data)
        return entry

    def _other_resource(self, node: Node) -> None:
        """ESTALE: the kernel looks the name up again, and finds what is there now."""
        for parent, name in node.names[:1]:
            self._core.directories.doubt(parent, name)
            self._core.kernel.entry_changed(parent.inode, name)
        raise FileSystemError(errno.ESTALE, "the name leads to another file by now")

    # -- read -------------------------------------------------------------------------------------
    async def read(self, number: Handle, offset: int, length: int) -> bytes | memoryview:
        """From the inode's buffer if it has one, else of its version; short only at the end."""
        handle = self.handles[number]
        content = self.content(handle.node)
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
            old, handle.stream = handle.stream, self._new_stream(handle.node, entry)
            handle.version = version_of(entry)
            if old is not None:
                await old.aclose()
        stream = handle.stream
        assert isinstance(stream, ReadStream)
        return stream

    def _new_stream(self, node: Node, entry: Entry) -> ReadStream:
        reader = NodeReader(self._core.backend, lambda: self._tree.location(node))
        return ReadStream(reader, self._core.blocks, self._core.nursery, entry)

    # -- write ------------------------------------------------------------------------------------
    async def write(self, number: Handle, offset: int, data: bytes) -> int:
        handle = self.handles[number]
        node = handle.node
        buffer = self.buffer(node)
        # With its writeback cache the kernel knows the end, and sends the times itself.
        append = handle.append and not self._core.rules.exclusive
        written = buffer.write(buffer.size if append else offset, data)
        self._stamp_write(node, handle.privileged)
        if node.names:
            self._core.uploader.note_write(buffer, lambda: self.target(node))
            await self._core.uploader.room(buffer)
        return written

    def buffer(self, node: Node) -> WriteBuffer:
        """The inode's buffer over its present version, made at the first write."""
        content = self.content(node)
        if content.buffer is None:
            content.base = node.entry
            content.buffer = WriteBuffer(self._core.spool, node.entry.size if node.entry else 0)
            if node.entry is not None and node.entry.size:
                content.base_stream = self._new_stream(node, node.entry)
        return content.buffer

    def _stamp_write(self, node: Node, privileged: bool) -> None:
        now = self._core.now()
        mode = None if privileged else _without_setid(self._mode(node))
        node.pending = node.pending.then(AttributeChange(mode=mode, modified_ns=now))
        node.pending_ctime = now

    def _mode(self, node: Node) -> int | None:
        if node.pending.mode is not None:
            return node.pending.mode
        return node.entry.attributes.mode if node.entry is not None else None

    def _truncate(self, node: Node, size: int, *, privileged: bool) -> None:
        self.buffer(node).truncate(size)
        self.content(node).touched = True
        self._stamp_write(node, privileged)

    async def truncate(self, node: Node, size: int, caller: Caller, *, open_: bool) -> None:
        """ftruncate() waits for close; truncate() of a path commits before it answers."""
        if self._tree.read_only(node):
            raise FileSystemError(errno.EROFS, "read-only")
        self._truncate(node, size, privileged=caller.uid == 0)
        if not open_:
            try:
                await self.commit(node)
            finally:
                await self.settle(node)

    # -- commit -----------------------------------------------------------------------------------
    def target(self, node: Node) -> Target:
        """Where the content goes as of now: the resource if it is known, else the name."""
        content = self.content(node)
        entry = node.entry
        return Target(
            location=self._tree.location(node),
            mime_type=self._mime_type(node, content),
            change=node.pending,
            base=content.base,
            resource_id=entry.resource_id if entry else None,
            if_match=entry.etag if entry and self._core.rules.conflict_fail else None,
        )

    def _described(self, node: Node) -> tuple[WriteBuffer, Target]:
        return self.buffer(node), self.target(node)

    def _mime_type(self, node: Node, content: Content) -> str:
        if node.pending.mime_type is not None:
            return node.pending.mime_type
        if node.entry is not None and node.entry.size:
            return node.entry.mime_type
        head = content.buffer.head() if content.buffer is not None else b""
        return mime.mime_type(node.names[0][1] if node.names else b"", head)

    async def flush(self, number: Handle) -> None:
        await self.commit(self.handles[number].node)

    async def commit(self, node: Node) -> None:
        """Return when the server has what was written before the call, or raise why it has not."""
        content = self.content(node)
        if not content.dirty or not node.names:
            return
        if self._core.rules.writeback and self._core.journal is not None:
            self.backlog.keep(node)
            self.backlog.bring_up(node)
            return
        async with content.lock:
            if content.dirty and node.names:
                await self._commit(node, content)

    async def _commit(self, node: Node, content: Content) -> None:
        generation = self.buffer(node).generation
        try:
            await self._send(node, content)
        except NoSpace:
            content.refused = generation
            raise
        except (Gone, NotFound):
            if node.local:
                raise
            where = self._tree.location(node)
            log.info("%s: removed by another client while it was written", where)
            self.nameless(node)
        except PreconditionFailed as error:
            self.backlog.keep(node)
            self.backlog.bring_up(node)
            raise FileSystemError(errno.ESTALE, "another client changed the file") from error
        except Unavailable:
            self.backlog.keep(node)
            self.backlog.bring_up(node)
            raise

    async def _send(self, node: Node, content: Content) -> None:
        new = node.local
        if new:
            await self._core.namespace.acquire(exclusive=False)
        try:
            buffer, pending, before = self.buffer(node), node.pending, self._core.clock()
            generation = buffer.generation
            entry = await self._core.uploader.commit(buffer, self.target(node), content)
            self._core.saw_commit(entry, before)
            await self._committed(node, content, entry, generation, pending)
        finally:
            if new:
                self._core.namespace.release(exclusive=False)

    async def _committed(
        self, node: Node, content: Content, entry: Entry, generation: int, sent: AttributeChange
    ) -> None:
        pages_right = node.entry is None or node.cached_version == version_of(node.entry)
        self._core.inodes.set_entry(node, entry)
        if node.pending is sent:
            node.pending, node.pending_ctime = AttributeChange(), 0
        self.publish(node, entry)
        node.cached_version = version_of(entry) if pages_right else None
        if content.buffer is not None and content.buffer.generation == generation:
            self.backlog.forget(node)
            content.touched = False
            await self._rebase(node, content, entry)
            if node.pending is not sent and node.pending:
                await self._send_pending(node)

    async def _send_pending(self, node: Node) -> None:
        """Attributes that changed while the content was on its way, and no commit follows."""
        pending, content = node.pending, self.content(node)
        generation = self.buffer(node).generation
        content.touched = True  # until they are there: a commit that is tried again takes them
        try:
            where = self._tree.location(node)
            entry = await self._core.backend.set_attributes(where, node.kind, pending)
        except Unsupported:  # a plain server: the mount keeps them
            pass
        else:
            self._core.inodes.set_entry(node, entry)
            self.publish(node, entry)
            if node.pending is pending:
                node.pending, node.pending_ctime = AttributeChange(), 0
        if content.buffer is not None and content.buffer.generation == generation:
            content.touched = False

    async def _rebase(self, node: Node, content: Content, entry: Entry) -> None:
        """The buffer is the server's version now: what it holds in memory still serves reads."""
        assert content.buffer is not None
        content.buffer.rebase(entry.size)
        content.base = entry
        old, content.base_stream = content.base_stream, self._new_stream(node, entry)
        if old is not None:
            await old.aclose()

    def publish(self, node: Node, entry: Entry) -> None:
        """The entry is on the server under all names that we know of."""
        for parent, name in node.names:
            new = self._core.directories.of(parent).local.pop(name, None) is not None
            self._core.directories.mutate(parent, name, entry)
            if new:
                self._core.touched(parent, entry.attributes.changed_ns)

    def nameless(self, node: Node) -> None:
        """The last name is gone: what is open stays usable, nothing is sent any more."""
        if node.names:
            node.last_location = self._tree.location(node)
        self.backlog.forget(node)
        for parent, name in list(node.names):
            self._core.directories.of(parent).local.pop(name, None)
            self._core.directories.mutate(parent, name, None)
            self._core.inodes.drop_name(node, parent, name)

    # -- release ----------------------------------------------------------------------------------
    async def release(self, number: Handle) -> None:
        handle = self.handles.pop(number)
        if handle is None:
            return
        if handle.stream is not None:
            await handle.stream.aclose()
        handle.node.opens -= 1
        await self.settle(handle.node)

    async def settle(self, node: Node) -> None:
        """Let go of the inode's content if nobody has it open and the server has it all."""
        content = node.content
        if not isinstance(content, Content) or content.lock.locked():
            return
        if node.opens or node in self.backlog:
            return
        if content.dirty and node.names and not content.is_refused:
            self.backlog.bring_up(node)
            self.backlog.keep(node)  # no close() waits for it any more
            return
        if content.dirty and node.names:
            await self.backlog.give_up(node)
            if node.opens:
                return
        node.content = None  # before the first await: who opens it meanwhile starts anew
        self._core.inodes.release(node)
        if content.buffer is not None:
            await self._core.uploader.discard(content.buffer)
        await content.drop_buffer()

    def unsent(self, *, closed: bool = False) -> int:
        """How many files have something that the server does not have. `closed`: and no writer."""
        busy = self.handles.written() if closed else frozenset()
        nodes = (node for node in self._core.inodes if node not in busy)
        return sum(1 for node in nodes if node.content is not None and unsent(node))

    async def drain(self, *, written: bool = False) -> None:
        """Commit all that is dirty: before an unmount. What a program has open for writing stays,
        unless `written`: it is not acknowledged, and may grow for hours.
        """
        busy = frozenset() if written else self.handles.written()
        await self.backlog.drain([node for node in self._core.inodes if node not in busy])


def _same(one: Entry, other: Entry) -> bool:
    return one.resource_id is None or one.resource_id == other.resource_id


def _without_setid(mode: int | None) -> int | None:
    """The mode as an unprivileged write leaves it, None if nothing changes."""
    if mode is None:
        return None
    cleared = mode & ~0o4000
    if mode & 0o0010:
        cleared &= ~0o2000
    return cleared if cleared != mode else None

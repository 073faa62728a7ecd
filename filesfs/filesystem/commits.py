"""Commits: how content comes to the server, or with `writeback` to the journal, and what the file
then is.

close() and fsync() wait for a commit and are told the truth. It must not change names:
namespace.py does.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace

from msgspec import structs

from filesfs.domain import AttributeChange, Entry
from filesfs.errors import (
    FilesfsError,
    FileSystemError,
    Gone,
    NoSpace,
    NotFound,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from filesfs.filesystem.backlog import Backlog
from filesfs.filesystem.content import Content, NodeReader
from filesfs.filesystem.core import Core, version_of
from filesfs.filesystem.tree import Tree
from filesfs.read.stream import ReadStream
from filesfs.state import mime
from filesfs.state.inodes import Node
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import INLINE
from filesfs.write.records import Record, same_version
from filesfs.write.upload import Target

log = logging.getLogger(__name__)


class Commits:
    """The inodes' contents and buffers, and their way up. `backlog` has what could not go, or waits
    its turn.
    """

    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree
        self.backlog = Backlog(core, self._described, tree.location, self._landed, self.settle)

    # -- what is to go ----------------------------------------------------------------------------
    def content(self, node: Node) -> Content:
        if node.content is None:
            node.content = Content(node)
        assert isinstance(node.content, Content)
        return node.content

    def buffer(self, node: Node) -> WriteBuffer:
        """The inode's buffer over its present version, made at the first write."""
        content = self.content(node)
        if content.buffer is None:
            content.base = node.entry
            content.buffer = WriteBuffer(self._core.spool, node.entry.size if node.entry else 0)
            if node.entry is not None and node.entry.size:
                content.base_stream = self.new_stream(node, node.entry)
        return content.buffer

    def new_stream(self, node: Node, entry: Entry) -> ReadStream:
        reader = NodeReader(self._core.backend, lambda: self._tree.location(node))
        return ReadStream(reader, self._core.blocks, self._core.nursery, entry)

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
        """For the journal. What an unsent file stands in front of is what it may replace."""
        target = self.target(node)
        covered = self._core.directories.stale(*node.names[0]) if node.local else None
        if covered is not None:
            target = replace(target, if_match=covered.etag)
        return self.buffer(node), target

    def _mime_type(self, node: Node, content: Content) -> str:
        if node.pending.mime_type is not None:
            return node.pending.mime_type
        if node.entry is not None and node.entry.size:
            return node.entry.mime_type
        head = content.buffer.head() if content.buffer is not None else b""
        return mime.mime_type(node.names[0][1] if node.names else b"", head)

    # -- commit -----------------------------------------------------------------------------------
    async def commit(self, node: Node) -> None:
        """Return when what was written before the call is safe, or raise why it is not: when the
        server has it, or with `writeback` when the journal has.
        """
        content = self.content(node)
        if not content.dirty or not node.names:
            return
        async with content.lock:
            if content.dirty and node.names:
                if self._core.rules.writeback and content.is_refused:
                    raise FileSystemError(errno.ESTALE, "another client was first: see the log")
                if self._core.rules.writeback:
                    await self._keep(node, content)
                else:
                    await self._commit(node, content)

    async def _keep(self, node: Node, content: Content) -> None:
        """Into the journal. With the content's lock held; no directory is renamed meanwhile."""
        if self.backlog.has(node, content):
            return
        if content.buffer is not None:
            await content.buffer.sync(INLINE)
        async with self._core.namespace.held(stays=_parents(node)):
            if node.names:
                self.backlog.keep(node)

    async def _commit(self, node: Node, content: Content) -> None:
        generation = self.buffer(node).generation
        try:
            await self.backlog.clear(node)
            if content.dirty and node.names:
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
            await self._keep(node, content)
            self.backlog.set_aside(node)
            raise FileSystemError(errno.ESTALE, "another client changed the file") from error
        except Unavailable:
            await self._keep(node, content)
            raise

    async def _send(self, node: Node, content: Content) -> None:
        held = self._core.namespace.held(stays=_parents(node)) if node.local else nullcontext()
        async with held:
            buffer, pending, before = self.buffer(node), node.pending, self._core.clock()
            generation = buffer.generation
            entry = await self._core.uploader.commit(buffer, self.target(node), content)
            self._core.saw_commit(entry, before)
            await self._committed(node, content, entry, generation, pending)

    async def _committed(
        self, node: Node, content: Content, entry: Entry, generation: int, sent: AttributeChange
    ) -> None:
        whole = content.buffer is not None and content.buffer.generation == generation
        self._took(node, content, entry, whole)
        if node.pending is sent:
            node.pending, node.pending_ctime = AttributeChange(), 0
        elif whole and node.pending:
            await self._send_pending(node)

    def _landed(
        self, node: Node, content: Content, record: Record, entry: Entry, whole: bool
    ) -> None:
        """A record is stored. `whole`: there is nothing newer of the file."""
        if record.payload is None and not whole and self._is_theirs(node, content, entry):
            return  # what is clean in the buffer is of our version, and stays so
        self._took(node, content, entry, whole)
        if whole:
            node.pending, node.pending_ctime = AttributeChange(), 0

    def _is_theirs(self, node: Node, content: Content, entry: Entry) -> bool:
        """Attributes of ours landed on a version that another client has stored meanwhile."""
        if content.base is None:
            return False
        if self._tree.registered(node):
            return not same_version(entry, content.base)
        return version_of(entry) != version_of(content.base)

    def _took(self, node: Node, content: Content, entry: Entry, whole: bool) -> None:
        """The server has this version of ours; if not `whole`, more was written since it was sent.

        No `await` in here: a write finds the buffer before it or after it.
        """
        pages_right = node.entry is None or node.cached_version == version_of(node.entry)
        self._core.inodes.set_entry(node, entry)
        self.publish(node, entry)
        node.cached_version = version_of(entry) if pages_right else None
        if content.buffer is None:
            return
        if whole:
            content.touched, content.refused = False, None
            content.buffer.rebase(entry.size)
        else:  # what is clean came from the former version, and is the same in this one
            content.buffer.moved_on(entry.size)
        self.rebase(node, entry)

    def is_ours_anew(self, node: Node, entry: Entry) -> bool:
        """Our change of attributes made another version of the same content, as it does in a
        registered location.
        """
        known = node.entry
        return known is not None and self._tree.registered(node) and same_version(entry, known)

    def rebase(self, node: Node, entry: Entry) -> None:
        """What is clean in the buffer is of this version, too."""
        content = node.content
        if isinstance(content, Content) and content.buffer is not None:
            content.base = entry
            old, content.base_stream = content.base_stream, self.new_stream(node, entry)
            if old is not None:
                self._core.nursery.start_soon(old.aclose)

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
            self._dressed(node, content, entry)
            if node.pending is pending:
                node.pending, node.pending_ctime = AttributeChange(), 0
        if content.buffer is not None and content.buffer.generation == generation:
            content.touched = False

    def _dressed(self, node: Node, content: Content, entry: Entry) -> None:
        """The attributes are there. If they met another client's version, ours stays what the open
        handles have, and what the next commit takes for the one before it.
        """
        if node.entry is not None and self._is_theirs(node, content, entry):
            attributes, mime_type = entry.attributes, entry.mime_type
            node.entry = structs.replace(node.entry, attributes=attributes, mime_type=mime_type)
            for parent, name in node.names:
                self._core.directories.doubt(parent, name)
        else:
            self._core.inodes.set_entry(node, entry)
            self.publish(node, entry)

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

    # -- when nobody waits ------------------------------------------------------------------------
    async def hand_over(self, node: Node) -> None:
        """The last writer is gone, readers stay: what came after its close, as a mapping writes it,
        does not wait for theirs.
        """
        content = self.content(node)
        if content.dirty and not content.is_refused:
            await self._keep_unasked(node, content)

    async def settle(self, node: Node) -> None:
        """Let go of the inode's content if nobody has it open and the server has it all."""
        content = node.content
        if not isinstance(content, Content) or node.opens:
            return
        if content.lock.locked():  # whoever has it may fail, and think of nothing else then
            if not content.settles_later:
                content.settles_later = True
                self._core.nursery.start_soon(self._settle_later, node, content)
            return
        if content.kept is not None or (content.dirty and node.names and not content.is_refused):
            await self._keep_unasked(node, content)
            return
        if content.dirty and node.names:
            self.backlog.give_up(node)
        node.content = None  # before the first await: who opens it meanwhile starts anew
        self._core.inodes.release(node)
        if content.buffer is not None:
            await self._core.uploader.discard(content.buffer)
        stream = content.drop_buffer()
        if stream is not None:
            await stream.aclose()

    async def _settle_later(self, node: Node, content: Content) -> None:
        async with content.lock:
            content.settles_later = False
        await self.settle(node)

    async def _keep_unasked(self, node: Node, content: Content) -> None:
        """No close() waits for it any more."""
        async with content.lock:
            if content.dirty and node.names:
                try:
                    await self._keep(node, content)
                except (FilesfsError, OSError) as error:
                    log.error("%s: not in the journal: %s", self._tree.location(node), error)

    async def push(self, node: Node) -> None:
        """Bring what is dirty of it to the server, now."""
        content = node.content
        if not isinstance(content, Content):
            return
        async with content.lock:
            if self._core.rules.writeback and content.dirty and node.names:
                await self._keep(node, content)
            await self.backlog.clear(node)
            if content.dirty and node.names:
                await self._send(node, content)
        await self.settle(node)

    async def drain(self, nodes: Iterable[Node]) -> None:
        """Bring up what is pending, and what is dirty of these.

        Errors are logged, the journal keeps the data; while the server is away the rest would wait
        in vain, each its whole deadline.
        """
        try:
            await self.backlog.send_all()
            for node in nodes:
                await self._drain(node)
        except Unavailable as error:
            log.error("not stored, nor what comes after it: %s", error)

    async def _drain(self, node: Node) -> None:
        try:
            await self.push(node)
        except Unavailable:
            raise
        except (FilesfsError, OSError) as error:
            log.error("not stored: %s", error)


def _parents(node: Node) -> tuple[Node, ...]:
    return tuple(parent for parent, _ in node.names)

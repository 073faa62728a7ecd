"""Backlog: what close() could not bring to the server, or with `writeback` did not wait for.

The journal has it, durable, before anything is said of it; from there it goes up in the background,
one record at a time, in the order of the closes. What is sent is the record, never what a program
is still writing. A change of names waits until the server has what it touches (`clear`), or, while
a new file is not on its way yet, changes its record. It must not decide where content goes: Files
does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import trio

from filesfs.domain import AttributeChange, Entry, Location
from filesfs.errors import FilesfsError, NoSpace, Stale, Unavailable
from filesfs.filesystem.content import Content
from filesfs.filesystem.core import Core
from filesfs.state.inodes import Node
from filesfs.write.buffer import WriteBuffer
from filesfs.write.records import JournalId, Record
from filesfs.write.replay import Replayer
from filesfs.write.upload import Target

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0  # between attempts while the server is away, or refuses


@dataclass(slots=True)
class _Kept:
    """What a record of this process speaks of: up to which of the node's changes."""

    node: Node
    generation: int
    pending: AttributeChange


class Backlog:
    """Owner of the records' nodes. `describe` gives a node's buffer and target, `locate` its place;
    `land` takes over what was stored: all that is known of the node, if the last argument says so.
    """

    def __init__(
        self,
        core: Core,
        describe: Callable[[Node], tuple[WriteBuffer, Target]],
        locate: Callable[[Node], Location],
        land: Callable[[Node, Content, Record, Entry, bool], None],
        settle: Callable[[Node], Awaitable[None]],
    ) -> None:
        self._core = core
        self._describe = describe
        self._locate = locate
        self._land = land
        self._settle = settle
        self._kept: dict[JournalId, _Kept] = {}
        # Of an earlier mount, or given up: no node stands for them.
        self._alone = {record.id for record in core.journal.pending()}
        self._replayer = Replayer(core.journal, core.backend, self)
        self._news = trio.Event()
        self._running = False
        self.conflicts = 0  # copies stored beside another client's version since the mount
        # Something came to be under this name, or beside it, that no node of ours knows.
        self.on_appeared: Callable[[Location], None] = lambda location: None

    # -- into the journal -------------------------------------------------------------------------
    def keep(self, node: Node) -> None:
        """Into the journal, under the name and with the attributes that it has now. Durable when it
        returns. Nobody renames it meanwhile: the content's lock is the caller's.
        """
        content = node.content
        assert isinstance(content, Content)
        buffer, target = self._describe(node)
        id = after = None
        if content.kept is not None and self._replayer.sent(content.kept):
            after = content.kept
        elif content.kept is not None:
            id, after = content.kept, self._record(content.kept).after
        content.kept = self._core.journal.keep(buffer, target, id, after)
        self._kept[content.kept] = _Kept(node, buffer.generation, node.pending)
        self.wake()

    def has(self, node: Node, content: Content) -> bool:
        """The journal has all of it already."""
        kept = self._kept.get(content.kept) if content.kept is not None else None
        return (
            kept is not None
            and content.buffer is not None
            and kept.generation == content.buffer.generation
            and kept.pending == node.pending
        )

    def change(self, node: Node, change: AttributeChange) -> None:
        """The node's pending attributes have changed: durable when it returns, if the journal has
        its content.
        """
        content = node.content
        if not isinstance(content, Content) or content.kept is None:
            return
        kept = self._kept[content.kept]
        if self._replayer.sent(content.kept):
            location = self._record(content.kept).location
            content.kept = self._core.journal.note_attributes(location, change, content.kept)
            self.wake()
        else:
            self._core.journal.add_attributes(content.kept, change)
        self._kept[content.kept] = replace(kept, pending=node.pending)

    def movable(self, node: Node) -> bool:
        """Nothing of it may be on the server under its present name."""
        content = node.content
        if not isinstance(content, Content) or content.kept is None:
            return True
        sent = self._replayer.sent(content.kept)
        return not sent and self._record(content.kept).after is None

    def moved(self, node: Node) -> None:
        """A `movable` node has another name: its record follows, durable when it returns."""
        content = node.content
        if isinstance(content, Content) and content.kept is not None:
            _, target = self._describe(node)
            self._core.journal.move(content.kept, target.location, target.mime_type)

    def forget(self, node: Node) -> None:
        """Nobody wants it any more."""
        content = node.content
        if not isinstance(content, Content):
            return
        id, content.kept = content.kept, None
        while id is not None and (record := self._core.journal.get(id)) is not None:
            self._core.journal.forget(id)
            self._kept.pop(id, None)
            id = record.after

    def _record(self, id: JournalId) -> Record:
        record = self._core.journal.get(id)
        assert record is not None, "a content names a record that is done"
        return record

    # -- to the server ----------------------------------------------------------------------------
    def wake(self) -> None:
        """Send what is pending, now and until nothing is."""
        self._news.set()
        if not self._running and len(self._core.journal):
            self._running = True
            self._core.nursery.start_soon(self._run)

    async def _run(self) -> None:
        while len(self._core.journal):
            self._news = trio.Event()
            try:
                await self._replayer.run()
            except Unavailable as error:
                log.warning("%d changes wait: %s", len(self._core.journal), error)
                await trio.sleep(_RETRY_SECONDS)
                continue
            except Exception:  # nobody waits for it here, and the mount must live
                log.exception("journal: unexpected")
                await trio.sleep(_RETRY_SECONDS)
                continue
            if len(self._core.journal):  # the server refuses these
                with trio.move_on_after(_RETRY_SECONDS):
                    await self._news.wait()
        self._running = False

    async def send_all(self) -> None:
        """Return when all that is pending is stored, or refused; or raise Unavailable."""
        await self._replayer.run()

    async def clear(self, node: Node) -> None:
        """Return when the server has what the journal has of it. Raises why it has not: Stale when
        another client was first, and ours lies beside theirs.
        """
        content = node.content
        if isinstance(content, Content) and content.kept is not None:
            while content.kept is not None:
                await self._replayer.send(content.kept)
            if content.is_refused:
                raise Stale("another client was first, and ours lies beside theirs: see the log")
        if self._alone and node.names:
            await self._clear_alone(self._locate(node))

    async def _clear_alone(self, location: Location) -> None:
        for record in self._core.journal.pending():
            if record.location == location:
                await self._send_for_another(record)

    async def _send_for_another(self, record: Record) -> None:
        try:
            await self._replayer.send(record.id)
        except Unavailable:
            raise
        except (FilesfsError, OSError):
            # What no node stands for is no reason to refuse what is asked now.
            if record.id not in self._alone:
                raise

    async def clear_below(self, directory: Location) -> None:
        """As `clear`, of all that is in this directory and below."""
        prefix = f"{directory.key}/" if directory.key else ""
        for record in self._core.journal.pending():
            there = record.location
            if there.bucket == directory.bucket and there.key.startswith(prefix):
                await self._send_for_another(record)

    # -- Owner: what the replayer tells -----------------------------------------------------------
    def stored(self, record: Record, entry: Entry) -> None:
        kept = self._kept.pop(record.id, None)
        if kept is None:
            self._alone.discard(record.id)
            self.on_appeared(record.location)
            return
        content = self._content(kept)
        last = self._last(content, record)
        buffer = content.buffer
        same = buffer is not None and kept.generation == buffer.generation
        self._land(
            kept.node, content, record, entry, last and same and kept.pending == kept.node.pending
        )
        self._core.nursery.start_soon(self._settle, kept.node)

    def lost(self, record: Record, beside: Location | None) -> None:
        kept = self._kept.pop(record.id, None)
        self._alone.discard(record.id)
        self.conflicts += beside is not None
        for location in (record.location, beside):
            if location is not None:
                self.on_appeared(location)
        if kept is not None and self._last(self._content(kept), record):
            self._refuse(kept)

    def refused(self, record: Record, error: Exception) -> None:
        kept = self._kept.get(record.id)
        if kept is None or isinstance(error, NoSpace):
            return  # there may be room later; until then our own content is shown
        if self._content(kept).kept == record.id and not kept.node.opens:
            self.set_aside(kept.node)

    def set_aside(self, node: Node) -> None:
        """The node shows what the server has; its record stays, and no node stands for it."""
        content = node.content
        if not isinstance(content, Content) or content.kept is None:
            return
        kept, id = self._kept[content.kept], content.kept
        content.kept = None
        while (record := self._core.journal.get(id)) is not None:
            self._kept.pop(id, None)
            self._alone.add(id)
            if record.after is None:
                break
            id = record.after
        self._refuse(kept)

    def _content(self, kept: _Kept) -> Content:
        content = kept.node.content
        assert isinstance(content, Content), "what the journal holds of a node keeps its content"
        return content

    def _last(self, content: Content, record: Record) -> bool:
        """No later record of the file is pending."""
        if content.kept != record.id:
            return False
        content.kept = None
        return True

    def _refuse(self, kept: _Kept) -> None:
        """The server will not have it. What was written since stays, and so does a new file while
        it is open: what is written into it must not go nowhere.
        """
        content = self._content(kept)
        content.refused = kept.generation
        if content.is_refused and not kept.node.local:
            self.give_up(kept.node)
        content.touched = content.buffer is not None
        self._core.nursery.start_soon(self._settle, kept.node)

    def give_up(self, node: Node) -> None:
        """What the server has is shown again."""
        assert isinstance(node.content, Content)
        if node.content.buffer is not None:
            self._core.nursery.start_soon(self._core.uploader.discard, node.content.buffer)
        stream = node.content.drop_buffer()
        if stream is not None:
            self._core.nursery.start_soon(stream.aclose)
        node.pending, node.pending_ctime = AttributeChange(), 0
        node.cached_version = None  # the kernel's pages have what was written
        self._core.kernel.inode_changed(node.inode, content=True)
        for parent, name in list(node.names) if node.local else []:
            self._core.directories.of(parent).local.pop(name, None)
            self._core.inodes.drop_name(node, parent, name)
            self._core.kernel.entry_changed(parent.inode, name)

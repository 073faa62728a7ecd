"""Backlog: what close() could not bring to the server, or with `writeback` did not wait for.

The journal has it, durable, before anything is said of it; from there it goes up in the background,
one file at a time in the order of the closes. It must not decide where content goes: Files does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio

from filesfs.domain import AttributeChange
from filesfs.errors import FilesfsError, Unavailable
from filesfs.filesystem.content import Content
from filesfs.filesystem.core import Core
from filesfs.state.inodes import Node
from filesfs.write.buffer import WriteBuffer
from filesfs.write.upload import Target

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0  # between attempts while the server is away


class Backlog:
    """Owner of the queue. `describe` gives a node's buffer and target, `send` commits it."""

    def __init__(
        self,
        core: Core,
        describe: Callable[[Node], tuple[WriteBuffer, Target]],
        send: Callable[[Node, Content], Awaitable[None]],
        settle: Callable[[Node], Awaitable[None]],
    ) -> None:
        self._core = core
        self._describe = describe
        self._send = send
        self._settle = settle
        self._waiting: dict[Node, None] = {}
        self._running = False

    def __contains__(self, node: Node) -> bool:
        return node in self._waiting

    def keep(self, node: Node) -> None:
        """Into the journal, under the name and with the attributes that it has now. Durable when it
        returns; called again after a rename or a change of attributes.
        """
        if self._core.journal is not None and isinstance(node.content, Content):
            kept = node.content.kept
            node.content.kept = self._core.journal.keep(*self._describe(node), kept)

    def keep_again(self, node: Node) -> None:
        """The journal's copy, if it has one, follows what changed."""
        if isinstance(node.content, Content) and node.content.kept is not None:
            self.keep(node)

    def forget(self, node: Node) -> None:
        """What the journal kept of it is on the server, or nobody wants it any more."""
        if isinstance(node.content, Content) and self._core.journal is not None:
            kept, node.content.kept = node.content.kept, None
            if kept is not None:
                self._core.journal.forget(kept)

    def bring_up(self, node: Node) -> None:
        """Later, in the order in which it was asked for."""
        self._waiting[node] = None
        if not self._running:
            self._running = True
            self._core.nursery.start_soon(self._run)

    async def _run(self) -> None:
        """One at a time: what comes after a file must not be seen before it."""
        while self._waiting:
            node = next(iter(self._waiting))
            if await self._away(node):
                await trio.sleep(_RETRY_SECONDS)
                continue
            self._waiting.pop(node, None)
            await self._settle(node)
        self._running = False

    async def _away(self, node: Node) -> bool:
        """One attempt. True when the server is away, the one thing worth another attempt."""
        try:
            await self.push(node)
        except Unavailable:
            return True
        except (FilesfsError, OSError) as error:
            log.error("not stored: %s; the data stays in the journal, if close() said so", error)
            await self.give_up(node)
        return False

    async def push(self, node: Node) -> None:
        """Commit what is dirty of it, now."""
        content = node.content
        if isinstance(content, Content):
            async with content.lock:
                if content.dirty and node.names:
                    await self._send(node, content)

    async def drain(self, nodes: Iterable[Node]) -> None:
        """Commit what is dirty of these. Errors are logged, the journal keeps the data; while the
        server is away the rest would wait in vain, each its whole deadline.
        """
        for node in nodes:
            try:
                await self.push(node)
            except Unavailable as error:
                log.error("not stored, nor what comes after it: %s", error)
                return
            except (FilesfsError, OSError) as error:
                log.error("not stored: %s", error)

    async def give_up(self, node: Node) -> None:
        """The server will not have it: what it has is shown again. The journal's record stays."""
        assert isinstance(node.content, Content)
        await node.content.drop_buffer()
        node.pending, node.pending_ctime = AttributeChange(), 0
        node.cached_version = None  # the kernel's pages have what was written
        self._core.kernel.inode_changed(node.inode, content=True)
        for parent, name in list(node.names) if node.local else []:
            self._core.directories.of(parent).local.pop(name, None)
            self._core.inodes.drop_name(node, parent, name)
            self._core.kernel.entry_changed(parent.inode, name)

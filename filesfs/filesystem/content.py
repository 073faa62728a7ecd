"""Content: what one inode's open handles share. Its version, its dirty bytes, and one commit at a
time.

It must not know names or directories: those who call it do.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec.structs import replace

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import Arrived, Entry, Location
from filesfs.read.stream import ReadStream
from filesfs.state.inodes import Node
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import JournalId


class NodeReader:
    """Reads a version wherever its node is by now: a rename moves the key under an open handle."""

    def __init__(self, backend: FilesBackend, location: Callable[[], Location]) -> None:
        self._backend = backend
        self._location = location

    async def read(self, entry: Entry, offset: int, length: int, arrived: Arrived) -> bytes:
        entry = replace(entry, location=self._location())
        return await self._backend.read(entry, offset, length, arrived)


class ContentLock:
    """A fair lock that costs no switch of tasks while nobody holds it."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    def locked(self) -> bool:
        return self._lock.locked()

    async def acquire(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()


class Content:
    """Owner of an inode's buffer. `lock` is held by whoever commits or replaces the buffer."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.lock = ContentLock()
        self.buffer: WriteBuffer | None = None
        self.base: Entry | None = None  # the version that the clean parts of `buffer` are of
        self.base_stream: ReadStream | None = None
        # must be committed even if no byte differs (O_TRUNC of an empty file, ...)
        self.touched = False
        self.kept: JournalId | None = None  # the file's latest record in the journal
        self.settles_later = False  # somebody waits for the lock to let go of it
        self.refused: int | None = None  # the buffer's generation that the server will not have

    @property
    def dirty(self) -> bool:
        """Something here is not on the server."""
        unsaved = self.buffer is not None and self.buffer.dirty
        return self.touched or unsaved or self.kept is not None

    @property
    def is_refused(self) -> bool:
        """The server will not have it, and close() or the log said so. What the program makes of
        that, another try or none, is not to be overtaken by an attempt of our own later.
        """
        refused = self.buffer is not None and self.refused == self.buffer.generation
        return refused and self.kept is None

    @property
    def size(self) -> int | None:
        """The length that readers see, None when it is the entry's."""
        return self.buffer.size if self.buffer is not None else None

    async def read(self, offset: int, length: int) -> bytes:
        """BaseReader for the buffer: the untouched parts."""
        if self.base_stream is None:
            return b""
        return await self.base_stream.read(offset, length)

    def drop_buffer(self) -> ReadStream | None:
        """Free what is clean, or what nobody wants any more. What it returns is to be closed."""
        buffer, self.buffer, self.base = self.buffer, None, None
        self.touched, self.refused = False, None  # another buffer counts its generations anew
        if buffer is not None:
            buffer.close()
        stream, self.base_stream = self.base_stream, None
        return stream


def unsent(node: Node) -> bool:
    """Something of the file is not on the server."""
    return node.local or (isinstance(node.content, Content) and node.content.dirty)

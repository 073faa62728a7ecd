"""A Filesystem over the in-memory backend, without a kernel: what it is told is recorded."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from filesfs.domain import Entry, Handle, Inode, Kind, Location
from filesfs.filesystem import Caller, Core, Filesystem, Rules
from filesfs.read.blocks import BlockCache
from filesfs.state.directories import DirectoryCache
from filesfs.state.inodes import InodeTable, Node
from filesfs.write.journal import Journal
from filesfs.write.upload import Uploader
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.memory_tree import MemoryTree

ROOT_USER = Caller()


@dataclass
class RecordedKernel:
    """Implements filesystem.Kernel."""

    entries: list[tuple[Inode, bytes]] = field(default_factory=list)
    inodes: list[tuple[Inode, bool]] = field(default_factory=list)
    forgotten: list[Inode] = field(default_factory=list)

    def entry_changed(self, parent: Inode, name: bytes) -> None:
        self.entries.append((parent, name))

    def inode_changed(self, inode: Inode, *, content: bool) -> None:
        self.inodes.append((inode, content))

    def forget_attributes(self, inode: Inode) -> None:
        self.forgotten.append(inode)

    def forget_content(self, inode: Inode) -> None:
        self.inodes.append((inode, True))


class Rig:
    """One client: `fs`, its `backend`, the `kernel` it tells, and shorthands for a test's steps."""

    def __init__(self, core: Core, backend: MemoryBackend, kernel: RecordedKernel) -> None:
        self.fs = Filesystem(core)
        self.backend = backend
        self.kernel = kernel
        self.bucket: Node = core.inodes.root

    @property
    def calls(self) -> list[str]:
        return [operation for operation, _ in self.backend.faults.calls]

    async def lookup(self, name: bytes) -> Node | None:
        node = await self.fs.tree.child(self.bucket, name)
        if node is not None:
            self.fs.core.inodes.remember(node)
        return node

    async def create(self, name: bytes, flags: int = os.O_RDWR) -> tuple[Node, Handle]:
        node, handle, _ = await self.fs.namespace.create(self.bucket, name, 0o644, flags, ROOT_USER)
        self.fs.core.inodes.remember(node)
        return node, handle

    async def open(self, node: Node, flags: int = os.O_RDONLY) -> Handle:
        handle, _ = await self.fs.files.open(node, flags, ROOT_USER)
        return handle

    async def close(self, handle: Handle) -> None:
        """FLUSH, then RELEASE, as the kernel does at close(2)."""
        try:
            await self.fs.files.flush(handle)
        finally:
            await self.fs.files.release(handle)

    async def store(self, name: bytes, data: bytes) -> Node:
        node, handle = await self.create(name)
        await self.fs.files.write(handle, 0, data)
        await self.close(handle)
        return node

    async def content(self, name: bytes) -> bytes:
        node = await self.lookup(name)
        assert node is not None
        handle = await self.open(node)
        try:
            return await self.fs.files.read(handle, 0, 1 << 20)
        finally:
            await self.close(handle)

    async def names(self) -> list[bytes]:
        return sorted(await self.fs.tree.snapshot(self.bucket))


@asynccontextmanager
async def rig(
    folder: Path,
    tree: MemoryTree | None = None,
    *,
    feed: bool = False,
    origin: str = "mine",
    writeback: bool = False,
) -> AsyncIterator[Rig]:
    """A client with a bucket "b" to work in. Its journal is in `folder`, and may hold something."""
    backend, kernel = MemoryBackend(tree or MemoryTree(), origin=origin), RecordedKernel()
    await backend.connect()
    journal = Journal.open(folder, "test")
    async with trio.open_nursery() as nursery:
        root = Entry(Location(""), Kind.DIRECTORY, 0, Kind.DIRECTORY.value, 0, nlink=2)
        core = Core(
            rules=Rules(xattr=True, writeback=writeback),
            backend=backend,
            inodes=InodeTable(root),
            directories=DirectoryCache(),
            blocks=BlockCache(64 << 20),
            uploader=Uploader(backend, nursery),
            spool=journal.spool,
            journal=journal,
            nursery=nursery,
            kernel=kernel,
        )
        built = Rig(core, backend, kernel)
        if feed:
            nursery.start_soon(built.fs.coherence.run)
            await trio.testing.wait_all_tasks_blocked()
        found = await built.fs.tree.child(core.inodes.root, b"b")
        built.bucket = found or await built.fs.namespace.mkdir(
            core.inodes.root, b"b", 0o755, ROOT_USER
        )
        core.inodes.remember(built.bucket)
        backend.faults.calls.clear()
        yield built
        nursery.cancel_scope.cancel()
    journal.close()

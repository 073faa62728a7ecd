"""What pyfuse3 allows: a file system in this process's memory, with nothing behind it.

    python -m bench.nullfs DIR

The workloads run over it as over any other; no mount in Python on this machine is faster. It must
not grow features: only what the workloads do is answered, and nobody else may use it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass, field

import pyfuse3
import trio

ROOT = pyfuse3.ROOT_INODE
BLOCK = 512


@dataclass(slots=True)
class Node:
    inode: int
    directory: bool
    data: bytearray = field(default_factory=bytearray)
    names: dict[bytes, Node] = field(default_factory=dict)


class NullOperations(pyfuse3.Operations):
    """Everything in memory, nothing checked."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes = {ROOT: Node(ROOT, True)}
        self._last = int(ROOT)

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = node.inode
        entry.st_mode = (stat.S_IFDIR | 0o755) if node.directory else (stat.S_IFREG | 0o644)
        entry.st_nlink = 1
        entry.st_size = len(node.data)
        entry.st_blocks = -(-len(node.data) // BLOCK)
        entry.st_blksize = 4096
        entry.entry_timeout = entry.attr_timeout = 300
        return entry

    def _add(self, parent: int, name: bytes, *, directory: bool) -> Node:
        self._last += 1
        node = self._nodes[self._last] = Node(self._last, directory)
        self._nodes[parent].names[name] = node
        return node

    def _child(self, parent: int, name: bytes) -> Node:
        try:
            return self._nodes[parent].names[name]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    async def lookup(self, parent: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        return self._attributes(self._child(parent, name))

    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:
        return self._attributes(self._nodes[inode])

    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: object, fh: int | None, ctx: object
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._nodes[inode])

    async def mkdir(
        self, parent: int, name: bytes, mode: int, ctx: object
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._add(parent, name, directory=True))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: object
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node = self._add(parent, name, directory=False)
        return pyfuse3.FileInfo(fh=node.inode), self._attributes(node)

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        if flags & os.O_TRUNC:
            self._nodes[inode].data.clear()
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        return bytes(memoryview(self._nodes[fh].data)[offset : offset + length])

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        self._nodes[fh].data[offset : offset + len(data)] = data
        return len(data)

    async def flush(self, fh: int) -> None:
        return None

    async def fsync(self, fh: int, datasync: bool) -> None:
        return None

    async def release(self, fh: int) -> None:
        return None

    async def opendir(self, inode: int, ctx: object) -> int:
        return inode

    async def readdir(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        for number, (name, node) in enumerate(list(self._nodes[fh].names.items())[start:], start):
            if not pyfuse3.readdir_reply(token, name, self._attributes(node), number + 1):
                return

    async def unlink(self, parent: int, name: bytes, ctx: object) -> None:
        self._child(parent, name)
        del self._nodes[parent].names[name]

    async def rename(
        self,
        parent: int,
        name: bytes,
        parent_new: int,
        name_new: bytes,
        flags: int,
        ctx: object,
    ) -> None:
        self._nodes[parent_new].names[name_new] = self._child(parent, name)
        del self._nodes[parent].names[name]

    async def forget(self, inodes: object) -> None:
        return None


def main() -> int:
    options = {*pyfuse3.default_options, "fsname=nullfs"}
    pyfuse3.init(NullOperations(), sys.argv[1], options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

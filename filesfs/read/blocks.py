"""The blocks of files that were read: in memory within a budget, and on disk where the user wants
it.

It must not fetch anything, and must not decide what is worth fetching. A block belongs to one
version of a file, so nothing in here is ever out of date: it is only no longer asked for. All
methods of BlockCache are sync.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from filesfs.domain import Entry
from filesfs.read.disk import DiskBlocks
from filesfs.read.pace import Pace

__all__ = ["BLOCK_BYTES", "BlockCache", "DiskBlocks", "version_of"]

BLOCK_BYTES = 1024 * 1024

_Key = tuple[str, int]


def version_of(entry: Entry) -> str:
    """What names the content of an entry in the cache: its etag, which is never used again.

    A plain server has none: then place, time of the commit and size stand for it, good for the life
    of a mount but not for the disk.
    """
    return entry.etag or f"{entry.location}:{entry.created_at}:{entry.size}"


@dataclass(slots=True)
class _Block:
    """What is known of one block. Invariant: parts are in order, and do not touch or overlap."""

    parts: list[tuple[int, memoryview]] = field(default_factory=list)
    whole: bool = False
    passed: int = 0  # bytes of it that the kernel has had

    def add(self, start: int, data: memoryview, length: int) -> None:
        """Merge a part in; the block is whole once its parts are all of its `length` bytes."""
        apart = []
        for first, known in self.parts:
            if first + len(known) < start or start + len(data) < first:
                apart.append((first, known))
            else:
                start, data = _merge(first, known, start, data)
        self.parts = sorted([*apart, (start, data)], key=lambda part: part[0])
        self.whole = sum(len(known) for _, known in self.parts) >= length


def _merge(first: int, known: memoryview, start: int, data: memoryview) -> tuple[int, memoryview]:
    """Two parts of the same version that touch or overlap, as one."""
    if start < first:
        first, known, start, data = start, data, first, known
    missing = start + len(data) - (first + len(known))
    if missing <= 0:
        return first, known
    return first, memoryview(b"".join((known, data[len(data) - missing :])))


class _Ledger:
    """What memory the blocks hold. A part is a view of what a fetch brought, of any length, to save
    a copy; it keeps all of that alive. So the buffers are counted, each once, until its last view
    is gone.
    """

    def __init__(self) -> None:
        self.used = 0
        self._views: dict[int, int] = {}  # by id(): safe, since a counted buffer is alive

    def hold(self, parts: list[tuple[int, memoryview]]) -> None:
        for _, view in parts:
            buffer = id(view.obj)
            views = self._views.get(buffer, 0)
            self._views[buffer] = views + 1
            if not views:
                self.used += memoryview(view.obj).nbytes

    def release(self, parts: list[tuple[int, memoryview]]) -> None:
        for _, view in parts:
            buffer = id(view.obj)
            self._views[buffer] -= 1
            if not self._views[buffer]:
                del self._views[buffer]
                self.used -= memoryview(view.obj).nbytes


class BlockCache:
    """Blocks of 1 MiB by (version, index), least recently used out first; a block may be known in
    parts.

    `memory_bytes` bounds the bytes of content; what somebody still holds lives on without being
    counted.
    """

    def __init__(self, memory_bytes: int, disk: DiskBlocks | None = None) -> None:
        self.disk = disk
        self._budget = memory_bytes
        self._ledger = _Ledger()
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()
        self._indices: dict[str, set[int]] = {}
        self._readers = 0
        self.pace = Pace()  # of the server that fills it

    @property
    def used_bytes(self) -> int:
        return self._ledger.used

    def holds(self, size: int) -> bool:
        """Whether a file of this size has room, if everything else went."""
        return size <= self._budget

    def get(self, version: str, index: int) -> bytes | None:
        """A whole block (shorter at the end of the file), from memory."""
        block = self._touch(version, index)
        return bytes(block.parts[0][1]) if block is not None and block.whole else None

    def find(self, version: str, index: int, start: int, end: int) -> memoryview | None:
        """What memory has from `start` on, at most up to `end`; None if not even its first byte."""
        block = self._touch(version, index)
        if block is not None:
            for first, data in block.parts:
                if first <= start < first + len(data):
                    return data[start - first : end - first]
        return None

    def put(self, version: str, index: int, data: bytes) -> None:
        """Keep a whole block."""
        self.put_part(version, index, 0, memoryview(data), len(data))

    def put_part(self, version: str, index: int, start: int, data: memoryview, length: int) -> bool:
        """Keep what begins at `start` in a block of `length` bytes. True if that made it whole.

        `data` is a view of bytes, and keeps these bytes in memory.
        """
        block = self._touch(version, index)
        if block is None:
            block = self._blocks[version, index] = _Block()
            self._indices.setdefault(version, set()).add(index)
        before, was_whole = block.parts, block.whole
        block.add(start, data, length)
        self._ledger.hold(block.parts)
        self._ledger.release(before)
        self._evict()
        return block.whole and not was_whole

    def drop(self, version: str) -> None:
        """Forget a version, in memory; the disk's goes when room is needed."""
        for index in self._indices.pop(version, set()):
            self._ledger.release(self._blocks.pop((version, index)).parts)

    def pass_on(self, version: str, index: int, count: int, length: int) -> None:
        """The kernel has `count` more bytes of a block of `length` bytes: once it has them all,
        they need not be here as well.
        """
        block = self._blocks.get((version, index))
        if block is not None:
            block.passed += count
            if block.passed >= length:
                self.forget(version, index)

    def forget(self, version: str, index: int) -> None:
        """Drop one block from memory: nobody will ask for it soon."""
        block = self._blocks.pop((version, index), None)
        if block is not None:
            self._ledger.release(block.parts)
            self._indices[version].discard(index)
            if not self._indices[version]:
                del self._indices[version]

    # A stream that reads ahead fills memory before anybody wants the bytes. If all of them together
    # filled more than half of it, blocks would be evicted before they are read, and fetched twice.
    def join(self) -> None:
        """A stream begins to read ahead."""
        self._readers += 1

    def leave(self) -> None:
        """It does so no more."""
        self._readers -= 1

    @property
    def share(self) -> int:
        """Bytes that one stream may read ahead."""
        return self._budget // 2 // max(1, self._readers)

    def _touch(self, version: str, index: int) -> _Block | None:
        block = self._blocks.get((version, index))
        if block is not None:
            self._blocks.move_to_end((version, index))
        return block

    def _evict(self) -> None:
        while self._ledger.used > self._budget:
            self.forget(*next(iter(self._blocks)))

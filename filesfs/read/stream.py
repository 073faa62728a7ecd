"""Reading one open file: what the cache has, else what is on its way, else what is fetched now.

It must not write to the file, and must not retry: the reader below does that, within its deadline.

A handle reads one version, that of its entry. Between two awaits all of the state is consistent,
hence there is no lock: `read` decides without awaiting where each byte comes from, holds on to
those sources, and only then waits for them. Check this before you add an await. Fetches run in the
nursery that is passed in, but never raise into it: an error is told to the reads that wait for that
fetch, and to nobody if none does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from filesfs.domain import Arrived, Entry
from filesfs.errors import Corrupted, FilesfsError, Stale, Unavailable
from filesfs.read.blocks import BLOCK_BYTES, BlockCache, DiskBlocks, version_of
from filesfs.read.window import AHEAD, Range, ReadWindow

_KEPT = BLOCK_BYTES  # smaller files stay in memory though the kernel has them
_MOST_SAVES = 16  # blocks of one stream waiting for the disk; a slow disk does not get the rest

log = logging.getLogger(__name__)


class ContentReader(Protocol):
    """What a stream needs of the server."""

    async def read(self, entry: Entry, offset: int, length: int, arrived: Arrived) -> bytes:
        """`length` bytes from `offset` of exactly the version `entry.etag`; or b"", if `arrived`
        was told of all of them in order. That may begin anew in the middle."""


@dataclass(slots=True, eq=False)
class _Fetch:
    """A range on its way. What lies below `filled` has arrived. In the end all of it has, or
    `error` says why not."""

    start: int
    end: int
    ahead: bool
    filled: int
    error: Exception | None = field(
        default_factory=lambda: Unavailable("the mount ended while the file was being read")
    )
    waits: list[_Wait] = field(default_factory=list)
    over: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass(slots=True, eq=False)
class _Wait:
    """A read that waits for bytes [start, end) of a fetch. `done`: they came, or never will."""

    fetch: _Fetch
    start: int
    end: int
    parts: list[memoryview] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)

    def take(self, start: int, data: memoryview) -> None:
        """What of it is waited for. Invariant: what the fetch tells comes in order."""
        low, high = max(start, self.start), min(start + len(data), self.end)
        if low < high:
            self.parts.append(data[low - start : high - start])
        if high == self.end:
            self.done.set()


_Source = memoryview | _Wait


class ReadStream:
    """The reads of one handle. Any number of reads may run at a time."""

    def __init__(
        self, reader: ContentReader, cache: BlockCache, nursery: trio.Nursery, entry: Entry
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._nursery = nursery
        self._entry = entry
        self._size = entry.size
        self._version = version_of(entry)
        # Without an etag the version is a guess that is good for the life of a mount only.
        self._disk: DiskBlocks | None = cache.disk if entry.etag is not None else None
        self._window = ReadWindow(entry.size, cache.holds(entry.size), cache.pace)
        self._fetches: list[_Fetch] = []  # on their way; a handful, so a list is searched
        self._joined = False  # counted among those who read ahead
        self._saves = 0

    async def read(self, offset: int, length: int) -> bytes:
        """As `view`, in bytes of its own."""
        view = await self.view(offset, length)
        whole = view.obj if isinstance(view.obj, bytes) else b""
        return whole if len(whole) == len(view) else bytes(view)

    async def view(self, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset`, fewer only at the end of the file.

        Raises what the reader raises; Corrupted or Stale when the answer is not all of what was
        asked for.
        """
        end = min(offset + length, self._size)
        if offset >= end:
            return memoryview(b"")
        lost = self._window.observe(offset, end)
        if lost is not None:
            self._cancel(lost)
        passes = self._size > _KEPT and self._window.forward
        index, start = divmod(offset, BLOCK_BYTES)
        stop = start + end - offset
        if stop <= BLOCK_BYTES:
            data = self._cache.find(self._version, index, start, stop)
            if data is not None and len(data) == stop - start:
                if passes:
                    self._pass_on(offset, end)
                self._look_ahead()
                return data
        sources = list(self._sources(offset, end))
        self._look_ahead()  # after the sources: what is wanted now is asked for first
        data = await _gather(sources)
        if passes:
            self._pass_on(offset, end)
        return data

    async def aclose(self) -> None:
        """Cancel what no read waits for. Reads that wait, as the handle moved on, go on."""
        if self._joined:
            self._cache.leave()
            self._joined = False
        for fetch in self._fetches:
            if not fetch.waits:
                fetch.scope.cancel()

    def _pass_on(self, start: int, end: int) -> None:
        """The kernel keeps what it has read in order; here it would take the place, and the memory,
        of what comes next.
        """
        for low, high in _by_block(start, end):
            index = low // BLOCK_BYTES
            self._cache.pass_on(self._version, index, high - low, self._block_length(index))

    # -- where bytes come from: all of this without an await --------------------------------------
    def _sources(self, offset: int, end: int) -> Iterator[_Source]:
        while offset < end:
            source, offset = self._source(offset, end)
            yield source

    def _source(self, offset: int, end: int) -> tuple[_Source, int]:
        """Where the bytes from `offset` on come from, and up to where."""
        index, start = divmod(offset, BLOCK_BYTES)
        stop = min(BLOCK_BYTES, start + end - offset)
        piece = self._cache.find(self._version, index, start, stop)
        if piece is not None:
            return piece, offset + len(piece)
        fetch = self._on_its_way(offset)
        if fetch is None:
            fetch = self._begin(self._trim(self._window.demand(offset, end), offset), ahead=False)
        until = min(end, fetch.end)
        return _Wait(fetch, offset, until), until

    def _on_its_way(self, offset: int) -> _Fetch | None:
        for fetch in self._fetches:
            if fetch.filled <= offset < fetch.end and not fetch.scope.cancel_called:
                return fetch
        return None

    def _trim(self, wanted: Range, offset: int) -> Range:
        """Cut `wanted`, which holds `offset`, where other fetches begin or end."""
        start, end = wanted.start, wanted.end
        for fetch in self._fetches:
            if fetch.end <= offset:
                start = max(start, fetch.end)
            elif fetch.start > offset:
                end = min(end, fetch.start)
            elif fetch.filled > offset:  # it has brought this, which is no longer kept
                end = min(end, fetch.filled)
        return Range(start, end)

    def _look_ahead(self) -> None:
        coming = [Range(fetch.filled, fetch.end) for fetch in self._fetches]
        wanted = self._window.ahead(coming, min(AHEAD, self._cache.share))
        if wanted and not self._joined:
            self._cache.join()
            self._joined = True
        for part in wanted:
            for missing in self._missing(part):
                self._begin(missing, ahead=True)

    def _missing(self, wanted: Range) -> Iterator[Range]:
        """The parts of a range that are neither in memory nor on their way, by whole blocks."""
        start = wanted.start
        for low, high in _by_block(wanted.start, wanted.end):
            index, first = divmod(low, BLOCK_BYTES)
            known = self._cache.find(self._version, index, first, first + high - low)
            there = known is not None and len(known) == high - low
            if there or self._on_its_way(low) is not None:
                if start < low:
                    yield Range(start, low)
                start = high
        if start < wanted.end:
            yield Range(start, wanted.end)

    def _cancel(self, lost: Range) -> None:
        """Nobody goes on reading there: give up what was fetched ahead, unless a read waits."""
        for fetch in self._fetches:
            inside = lost.start <= fetch.start < lost.end
            if inside and fetch.ahead and not fetch.waits:
                fetch.scope.cancel()

    # -- fetching ---------------------------------------------------------------------------------
    def _begin(self, wanted: Range, *, ahead: bool) -> _Fetch:
        fetch = _Fetch(wanted.start, wanted.end, ahead, wanted.start)
        self._nursery.start_soon(self._run, fetch)
        self._fetches.append(fetch)
        return fetch

    async def _run(self, fetch: _Fetch) -> None:
        try:
            with fetch.scope:
                await self._load(fetch)
                fetch.error = None
        except Exception as error:
            fetch.error = error
            self._window.restart()
            if not isinstance(error, FilesfsError):  # a bug of ours: told even if no read waits
                log.exception("reading %s failed", self._entry.location)
        finally:
            self._fetches.remove(fetch)
            fetch.over = True
            for wait in fetch.waits:
                wait.done.set()

    async def _load(self, fetch: _Fetch) -> None:
        """The bytes from the disk's cache where it has their blocks, else from the server."""
        if self._disk is None:
            await self._ask(fetch, fetch.end)
            return
        for low, high in _by_block(fetch.start, fetch.end):
            data = await self._from_disk(low, high)
            if data is not None:
                await self._ask(fetch, low)
                self._arrived(fetch, low, memoryview(data))
        await self._ask(fetch, fetch.end)

    async def _from_disk(self, start: int, end: int) -> bytes | None:
        index, first = divmod(start, BLOCK_BYTES)
        if self._disk is None or not self._disk.has(self._version, index):
            return None
        data = await trio.to_thread.run_sync(self._disk.get, self._version, index)
        if data is None or len(data) != self._block_length(index):
            return None
        self._cache.put(self._version, index, data)
        return data[first : first + end - start]

    async def _ask(self, fetch: _Fetch, end: int) -> None:
        """What is missing up to `end`, from the server."""
        start = fetch.filled
        if start == end:
            return
        arrived, began = partial(self._arrived, fetch), trio.current_time()
        data = await self._reader.read(self._entry, start, end - start, arrived)
        if len(data) == end - start:
            arrived(fetch.filled, memoryview(data)[fetch.filled - start :])
        if fetch.filled == end:
            self._cache.pace.took(end - start, trio.current_time() - began)
            return
        detail = (
            f"{self._entry.location} has {self._size} bytes, but the server answered "
            f"{len(data)} for the {end - start} from byte {start} on"
        )
        # Without an etag the server cannot tell us that the file has changed: it just has another
        # length.
        raise Stale(detail) if self._entry.etag is None else Corrupted(detail)

    def _arrived(self, fetch: _Fetch, start: int, data: memoryview) -> None:
        """Bytes of a fetch are there. Must not raise: the event loop calls it."""
        known = fetch.filled - start  # after trouble it is told from the beginning once more
        if fetch.over or not 0 <= known < len(data):
            return
        start, data = fetch.filled, data[known:]
        fetch.filled += len(data)
        self._store(start, data)
        for wait in fetch.waits:
            wait.take(start, data)

    def _store(self, start: int, data: memoryview) -> None:
        for low, high in _by_block(start, start + len(data)):
            index, first = divmod(low, BLOCK_BYTES)
            length = self._block_length(index)
            part = data[low - start : high - start]
            if self._cache.put_part(self._version, index, first, part, length):
                self._save(index)

    def _save(self, index: int) -> None:
        disk = self._disk
        if disk is None or not disk.writes or disk.has(self._version, index):
            return
        data = self._cache.find(self._version, index, 0, BLOCK_BYTES)
        if data is not None and self._saves < _MOST_SAVES:
            self._saves += 1
            self._nursery.start_soon(self._write_block, disk, index, data)

    async def _write_block(self, disk: DiskBlocks, index: int, data: memoryview) -> None:
        # Not cancelled when the file is closed: a small file is closed as soon as it is read.
        try:
            await trio.to_thread.run_sync(disk.put, self._version, index, data)
        finally:
            self._saves -= 1

    def _block_length(self, index: int) -> int:
        return min(BLOCK_BYTES, self._size - index * BLOCK_BYTES)


async def _gather(sources: list[_Source]) -> memoryview:
    waits = [source for source in sources if isinstance(source, _Wait)]
    for wait in waits:  # all at once: none may be given up while an earlier one is awaited
        wait.fetch.waits.append(wait)
    parts: list[memoryview] = []
    try:
        for source in sources:
            parts += [source] if isinstance(source, memoryview) else await _awaited(source)
    finally:
        for wait in waits:
            wait.fetch.waits.remove(wait)
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


async def _awaited(wait: _Wait) -> list[memoryview]:
    await wait.done.wait()
    if sum(map(len, wait.parts)) == wait.end - wait.start:
        return wait.parts
    assert wait.fetch.error is not None
    raise wait.fetch.error


def _by_block(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range where blocks begin."""
    while start < end:
        stop = min(end, start - start % BLOCK_BYTES + BLOCK_BYTES)
        yield start, stop
        start = stop

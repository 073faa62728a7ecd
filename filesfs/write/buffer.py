"""The dirty bytes of one inode: what was written or truncated since the version it was opened on.

It must not talk to the server: the clean parts come through the BaseReader that the caller hands
in. Sync but for `read`, so every change is atomic; the inode's lock is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import trio

from filesfs.errors import Corrupted
from filesfs.write.extents import RangeSet, Segment, Source, layout
from filesfs.write.spool import SpoolFile, SpoolFolder
from filesfs.write.store import ByteStore

__all__ = ["BaseReader", "SpoolFile", "SpoolFolder", "WriteBuffer"]


class BaseReader(Protocol):
    """The untouched parts of the version that the file was opened on."""

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of that version. Stale when it is no more."""


class WriteBuffer:
    """Dirty bytes over the base over zeros.

    The base shows below `_base_end` where nothing is dirty: a truncate lowers it and nothing
    raises it again, so that a file cut and grown again has zeros there, not old bytes.
    """

    def __init__(self, spool: SpoolFolder, base_size: int, memory_limit: int = 64 << 20) -> None:
        """`base_size` is 0 for a new file; more than `memory_limit` bytes go to a spool file."""
        self.size = base_size  # current length of the file, bytes
        self.generation = 0  # grows with each change
        self._base_size = base_size
        self._base_end = base_size  # <= size
        self._extents = RangeSet()  # dirty ranges, all of them below size
        self._store = ByteStore(spool, memory_limit)
        self.closed = False
        self._sent = 0  # bytes from 0 on that a running stream has taken; see `take`
        self._sent_intact = True

    # -- what is there ----------------------------------------------------------------------------
    @property
    def dirty(self) -> bool:
        """The content differs from the base, or may."""
        return bool(self._extents) or not self._base_size == self._base_end == self.size

    @property
    def base_end(self) -> int:
        """Base bytes from here on do not show any more."""
        return self._base_end

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """The dirty ranges, in order."""
        return tuple(self._extents)

    @property
    def run(self) -> int:
        """Bytes from 0 on that are dirty without a gap."""
        return self._extents.run_from(0)

    def head(self, length: int = 512) -> bytes:
        """The first dirty bytes, to tell the content's type by."""
        return self._store.read(0, min(self.run, length))

    def layout(self, start: int, end: int) -> Iterator[Segment]:
        """Where the bytes of [start, end) come from, as of now; beyond the size they are zeros."""
        return layout(self._extents, self._base_end, start, end)

    # -- changes ----------------------------------------------------------------------------------
    def write(self, offset: int, data: bytes) -> int:
        """Put `data` at `offset`; returns its length. OSError if it cannot be kept."""
        if not data:
            return 0
        self._store.write(offset, data, self._extents)
        end = offset + len(data)
        self._extents.add(offset, end)
        self.size = max(self.size, end)
        self._changed(offset)
        return len(data)

    def truncate(self, size: int) -> None:
        """Set the length, in bytes: what grows is zeros, what is cut off is forgotten."""
        if size == self.size:
            return
        changed_from = min(size, self.size)
        if size < self.size:
            self._extents.cut(size)
            self._store.truncate(size)
            self._base_end = min(self._base_end, size)
        self.size = size
        self._changed(changed_from)

    def _changed(self, offset: int) -> None:
        self.generation += 1
        if offset < self._sent:
            self._sent_intact = False

    def moved_on(self, size: int) -> None:
        """An earlier generation is committed, in `size` bytes: the clean parts are that version's
        too.
        """
        self._base_size = size

    def rebase(self, size: int) -> None:
        """The current generation is committed: the content is the server's, `size` bytes."""
        self._extents.clear()
        self._store.release()
        self.size = self._base_size = self._base_end = size
        # The journal may have brought it up, beside a stream that still runs: that one has bytes of
        # before, and nobody would watch over them.
        self._sent, self._sent_intact = 0, False

    def close(self) -> None:
        """Free memory and spool file (a spool file that the journal holds stays)."""
        self.closed = True
        self._extents.clear()
        self._store.release()

    # -- reading ----------------------------------------------------------------------------------
    async def read(self, offset: int, length: int, base: BaseReader) -> bytes:
        """What the file has there; fewer than `length` bytes only at its end.

        Raises what `base` raises. The dirty bytes are those of the moment of the call, whatever is
        written while the base is awaited.
        """
        return await self.read_padded(offset, max(0, min(length, self.size - offset)), base)

    async def read_padded(self, offset: int, length: int, base: BaseReader) -> bytes:
        """As `read`, with zeros beyond the end: an upload of a file that is cut meanwhile keeps
        its length.
        """
        segments = tuple(self.layout(offset, offset + length))
        if len(segments) == 1 and segments[0].source is Source.DIRTY:
            return self._store.read(offset, length)
        result = bytearray(length)
        for part in segments:
            if part.source is Source.DIRTY:
                held = self._store.read(part.start, part.length)
                result[part.start - offset : part.end - offset] = held
        for part in segments:
            if part.source is Source.BASE:
                clean = await _exactly(base, part)
                result[part.start - offset : part.end - offset] = clean
        return bytes(result)

    # -- for the uploader's stream ----------------------------------------------------------------
    def take(self, offset: int, length: int) -> list[bytes | memoryview]:
        """Dirty bytes for a stream, in pieces; from now on a change below offset + length makes it
        void.
        """
        self._sent = max(self._sent, offset + length)
        return list(self._store.pieces(offset, length))

    @property
    def intact(self) -> bool:
        """What was taken is still what the file has there."""
        return self._sent_intact

    def restart(self) -> None:
        """No stream has taken anything."""
        self._sent = 0
        self._sent_intact = True

    # -- for the journal --------------------------------------------------------------------------
    def spill(self) -> SpoolFile:
        """All dirty bytes in a spool file, from now on if not before. OSError: as before."""
        return self._store.spill(self._extents)

    async def sync(self, most: int) -> None:
        """What is more than `most` bytes goes to the spool file, and is made durable in a thread:
        what waits for the disk later waits for little. OSError.
        """
        if self._small(most):
            return
        file = self.spill().hold()
        try:
            await trio.to_thread.run_sync(file.sync)
        finally:
            file.release()

    def freeze(self) -> None:
        """The spool file's bytes as they are now belong to a record: what is written over them goes
        elsewhere.
        """
        self._store.freeze(self._extents)

    def small(self, most: int) -> bytes | None:
        """All dirty bytes, range after range, if they are in memory and at most `most`."""
        if not self._small(most):
            return None
        return b"".join(self._store.read(start, end - start) for start, end in self._extents)

    def _small(self, most: int) -> bool:
        return self._store.file is None and self._extents.total <= most

    @classmethod
    def restored(
        cls,
        spool: SpoolFolder,
        held: SpoolFile | bytes,
        *,
        size: int,
        base_size: int,
        base_end: int,
        extents: tuple[tuple[int, int], ...],
    ) -> WriteBuffer:
        """The buffer that a journal record describes.

        `held` is its spool file, whose hold it takes over, or what `small` returned.
        """
        buffer = cls(spool, base_size)
        if isinstance(held, SpoolFile):
            buffer._store.adopt(held)
        else:
            for start, end in extents:
                buffer._store.write(start, held[: end - start], ())
                held = held[end - start :]
        buffer.size = size
        buffer._base_end = base_end
        buffer._extents = RangeSet(extents)
        buffer.generation = 1
        return buffer

    @property
    def base_size(self) -> int:
        return self._base_size


async def _exactly(base: BaseReader, part: Segment) -> bytes:
    data = await base.read(part.start, part.length)
    if len(data) != part.length:
        # Zeros in their place would be a silent change of the user's data.
        raise Corrupted(
            f"the base version gave {len(data)} bytes of {part.length} at {part.start}; "
            "the file on the server is shorter than its entry said"
        )
    return data

"""The bytes of one buffer: in memory while they are few, in a spool file from then on.

It must not decide which bytes are valid: the buffer's extents do, and it tells them when bytes
have to move.
"""

from __future__ import annotations

from collections.abc import Iterable

from filesfs.write.extents import RangeSet
from filesfs.write.spool import SpoolFile, SpoolFolder

# Small files are most files: a page grows to what was written, so that a 100-byte file costs 100
# bytes, and a far seek costs no gap. 64 KiB keeps the number of pages under the memory limit
# small.
PAGE = 64 << 10


class _Pages:
    """Sparse memory: pages of at most PAGE bytes, each as long as its last written byte."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self.held = 0  # bytes in all pages together

    def write(self, offset: int, data: memoryview) -> None:
        while data:
            number, start = divmod(offset, PAGE)
            piece = data[: PAGE - start]
            page = self._pages.setdefault(number, bytearray())
            before = len(page)
            if start > before:
                page.extend(bytes(start - before))
            page[start : start + len(piece)] = piece
            self.held += len(page) - before
            offset += len(piece)
            data = data[len(piece) :]

    def read(self, offset: int, length: int) -> bytes:
        result = bytearray()
        while length:
            number, start = divmod(offset, PAGE)
            wanted = min(length, PAGE - start)
            piece = memoryview(self._pages.get(number, b""))[start : start + wanted]
            result += piece
            result += bytes(wanted - len(piece))
            offset += wanted
            length -= wanted
        return bytes(result)

    def truncate(self, size: int) -> None:
        number, start = divmod(size, PAGE)
        for gone in [page for page in self._pages if page > number]:
            self.held -= len(self._pages.pop(gone))
        page = self._pages.get(number, bytearray())
        self.held -= max(0, len(page) - start)
        del page[start:]


class ByteStore:
    """Bytes by file offset. Ask only for what is dirty: the rest reads as anything."""

    def __init__(self, folder: SpoolFolder, memory_limit: int) -> None:
        self._folder = folder
        self._memory_limit = memory_limit
        self._pages = _Pages()
        self._file: SpoolFile | None = None  # once set, it has all bytes and _pages is empty
        # What journal records speak of in a shared _file: never written over.
        self._frozen = RangeSet()

    @property
    def file(self) -> SpoolFile | None:
        return self._file

    def adopt(self, file: SpoolFile) -> None:
        """Take bytes that are in a spool file already."""
        self.release()
        self._file = file

    def write(self, offset: int, data: bytes, dirty: Iterable[tuple[int, int]]) -> None:
        """Keep `data`. OSError when the spool is full; every byte of `dirty` is then as it was."""
        if self._file is None and self._pages.held + len(data) > self._memory_limit:
            self.spill(dirty)
        if self._file is None:
            self._pages.write(offset, memoryview(data))
        else:
            self._file = self._writable(self._file, offset, offset + len(data), dirty)
            self._file.write(offset, data)

    def _writable(
        self, file: SpoolFile, start: int, end: int, dirty: Iterable[tuple[int, int]]
    ) -> SpoolFile:
        """The file itself, unless a record has bytes in [start, end): then a copy, and the record
        keeps the old one.
        """
        if not file.shared or next(self._frozen.within(start, end), None) is None:
            return file
        copy = self._folder.create()
        try:
            for first, last in dirty:
                file.copy(copy, first, last - first)
        except OSError:
            copy.release()
            raise
        self._frozen.clear()
        file.release()
        return copy

    def freeze(self, dirty: Iterable[tuple[int, int]]) -> None:
        """A record of the journal, which holds the file, speaks of these ranges from now on."""
        for start, end in dirty:
            self._frozen.add(start, end)

    def read(self, offset: int, length: int) -> bytes:
        if self._file is not None:
            return self._file.read(offset, length)
        return self._pages.read(offset, length)

    def spill(self, dirty: Iterable[tuple[int, int]]) -> SpoolFile:
        """Move the ranges `dirty` to a spool file, if they are not there yet. OSError: nothing
        moved.
        """
        if self._file is None:
            self._file = self._written(dirty)
            self._pages = _Pages()
        return self._file

    def _written(self, dirty: Iterable[tuple[int, int]]) -> SpoolFile:
        file = self._folder.create()
        try:
            for start, end in dirty:
                file.write(start, self._pages.read(start, end - start))
        except OSError:
            file.release()
            raise
        return file

    def truncate(self, size: int) -> None:
        """Free what lies from `size` on."""
        self._pages.truncate(size)
        if self._file is None:
            return
        if not self._file.shared:
            self._file.truncate(size)
        elif size == 0:  # rewritten from scratch: the journal's copy must not mix with the new one
            self.release()
        # Else the journal's record still speaks of these bytes; the buffer's extents forget them.

    def release(self) -> None:
        """Free everything."""
        self._pages = _Pages()
        self._frozen.clear()
        if self._file is not None:
            self._file.release()
            self._file = None

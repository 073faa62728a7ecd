"""The bytes of one buffer: in memory while there is room, in a spool file from then on.

It must not decide which bytes are valid: the buffer's extents do, and it tells them when bytes
have to move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from filesfs.write.extents import RangeSet
from filesfs.write.spool import SpoolFile, SpoolFolder

# Small files are most files: a page grows to what was written, so that a 100-byte file costs 100
# bytes, and a far seek costs no gap. 64 KiB keeps the number of pages small.
PAGE = 64 << 10

# What is written in pieces of at least this much, one behind the other, is gathered without a copy
# until the page is whole; of smaller ones each would weigh more as an object than as bytes.
_GATHERED = 512

Piece = bytes | memoryview


class _Pages:
    """Sparse memory: pages of at most PAGE bytes, each as long as its last written byte.

    A page that was written whole is a view of what the writer handed over: no copy is made. Views
    of pages that were handed out keep what they show until it is written again.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray | memoryview] = {}
        self.held = 0  # bytes in all pages together
        # The page that is being written piece by piece from its start: not in _pages until it is
        # whole, or is asked for. The pieces go up to _end; _left more bytes are the page's.
        self._pieces: list[bytes] = []
        self._end = self._left = 0

    def __contains__(self, number: int) -> bool:
        self._gather()
        return number in self._pages

    def __iter__(self) -> Iterator[int]:
        self._gather()
        return iter(sorted(self._pages))

    def append(self, offset: int, data: bytes) -> bool:
        """Take `data` if it begins a page that is not there, or goes on where the last such piece
        ended, in the same page: a program that writes block after block. Else False.
        """
        length = len(data)
        if offset != self._end or not self._pieces:
            number, start = divmod(offset, PAGE)
            if start or not _GATHERED <= length < PAGE or number in self:
                return False
            self._end, self._left = offset, PAGE
        elif not _GATHERED <= length <= self._left:
            return False
        self._pieces.append(data)
        self._end += length
        self._left -= length
        self.held += length
        if not self._left:
            self._gather()
        return True

    def _gather(self) -> None:
        """The page of _pieces is one like the others."""
        if self._pieces:
            number = (self._end - 1) // PAGE
            whole = not self._left
            joined = b"".join(self._pieces)
            self._pages[number] = memoryview(joined) if whole else bytearray(joined)
            self._pieces.clear()

    def write(self, number: int, start: int, piece: memoryview) -> None:
        """Put `piece`, which fits in the page, at `start` of it."""
        self._gather()
        page = self._pages.get(number)
        length = 0 if page is None else len(page)
        if len(piece) == PAGE and isinstance(piece.obj, bytes):
            self._pages[number] = piece
        elif isinstance(page, bytearray) and start <= length:
            page[start : start + len(piece)] = piece
        else:
            fresh = bytearray(page or b"")
            fresh.extend(bytes(max(0, start - length)))
            fresh[start : start + len(piece)] = piece
            self._pages[number] = fresh
        self.held += len(self._pages[number]) - length

    def view(self, number: int, start: int, length: int) -> Iterator[Piece]:
        """`length` bytes of a page that is there, zeros behind its end."""
        self._gather()
        page = self._pages[number]
        if len(page) == PAGE:
            yield memoryview(page)[start : start + length]
            return
        held = bytes(page[start : start + length])  # it may grow, which a view would forbid
        yield held
        if len(held) < length:
            yield bytes(length - len(held))

    def truncate(self, size: int) -> None:
        self._gather()
        number, start = divmod(size, PAGE)
        for gone in [page for page in self._pages if page > number]:
            self.held -= len(self._pages.pop(gone))
        page = self._pages.get(number)
        if page is not None and len(page) > start:
            self.held -= len(page) - start
            self._pages[number] = bytearray(page[:start])


class ByteStore:
    """Bytes by file offset. Ask only for what is dirty: the rest reads as anything.

    A page is in memory or in the spool file. Pages are made in memory until there is a file; it
    is made when there is no room, or when the bytes must survive a crash.
    """

    def __init__(self, folder: SpoolFolder, memory_limit: int) -> None:
        self._folder = folder
        self._memory_limit = memory_limit
        self._pages = _Pages()
        self._file: SpoolFile | None = None
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
        file, before = self._file, self._pages.held
        room = file is None and self._room(len(data))
        if room and self._pages.append(offset, data):
            self._folder.in_memory += len(data)
            return
        if file is None and not room:
            file = self._folder.create()
        elif file is not None:
            file = self._file = self._writable(file, offset, offset + len(data), dirty)
        if file is None:
            self._write_pages(offset, memoryview(data))
        else:
            self._write_through(file, offset, memoryview(data))
        self._folder.in_memory += self._pages.held - before

    def _room(self, length: int) -> bool:
        here = self._pages.held + length <= self._memory_limit
        return here and self._folder.in_memory + length <= self._folder.memory_bytes

    def _write_pages(self, offset: int, data: memoryview) -> None:
        while data:
            number, start = divmod(offset, PAGE)
            piece = data[: PAGE - start]
            self._pages.write(number, start, piece)
            offset += len(piece)
            data = data[len(piece) :]

    def _write_through(self, file: SpoolFile, offset: int, data: memoryview) -> None:
        places = list(self._places(offset, len(data)))
        try:
            for start, end, in_memory in places:  # what can fail comes first
                if not in_memory:
                    file.write(start, data[start - offset : end - offset])
        except OSError:
            if self._file is None:
                file.release()
            raise
        self._file = file
        for start, end, in_memory in places:
            if in_memory:
                self._write_pages(start, data[start - offset : end - offset])

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
        """A record of the journal, which holds the file, speaks of these ranges from now on.

        They were spilled: no page of them is in memory.
        """
        for start, end in dirty:
            self._frozen.add(start, end)

    def _places(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """The range cut up by where it is: (start, end, in memory), a page each in memory."""
        end = offset + length
        while offset < end:
            number, first = divmod(offset, PAGE)
            stop = min(end, offset + PAGE - first)
            if number in self._pages:
                yield offset, stop, True
            else:
                while stop < end and stop // PAGE not in self._pages:
                    stop = min(end, stop + PAGE)
                yield offset, stop, False
            offset = stop

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """As `read`, without a copy where a whole page is in memory."""
        for start, end, in_memory in self._places(offset, length):
            if in_memory:
                yield from self._pages.view(start // PAGE, start % PAGE, end - start)
            elif self._file is not None:
                yield self._file.read(start, end - start)
            else:
                yield bytes(end - start)

    def read(self, offset: int, length: int) -> bytes:
        return b"".join(self.pieces(offset, length))

    def spill(self, dirty: RangeSet) -> SpoolFile:
        """Move the ranges `dirty` to a spool file, if they are not there yet. OSError: nothing
        moved.
        """
        file = self._file or self._folder.create()
        try:
            for number in self._pages:
                for start, end in dirty.within(number * PAGE, (number + 1) * PAGE):
                    file.write(start, self.read(start, end - start))
        except OSError:
            if self._file is None:
                file.release()
            raise
        self._file = file
        self._forget_pages()
        return file

    def truncate(self, size: int) -> None:
        """Free what lies from `size` on."""
        before = self._pages.held
        self._pages.truncate(size)
        self._folder.in_memory += self._pages.held - before
        if self._file is None:
            return
        if not self._file.shared:
            self._file.truncate(size)
        elif size == 0:  # rewritten from scratch: the journal's copy must not mix with the new one
            self.release()
        # Else the journal's record still speaks of these bytes; the buffer's extents forget them.

    def release(self) -> None:
        """Free everything."""
        self._forget_pages()
        self._frozen.clear()
        if self._file is not None:
            self._file.release()
            self._file = None

    def _forget_pages(self) -> None:
        self._folder.in_memory -= self._pages.held
        self._pages = _Pages()

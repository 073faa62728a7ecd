"""A file that is being received: one of its own, or one that it shares with a version.

It must not know sessions, names or versions. Methods block: call them in a worker thread.

A shared file is a second name (hard link) of a version's blob. What is received goes behind
everything that is in it, what the version has is pointed to, and `blocks` says where each MiB is.
Three rules keep every byte that a version or a session points to:

- Whoever writes to a shared file holds its lock (flock: a server on a restored backup, which has
  hard links to the same blobs, is kept out, too).
- Nobody writes or cuts below the length that the file had when the lock was taken.
- A session's `blocks` are recorded only once what they point to is on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from files_server.blobs.checksums import BLOCK, BlockSums
from files_server.blobs.layout import Layout, in_order
from files_server.blobs.pieces import DamagedError, Stored, piece
from files_server.blobs.slots import ALIGNMENT, SLOT

_READ = 1 << 20
_MOST = 2  # times its length a version's blob may hold before the next version is a file of its own


class Mark(NamedTuple):
    """A state of an upload, to go back to."""

    length: int
    sums: BlockSums
    blocks: bytes | None
    shift: int | None
    end: int

    @property
    def shared(self) -> tuple[bytes, bytes] | tuple[None, None]:
        """Where its bytes are in a shared file, and their sums: what `restore` needs."""
        return (None, None) if self.blocks is None else (self.blocks, self.sums.value())


class UploadFile:
    """A file that is being received. One user at a time. `length` counts the upload's bytes, and
    `blocks` says where they are, see Layout; None: in order, in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self.path = path
        self.length = 0
        self.sums = BlockSums()
        self.blocks: bytes | None = None
        self._shift: int | None = 0  # from a byte's offset to its place; None: to be found first
        self._end = 0  # of a shared file: what is written next goes behind it
        self._kept = -1  # of a shared file, while it is held: never changed below
        self._direct = True  # until the file system says that it cannot
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    # -- sharing ----------------------------------------------------------------------------------
    def borrow(self, blob: Path, base: Stored, begin: int, size: int) -> bool:
        """Share the blob of a version, and begin with its first `begin` bytes. False when that
        cannot be: another upload writes to it, or it holds too much that a version of `size` bytes
        would not have. Then a copy is due, and worth it.
        """
        link = self.path.with_name(f"{self.path.name}.base")
        taken = -1
        try:
            taken = os.open(blob, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
            BlockSums.resumed(base.sums, base.size)  # ValueError where they are not known
            found = os.fstat(taken)
            if min(found.st_size, found.st_blocks * 512) > _MOST * min(size, base.size):
                raise OSError(errno.EFBIG, "too much of it is no longer needed", str(blob))
            first = base.layout.first(begin)
            resumed = BlockSums.resumed(base.sums[: len(first)], begin)
            link.unlink(missing_ok=True)
            os.link(blob, link)
            os.rename(link, self.path)
            sync_folder(self.path.parent)
        except (OSError, ValueError):
            if taken >= 0:
                os.close(taken)
            return False
        os.close(self._descriptor)
        self._descriptor = taken
        self.length, self.sums, self.blocks = begin, resumed, first
        self._hold()
        return True

    def _hold(self) -> bool:
        """Whether this upload is the one that may write to the shared file."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._kept = self._end = os.fstat(self._descriptor).st_size
        self._shift = None
        return True

    def _claim(self) -> int:
        """Where the next byte goes, less its offset: behind all that is in a shared file. A block
        that is begun goes on if it is the last one there, else it is copied to that place first.
        """
        if self._shift is not None:
            return self._shift
        assert self.blocks is not None
        first = self.length - self.length % BLOCK
        if inside := self.length - first:
            old = int.from_bytes(self.blocks[-4:], "big") * BLOCK
            if old + inside == self._end:
                self._shift = old - first
                return self._shift
            data = os.pread(self._descriptor, inside, old)
            if struct.pack(">I", crc32c(data)) != self.sums.last():
                raise DamagedError(first, self.length)
        start = -(-self._end // BLOCK) * BLOCK
        if inside:
            _write_all(self._descriptor, data, start)
            self.blocks = self.blocks[:-4] + in_order(start // BLOCK, 1)
        self._shift, self._end = start - first, start + inside
        return self._shift

    def take(self, path: Path, base: Stored, length: int) -> None:
        """Append `length` bytes of a version, whose blob is at `path`, from this file's own length
        on: whole blocks without a copy where the blob is shared. DamagedError for what is not what
        was stored. The caller knows that the version is long enough.
        """
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            here, there = os.fstat(self._descriptor), os.fstat(source)
            shared = self.blocks is not None and os.path.samestat(here, there)
            end = self.length + length
            while self.length < end:
                block = self.length // BLOCK * BLOCK
                last = min(block + BLOCK, base.size)
                if self.length > block or end < last:
                    data = piece(source, base, self.length, min(end, last))
                    self._claim()
                    self._put(memoryview(data))
                elif shared:
                    self._point(base, end if end == base.size else end // BLOCK * BLOCK)
                else:
                    self._copy_block(source, base, last)
        finally:
            os.close(source)

    def _point(self, base: Stored, end: int) -> None:
        """Have the version's own blocks up to `end`."""
        assert self.blocks is not None
        first, behind = len(self.blocks), 4 * -(-end // BLOCK)
        self.blocks += base.layout.first(end)[first:behind]
        self.sums.follow(base.sums[first:behind], end - self.length)
        self.length, self._shift = end, None

    def _copy_block(self, source: int, base: Stored, end: int) -> None:
        mark, first = self.mark(), self.length
        shift = self._claim()
        for start, length in base.layout.runs(first, end):
            at, till = start, start + length
            while at < till:
                copied = copy_range(source, self._descriptor, till - at, at, self.length + shift)
                if copied == 0:
                    raise DamagedError(self.length, end)
                self._grew(os.pread(self._descriptor, copied, self.length + shift))
                at += copied
        number = first // BLOCK
        if base.sums and self.sums.last() != base.sums[4 * number : 4 * number + 4]:
            self.back(mark)  # else what was received of the upload would count with it
            raise DamagedError(first, end)

    # -- after a restart --------------------------------------------------------------------------
    def restore(self, length: int, blocks: bytes | None = None, sums: bytes | None = None) -> None:
        """Take up a file from before: at `length`, as it was recorded. The sums of a file of its
        own are computed again. FileNotFoundError where it does not hold so much.
        """
        found = os.fstat(self._descriptor)
        if found.st_size < Layout(blocks).end(0, length):
            raise FileNotFoundError(f"{self.path} is shorter than the {length} bytes recorded")
        if blocks is not None:
            resumed = BlockSums.resumed(sums or b"", length)
            if not self._hold():
                self._leave(length, blocks)
                if not self._hold():
                    raise BlockingIOError(
                        errno.EAGAIN, "a file of its own is locked", str(self.path)
                    )
            self.length, self.sums, self.blocks = length, resumed, blocks
            return
        if found.st_nlink > 1:  # a registered location may have it as its file by now
            self._leave(length, None)
        os.ftruncate(self._descriptor, length)
        self.sums, self.length = BlockSums(), 0
        while self.length < length:
            data = os.pread(self._descriptor, min(_READ, length - self.length), self.length)
            self._grew(data)

    def _leave(self, length: int, blocks: bytes | None) -> None:
        """For a file of its own, with all that this upload has at the same places as before, so
        that what is recorded of them holds for both."""
        own = self.path.with_name(f"{self.path.name}.own")
        target = os.open(own, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for start, count in Layout(blocks).runs(0, length):
                at = start
                while at < start + count:
                    left = min(_READ, start + count - at)
                    at += copy_range(self._descriptor, target, left, at, at)
            os.fdatasync(target)
            os.rename(own, self.path)
        except BaseException:
            os.close(target)
            own.unlink(missing_ok=True)
            raise
        # The name is the own file's from here on, even if that is not on the disk yet.
        os.close(self._descriptor)
        self._descriptor = target
        sync_folder(self.path.parent)

    # -- writing ----------------------------------------------------------------------------------
    def append(self, chunks: Iterable[bytes]) -> None:
        """Write at the end. After an error the caller goes back to a mark."""
        for chunk in chunks:
            self.write(memoryview(chunk))

    def write(self, view: memoryview) -> None:
        """Write at the end; large files past the page cache. After an error the caller goes back to
        a mark.

        Pages for content that nobody reads soon cost more than the disk does, and writing them
        out would be left for the sync that the client waits for. `view` of a Slot is aligned.
        """
        self._claim()
        head = min(-self.length % ALIGNMENT, len(view))
        whole = (len(view) - head) // ALIGNMENT * ALIGNMENT
        if self._direct and whole and self.length + len(view) >= SLOT:
            self._put(view[:head])
            self._put_past_the_cache(view[head : head + whole])
            view = view[head + whole :]
        self._put(view)

    def _put_past_the_cache(self, view: memoryview) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
            while len(view) >= ALIGNMENT:
                view = self._written(view)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct = False
        finally:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
        self._put(view)

    def _put(self, view: memoryview) -> None:
        start, length = self.length + (self._shift or 0), len(view)
        while view:
            view = self._written(view)
        if length >= SLOT // 2:  # so that little is left for the sync
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)

    def _written(self, view: memoryview) -> memoryview:
        """Write some of it; what is left."""
        written = os.pwrite(self._descriptor, view, self.length + (self._shift or 0))
        self._grew(view[:written])
        return view[written:]

    def _grew(self, data: bytes | memoryview) -> None:
        """These bytes were put at the end."""
        self.sums.update(data)
        self.length += len(data)
        if self.blocks is not None:
            shift = self._shift or 0
            self._end = self.length + shift
            known, count = len(self.blocks) // 4, -(-self.length // BLOCK)
            self.blocks += in_order(known + shift // BLOCK, count - known)

    @property
    def shared(self) -> tuple[bytes, bytes] | tuple[None, None]:
        """That of its mark as of now."""
        return self.mark().shared

    def mark(self) -> Mark:
        """The state as of now."""
        return Mark(self.length, self.sums.copy(), self.blocks, self._shift, self._end)

    def back(self, mark: Mark) -> None:
        """As it was then; what was written since goes."""
        self.length, sums, self.blocks, self._shift, self._end = mark
        self.sums = sums.copy()
        end = self.length if self.blocks is None else max(self._kept, self._end)
        os.ftruncate(self._descriptor, end)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    # -- reading ----------------------------------------------------------------------------------
    def read(self) -> bytes:
        """All of it; for what turns out small enough for the catalog."""
        return Layout(self.blocks).read(self._descriptor, 0, self.length)

    def feed(self, sink: Callable[[bytes], object], start: int = 0) -> None:
        """Hand the bytes from `start` to e.g. a hash."""
        layout = Layout(self.blocks)
        while start < self.length:
            end = min(start + _READ, self.length)
            data = layout.read(self._descriptor, start, end)
            if len(data) < end - start:
                raise DamagedError(start, end)
            sink(data)
            start = end

    def crc_since(self, start: int) -> int | None:
        """The crc32c of what arrived from `start` on, if that is known without reading it again."""
        return self.sums.since(start)

    def give_up(self) -> None:
        """Close what is not to be a version. What it put into a shared file is cut off: nobody
        else could have grown that meanwhile."""
        with suppress(OSError):
            status = os.fstat(self._descriptor)
            if self._kept >= 0 and os.path.samestat(status, os.stat(self.path)):
                os.ftruncate(self._descriptor, self._kept)  # it was not published
        self.close()

    def __del__(self) -> None:
        """Nobody has it any more, as where a request was ended while a thread opened it: its lock
        must not stay."""
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def copy_range(source: int, target: int, length: int, start: int, to: int) -> int:
    """Copy from `start` of one file to `to` of another; how many bytes that were."""
    try:
        return os.copy_file_range(source, target, length, start, to)
    except OSError:  # another file system, or one that cannot
        return os.pwrite(target, os.pread(source, length, start), to)


def sync_folder(path: Path) -> None:
    """Its names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

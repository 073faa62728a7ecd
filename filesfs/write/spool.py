"""Files on the local disk for dirty bytes that do not fit in memory, or must survive a crash.

It must not know what the bytes mean: a spool file holds them at the offsets of the file they
belong to (sparse), and which ranges are valid is the buffer's and the journal's knowledge.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

_COPY = 16 << 20  # bytes at a time, when one spool file takes over another's

MakeRoom = Callable[[int], bool]  # bytes wanted; whether any were freed


def _no_room(length: int) -> bool:
    return False


class SpoolFile:
    """One open spool file. It is removed when the last of its holders lets go."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        *,
        stays: bool = False,
        make_room: MakeRoom = _no_room,
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self._stays = stays
        self._make_room = make_room
        self._holders = 1
        self._failed: int | None = None  # errno of a sync

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def shared(self) -> bool:
        """Somebody else (the journal) needs these bytes too: do not take any away."""
        return self._holders > 1

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data`. OSError (ENOSPC, EFBIG, ...) if the disk does not take it."""
        rest = memoryview(data)
        while rest:
            try:
                written = os.pwrite(self._descriptor, rest, offset)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not full or not self._make_room(len(rest)):
                    raise
                continue
            offset += written
            rest = rest[written:]

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes; zeros where the file has holes or ends."""
        pieces = []
        while length and (piece := os.pread(self._descriptor, length, offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces) + bytes(length)

    def copy(self, other: SpoolFile, offset: int, length: int) -> None:
        """The same bytes at the same offsets of `other`, shared where the disk can. OSError."""
        while length:
            try:
                copied = os.copy_file_range(
                    self._descriptor, other._descriptor, min(length, _COPY), offset, offset
                )
            except OSError:  # not on this disk, or it is full: a write may find room
                copied = 0
            if not copied:
                piece = self.read(offset, min(length, _COPY))
                other.write(offset, piece)
                copied = len(piece)
            offset += copied
            length -= copied

    def truncate(self, size: int) -> None:
        """Give back the space from `size` on."""
        if os.fstat(self._descriptor).st_size > size:
            os.ftruncate(self._descriptor, size)
        if not size:
            self._failed = None

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Make the bytes durable. OSError, and from then on always: the kernel tells once of bytes
        that it could not write, and takes them for written afterwards.
        """
        if self._failed is not None:
            raise OSError(self._failed, os.strerror(self._failed), str(self.path))
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._failed = error.errno
            raise

    def hold(self) -> SpoolFile:
        """One more holder, who must call `release` too."""
        self._holders += 1
        return self

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            os.close(self._descriptor)
            if not self._stays:
                self.path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Release, and the file stays where it is: its record is in the journal for the next
        start.
        """
        self._stays = True
        self.release()


class SpoolFolder:
    """The folder of the spool files. One daemon owns it (the journal holds the lock).

    `make_room` is asked when the disk is full: what else lies there may be of less worth. Buffers
    use it for what does not fit in `memory_bytes`, which they share.
    """

    def __init__(self, path: Path, memory_bytes: int = 96 << 20) -> None:
        self.path = path
        self.make_room: MakeRoom = _no_room
        self.memory_bytes = memory_bytes
        self.in_memory = 0  # of all buffers; they keep count
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self) -> SpoolFile:
        """A new empty spool file. OSError if the disk is full or not writable."""
        path = self.path / secrets.token_hex(12)
        # Others' documents pass through here: nobody but the daemon's user may read them.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return SpoolFile(path, os.open(path, flags, 0o600), make_room=self.make_room)

    def open(self, name: str) -> SpoolFile:
        """The spool file that a journal record names; removing it is the journal's to do.

        FileNotFoundError if it is gone.
        """
        path = self.path / name
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return SpoolFile(path, descriptor, stays=True, make_room=self.make_room)

    def sync(self) -> None:
        """Make the names of new spool files durable."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

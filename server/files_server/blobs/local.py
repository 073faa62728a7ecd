"""Blobs on the local disk: received into uploads/, renamed into blobs/ when they are complete.

It must not know sessions, names or versions; ids are opaque. Methods block: call them in a worker
thread. A rename is followed by fsync of the folder, so a published blob survives a crash.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from files_server.blobs.checksums import BlockSums
from files_server.blobs.slots import ALIGNMENT, SLOT

_READ = 1 << 20
_FICLONE = 0x40049409  # ioctl(2): let this file have the blocks of that one


class UploadFile:
    """A file that is being received. One user at a time. `length` counts the bytes in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        self.sums = BlockSums()
        self._direct = True  # until the file system says that it cannot
        self._borrowed = 0  # bytes at its beginning that are a blob's, too: never changed
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def borrow(self, blob: Path, length: int, sums: bytes) -> bool:
        """Begin with the whole content of a blob, without a copy: both are names of one file from
        now on, whose first `length` bytes stay as they are. False when that cannot be.

        One upload at a time has what comes behind them: the lock says which while it is open, and
        bytes that an earlier one left there say that it is nobody's any more.
        """
        taken = -1
        link = self.path.with_name(f"{self.path.name}.base")
        try:
            taken = os.open(blob, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(taken).st_size != length:
                raise BlockingIOError(errno.EAGAIN, "another upload was here", str(blob))
            resumed = BlockSums.resumed(sums, length)
            link.unlink(missing_ok=True)
            os.link(blob, link)
            os.rename(link, self.path)
            _sync_folder(self.path.parent)
        except (OSError, ValueError):
            if taken >= 0:
                os.close(taken)
            return False
        os.close(self._descriptor)
        self._descriptor = taken
        self.length, self.sums, self._borrowed = length, resumed, length
        return True

    def restore(self, length: int) -> None:
        """Take up a file from before a restart: cut to `length`, its sums computed again."""
        found = os.fstat(self._descriptor)
        if found.st_size < length:
            raise FileNotFoundError(f"{self.path} is shorter than the {length} bytes recorded")
        if self._borrowed or found.st_nlink > 1:
            self._give_back(length)
            return
        os.ftruncate(self._descriptor, length)
        self.sums, self.length = BlockSums(), 0
        while self.length < length:
            data = os.pread(self._descriptor, min(_READ, length - self.length), self.length)
            self.sums.update(data)
            self.length += len(data)

    def _give_back(self, length: int) -> None:
        """A file of its own, with a copy of the first `length` bytes."""
        own = self.path.with_name(f"{self.path.name}.own")
        shared, state = self._descriptor, (self.length, self.sums, self._borrowed)
        self._descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.length, self.sums, self._borrowed = 0, BlockSums(), 0
        try:
            self._copy(shared, length)
            self.sync()
            os.rename(own, self.path)
        except BaseException:
            shared, self._descriptor = self._descriptor, shared
            self.length, self.sums, self._borrowed = state
            own.unlink(missing_ok=True)
            raise
        else:  # the name is the own file's from here on, even if that is not on the disk yet
            if borrowed := state[2]:
                os.ftruncate(shared, borrowed)
            _sync_folder(self.path.parent)
        finally:
            os.close(shared)

    def append(self, chunks: Iterable[bytes]) -> None:
        """Write at the end. After OSError the caller truncates."""
        for chunk in chunks:
            self.write(memoryview(chunk))

    def write(self, view: memoryview) -> None:
        """Write at the end; large files past the page cache. After OSError the caller truncates.

        Pages for content that nobody reads soon cost more than the disk does, and writing them
        out would be left for the sync that the client waits for. `view` of a Slot is aligned.
        """
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
        start = self.length
        while view:
            view = self._written(view)
        if self.length - start >= SLOT // 2:  # so that little is left for the sync
            os.posix_fadvise(self._descriptor, start, self.length - start, os.POSIX_FADV_DONTNEED)

    def _written(self, view: memoryview) -> memoryview:
        """Write some of it; what is left."""
        written = os.pwrite(self._descriptor, view, self.length)
        self.sums.update(view[:written])
        self.length += written
        return view[written:]

    def copy_from(self, path: Path, length: int) -> None:
        """Append `length` bytes of the file at `path`, from this file's own length on.

        ValueError when that one ends earlier.
        """
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._copy(source, length)
        finally:
            os.close(source)

    def _copy(self, source: int, length: int) -> None:
        end = self.length + length
        while self.length < end:
            wanted = min(_READ, end - self.length)
            copied = _copy_range(source, self._descriptor, wanted, self.length)
            if copied == 0:
                raise ValueError("the base version ends earlier")
            self.sums.update(os.pread(self._descriptor, copied, self.length))
            self.length += copied

    def truncate(self, length: int, sums: BlockSums) -> None:
        """Back to an earlier state."""
        if length < self._borrowed:
            raise ValueError(f"{self.path} shares its first {self._borrowed} bytes with a blob")
        os.ftruncate(self._descriptor, length)
        self.length, self.sums = length, sums

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def read(self) -> bytes:
        """All of it; for what turns out small enough for the catalog."""
        return os.pread(self._descriptor, self.length, 0)

    def feed(self, sink: Callable[[bytes], object], start: int = 0) -> None:
        """Hand the bytes from `start` to e.g. a hash."""
        while data := os.pread(self._descriptor, min(_READ, self.length - start), start):
            sink(data)
            start += len(data)

    def crc_since(self, start: int) -> int | None:
        """The crc32c of what arrived from `start` on, if that is known without reading it again."""
        return self.sums.since(start)

    def give_up(self) -> None:
        """Close what is not to be a version. A blob that it shares is cut to what it was: nobody
        else could have grown it meanwhile, and the next upload may go on from there.
        """
        with suppress(OSError):
            status = os.fstat(self._descriptor)
            if self._borrowed and os.path.samestat(status, os.stat(self.path)):  # not published
                os.ftruncate(self._descriptor, self._borrowed)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Space(NamedTuple):
    """Bytes of a disk. `free` is what anybody may take; `reserved` is unused too, but for root."""

    total: int
    free: int
    reserved: int


class LocalBlobs:
    """Owns the folders uploads/ and blobs/ below the data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._uploads = data_dir / "uploads"
        self._blobs = data_dir / "blobs"
        self.shares_blocks = False  # until `prepare` has tried

    def prepare(self) -> None:
        """Make the folders; all 256 of them, so that publishing never has to sync a new one."""
        self._uploads.mkdir(exist_ok=True)
        self._blobs.mkdir(exist_ok=True)
        for number in range(256):
            (self._blobs / f"{number:02x}").mkdir(exist_ok=True)
        for folder in (self._blobs, self._blobs.parent):
            _sync_folder(folder)
        self.shares_blocks = _shares_blocks(self._uploads)

    def path(self, blob: str) -> Path:
        """Where a blob's bytes are."""
        return self._blobs / f"{sum(blob.encode()) % 256:02x}" / blob

    def read(self, blob: str, offset: int, length: int) -> bytes:
        """A few bytes of a blob."""
        with self.path(blob).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def upload_path(self, upload: str) -> Path:
        """Where an upload's bytes are while they are received."""
        return self._uploads / upload

    def open_upload(self, upload: str) -> UploadFile:
        return UploadFile(self.upload_path(upload))

    def borrow(self, upload: str, blob: Path, length: int, sums: bytes) -> UploadFile | None:
        """An upload that begins with the whole content of a blob, see UploadFile.borrow."""
        file = self.open_upload(upload)
        if file.borrow(blob, length, sums):
            return file
        self.remove_upload(upload, file)
        return None

    def publish(self, file: UploadFile, blob: str) -> None:
        """From upload to blob, durably."""
        file.sync()
        target = self.path(blob)
        os.rename(file.path, target)
        _sync_folder(target.parent)

    def take_back(self, file: UploadFile, blob: str) -> None:
        """Undo `publish`: the commit failed."""
        os.rename(self.path(blob), file.path)

    def remove_upload(self, upload: str, file: UploadFile | None = None) -> None:
        """Its bytes go; `file`: it is open, and was not committed."""
        if file is not None:
            file.give_up()
        self.upload_path(upload).unlink(missing_ok=True)

    def remove(self, blobs: Iterable[str]) -> None:
        """Remove blobs that nothing names; one that is gone already is fine."""
        for blob in blobs:
            self.path(blob).unlink(missing_ok=True)

    def held_by(self, blobs: Iterable[str]) -> int:
        """Bytes that the disk would have back without these: not those of files that have other
        names, too, as a later version's or a backup's.
        """
        links: Counter[tuple[int, int]] = Counter()
        held = 0
        for blob in blobs:
            with suppress(FileNotFoundError):
                found = self.path(blob).stat()
                links[found.st_dev, found.st_ino] += 1
                if links[found.st_dev, found.st_ino] == found.st_nlink:
                    held += found.st_size
        return held

    def sweep(self, named: Set[str], sessions: Set[str]) -> int:
        """On start: what a crash left behind goes; how many files that were.

        A blob of an open session (SESSION.SUFFIX) was published but not committed: it is an upload
        again.
        """
        removed = 0
        for path in self._blobs.glob("??/*"):
            if path.name in named:
                continue
            upload = self._uploads / path.name.partition(".")[0]
            if upload.name in sessions and not upload.exists():
                path.rename(upload)
            else:
                path.unlink()
                removed += 1
        for path in self._uploads.iterdir():
            if path.name not in sessions:
                path.unlink()
                removed += 1
        return removed

    def space(self) -> Space:
        """Of the disk, as of now."""
        return space_of(self._blobs)


def space_of(place: Path | int) -> Space:
    """Of the disk that holds a path or an open file."""
    found = os.statvfs(place)
    size = found.f_frsize
    reserved = found.f_bfree - found.f_bavail
    return Space(found.f_blocks * size, found.f_bavail * size, reserved * size)


def _shares_blocks(folder: Path) -> bool:
    """Whether a copy on this file system takes no space: tried out."""
    names = folder / "probe-from", folder / "probe-to"  # swept at a start, as all that is unknown
    try:
        with names[0].open("wb") as source, names[1].open("wb") as target:
            source.write(bytes(ALIGNMENT))
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:  # it cannot, or the disk is full
        return False
    finally:
        for name in names:
            name.unlink(missing_ok=True)
    return True


def _copy_range(source: int, target: int, length: int, offset: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset, offset)
    except OSError:  # another file system, or one that cannot
        return os.pwrite(target, os.pread(source, length, offset), offset)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

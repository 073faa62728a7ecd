"""Blobs on the local disk: received into uploads/, renamed into blobs/ when they are complete.

It must not know sessions, names or versions; ids are opaque. Methods block: call them in a worker
thread. A rename is followed by fsync of the folder, so a published blob survives a crash.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from files_server.blobs.layout import Layout
from files_server.blobs.pieces import Stored
from files_server.blobs.slots import ALIGNMENT
from files_server.blobs.upload import UploadFile, sync_folder

_FICLONE = 0x40049409  # ioctl(2): let this file have the blocks of that one


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
            sync_folder(folder)
        self.shares_blocks = _shares_blocks(self._uploads)

    def path(self, blob: str) -> Path:
        """Where a blob's bytes are."""
        return self._blobs / f"{sum(blob.encode()) % 256:02x}" / blob

    def read(self, blob: str, layout: Layout, offset: int, length: int) -> bytes:
        """A few bytes of a version."""
        with self.path(blob).open("rb") as file:
            return layout.read(file.fileno(), offset, offset + length)

    def upload_path(self, upload: str) -> Path:
        """Where an upload's bytes are while they are received."""
        return self._uploads / upload

    def open_upload(self, upload: str) -> UploadFile:
        return UploadFile(self.upload_path(upload))

    def resume_upload(
        self, upload: str, length: int, blocks: bytes | None, sums: bytes | None
    ) -> UploadFile:
        """One from before, as it was recorded, see UploadFile.restore."""
        file = self.open_upload(upload)
        try:
            file.restore(length, blocks, sums)
        except BaseException:  # it may be a version's file: nobody may write to it now
            file.close()
            raise
        return file

    def borrow(
        self, upload: str, blob: str, base: Stored, begin: int, size: int
    ) -> UploadFile | None:
        """An upload that shares a blob, see UploadFile.borrow."""
        file = self.open_upload(upload)
        if file.borrow(self.path(blob), base, begin, size):
            return file
        self.remove_upload(upload, file)
        return None

    def publish(self, file: UploadFile, blob: str) -> None:
        """From upload to blob, durably."""
        file.sync()
        target = self.path(blob)
        os.rename(file.path, target)
        sync_folder(target.parent)

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
                    held += found.st_blocks * 512  # its length may be more: there may be holes
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

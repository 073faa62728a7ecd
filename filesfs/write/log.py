"""A file of records, each with its length and checksum: appended durably, read back up to a torn
tail.

It must not know what the records mean.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crc32c import crc32c

log = logging.getLogger(__name__)

_HEAD = struct.Struct("<II")  # length of the JSON in bytes, its crc32c


class RecordLog:
    """One log file. Whoever opens it holds the folder's lock.

    Everything up to `_length` is whole records, on disk; a write that fails is cut off again, or
    what is appended later would lie behind a torn record and be lost.
    """

    def __init__(self, path: Path) -> None:
        """Create the file if needed. OSError."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._length = 0
        # The disk may have lost bytes in the middle, and will not say so again: rewrite it before
        # anything else is appended.
        self.doubtful = False
        self.torn = 0  # bytes at the end that are no whole record, found by `read`

    @property
    def length(self) -> int:
        return self._length

    def read(self) -> list[Any]:
        """Every whole record. What follows the last was never acknowledged; it is set aside."""
        data = self._path.read_bytes()
        values = []
        for value, end in whole_records(data):
            values.append(value)
            self._length = end
        self.torn = len(data) - self._length
        if self.torn:
            aside = self._path.with_suffix(".torn")
            log.warning(
                "%s: %d bytes at the end are no record; moved to %s", self._path, self.torn, aside
            )
            aside.write_bytes(data[self._length :])
            os.ftruncate(self._descriptor, self._length)
        return values

    def append(self, value: Any, *, durable: bool = True) -> None:
        """On disk when it returns; without `durable` it outlives the process, not the machine.

        OSError (ENOSPC, EIO): nothing was appended.
        """
        framed = _framed(value)
        try:
            _write_all(self._descriptor, framed, self._length)
            if durable:
                self._sync()
        except OSError:
            os.ftruncate(self._descriptor, self._length)
            raise
        self._length += len(framed)

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self.doubtful = True
            raise

    def rewrite(self, values: Iterable[Any]) -> None:
        """Replace the log by these records, atomically. OSError: the log is as it was."""
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, b"".join(map(_framed, values)), 0)
            os.fsync(descriptor)
            fresh.rename(self._path)
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size
        self.doubtful = True  # a crash may bring the former log back
        sync_folder(self._path.parent)
        self.doubtful = False

    def close(self) -> None:
        os.close(self._descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_above(path: Path) -> None:
    """Make the names durable that lead to a folder, up to the root of its disk, whoever made them.

    What may not be read up there, or cannot be synced, is not ours to wait for.
    """
    disk = path.stat().st_dev
    for above in path.resolve().parents:
        with contextlib.suppress(OSError):
            if above.stat().st_dev != disk:
                return
            sync_folder(above)


def _framed(value: Any) -> bytes:
    data = json.dumps(value, separators=(",", ":")).encode()
    return _HEAD.pack(len(data), crc32c(data)) + data


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        offset += written
        rest = rest[written:]


def whole_records(data: bytes) -> Iterator[tuple[Any, int]]:
    """Each whole record and where it ends."""
    position = 0
    while position + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, position)
        body = data[position + _HEAD.size : position + _HEAD.size + length]
        # A hole that a crash left reads as zeros, and crc32c(b"") is 0: length 0 is no record.
        if not length or len(body) < length or crc32c(body) != checksum:
            return
        position += _HEAD.size + length
        yield json.loads(body), position

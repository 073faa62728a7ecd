"""Blocks on disk: a cache that survives restarts. Best effort, and never wrong.

It must not be trusted with anything that exists nowhere else, and must not fail a read: whatever is
amiss with it, the answer is "not here". Thread-safe, since its callers keep it off the event loop.

One file a block, `DIGEST-INDEX`, where DIGEST is of the version. It begins with a header: magic
(which is the format's version), crc32c of the content, length of the version's name, length of the
content; then that name, then the content. Name and checksum are verified on each read, so neither a
torn write nor a mixed-up file is ever served.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
from collections import OrderedDict
from pathlib import Path

from crc32c import crc32c

_HEADER = struct.Struct("<8sIHI")
_MAGIC = b"ffsblk01"
_PARTIAL = ".partial"  # a block that is being written; rubbish after a crash
# What stays free on the disk, whose other user is the spool: it holds what nobody else has.
_FREE_SHARE = 10  # a tenth of it,
_FREE_MOST = 1 << 30  # at most 1 GiB

log = logging.getLogger(__name__)


class DiskBlocks:
    """Blocks in `folder`, at most `limit_bytes` with their headers, least recently used out first.

    The folder is this object's alone. OSError if it cannot be made or listed.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._writes = True
        self._used = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by file name, oldest first
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._scan()
        with self._lock:
            self._make_room(0)

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def writes(self) -> bool:
        """False once writing failed: what is there is still read."""
        return self._writes

    def has(self, version: str, index: int) -> bool:
        """Whether the block is thought to be here; get() may find otherwise."""
        return _name(version, index) in self._sizes

    def get(self, version: str, index: int) -> bytes | None:
        """The block, verified; None, and gone, if it is not what it should be."""
        name = _name(version, index)
        with self._lock:
            if name not in self._sizes:
                return None
            self._sizes.move_to_end(name)
        data = _verified(self._read(name), version)
        if data is None:
            log.warning("a block in the disk cache was damaged and is dropped: %s", name)
            with self._lock:
                self._forget(name)
        return data

    def put(self, version: str, index: int, data: bytes | memoryview) -> None:
        """Keep a block. What does not fit or cannot be written is not kept."""
        name = _name(version, index)
        label = version.encode()
        size = _HEADER.size + len(label) + len(data)
        with self._lock:
            if not self._writes or name in self._sizes or size > self._limit:
                return
            self._make_room(size)
            if not self._leaves_room(size):
                return
            header = _HEADER.pack(_MAGIC, crc32c(data), len(label), len(data))
            try:
                self._write(name, header + label, data)
            except OSError as error:
                self._switch_off(name, error)
            else:
                self._sizes[name] = size
                self._used += size

    def give_way(self, size: int) -> bool:
        """Free at least `size` bytes, if there are as many; whether any were freed."""
        with self._lock:
            before = self._used
            while self._sizes and before - self._used < size:
                self._forget(next(iter(self._sizes)))
            return self._used < before

    def _scan(self) -> None:
        """Take over what an earlier life left, the oldest first."""
        found = []
        with os.scandir(self._folder) as files:
            for file in files:
                if file.name.endswith(_PARTIAL):
                    os.unlink(file.path)
                elif file.is_file(follow_symlinks=False):
                    stat = file.stat(follow_symlinks=False)
                    found.append((stat.st_mtime_ns, file.name, stat.st_size))
        for _, name, size in sorted(found):
            self._sizes[name] = size
            self._used += size

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        try:
            data = path.read_bytes()
            os.utime(path)  # the order of use, for the next life
        except OSError:
            return b""
        return data

    def _write(self, name: str, header: bytes, data: bytes | memoryview) -> None:
        partial = self._folder / (name + _PARTIAL)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", 0) as file:
            written = file.write(header) + file.write(data)
            if written != len(header) + len(data):
                raise OSError(f"only {written} bytes could be written")
        os.replace(partial, self._folder / name)

    def _make_room(self, size: int) -> None:
        while self._sizes and self._used + size > self._limit:
            self._forget(next(iter(self._sizes)))

    def _leaves_room(self, size: int) -> bool:
        """Whether the disk keeps its reserve, once the oldest blocks have made way for it."""
        disk = os.statvfs(self._folder)
        reserve = min(_FREE_MOST, disk.f_blocks * disk.f_frsize // _FREE_SHARE)
        lacking = reserve + size - disk.f_bavail * disk.f_frsize
        while lacking > 0 and self._sizes:
            lacking -= next(iter(self._sizes.values()))
            self._forget(next(iter(self._sizes)))
        return lacking <= 0

    def _forget(self, name: str) -> None:
        self._used -= self._sizes.pop(name, 0)
        with contextlib.suppress(OSError):
            os.unlink(self._folder / name)

    def _switch_off(self, name: str, error: OSError) -> None:
        self._writes = False
        with contextlib.suppress(OSError):
            os.unlink(self._folder / (name + _PARTIAL))
        log.warning(
            "the disk cache in %s is not written any more, reads go on without it: %s",
            self._folder,
            error,
        )


def _name(version: str, index: int) -> str:
    return f"{hashlib.sha256(version.encode()).hexdigest()[:32]}-{index}"


def _verified(stored: bytes, version: str) -> bytes | None:
    """The content of a block's file if the file is right in every way."""
    if len(stored) < _HEADER.size:
        return None
    magic, checksum, label_length, length = _HEADER.unpack_from(stored)
    label_end = _HEADER.size + label_length
    if magic != _MAGIC or len(stored) != label_end + length:
        return None
    if stored[_HEADER.size : label_end] != version.encode():
        return None
    data = stored[label_end:]
    return data if crc32c(data) == checksum else None

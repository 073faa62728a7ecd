"""The catalog's log as a file: what makes a commit to it quick, beside what SQLite does.

It must not know what is in it. SQLite takes zeros for the log's end.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_FRAME = 4096 + 24  # bytes of a page in the log
_UNTIL = 8  # commits after which a log is used for good; what only looks at a catalog leaves it
_ROOM = 1 << 30  # bytes that are free where the log takes its place ahead
_MORE_PART = 4  # so many-eths more: commits go on until the thread has its turn to write it back
_PART = 128 << 10  # bytes; of more in one go the kernel may leave out the rest
_KEEP_SECONDS = 1.0


class Log:
    """Owner of a descriptor of the log's file. Methods block, and are the writer's thread's.

    A commit that makes the file longer waits for the file system's journal, too: 0.1 ms. One over
    blocks that are not in memory waits for each to be read, since frames are not aligned to them:
    1.6 ms instead of 0.2, where the kernel wanted the memory, or others had read much, meanwhile.
    """

    def __init__(self, catalog: Path, pages: int) -> None:
        self._path = catalog.with_name(catalog.name + "-wal")
        self._length = (pages + pages // _MORE_PART) * _FRAME
        self._descriptor: int | None = None
        self._commits = 0
        self._kept = 0.0

    def before_commit(self) -> None:
        """Once it is used for good, make it as long as it will be. Nobody else may write to it."""
        self._commits += 1
        if self._commits == _UNTIL:
            with suppress(OSError):  # then it grows as it is written
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                self._lay_out(self._descriptor)

    def after_commit(self) -> None:
        """Now and then, have the kernel read what it has dropped of it."""
        now = time.monotonic()
        if self._descriptor is None or now - self._kept < _KEEP_SECONDS:
            return
        self._kept = now
        with suppress(OSError):
            for start in range(0, os.fstat(self._descriptor).st_size, _PART):
                os.posix_fadvise(self._descriptor, start, _PART, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _lay_out(self, descriptor: int) -> None:
        disk, size = os.fstatvfs(descriptor), os.fstat(descriptor).st_size
        if disk.f_bavail * disk.f_frsize < _ROOM:
            return
        try:
            # Written, not only allocated: the first write to allocated blocks changes what the file
            # system notes of them. SQLite syncs it with the next commit.
            for start in range(size, self._length, _PART):
                zeros = bytes(min(_PART, self._length - start))
                if os.pwrite(descriptor, zeros, start) < len(zeros):
                    return
        except OSError:
            os.ftruncate(descriptor, size)
            raise

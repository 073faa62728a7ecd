"""The disk that the catalog is on: the place that its file will need, and what a full one says.

It must not know what is in the catalog.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from files_server.errors import ApiError

_ROOM = 1 << 20  # bytes; more than most commits write
_CHUNK = 64 << 10  # bytes that the file grows by at least: a small part of the reserve
_LOG_PAGES = 4000  # 16 MB: a checkpoint syncs twice more
_LOG_PART = 4  # of a small disk the log has so many-eths
_ROOM_PAGES = 64  # unused, by which the catalog is said to have room on a full disk
_PAGE = 4096
_CANNOT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_FULL = (errno.ENOSPC, errno.EDQUOT)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Place:
    """Owner of a descriptor of the catalog's file, for which it takes the disk's space ahead.

    Commits go to the log, and only a checkpoint writes them to the file. If that found no room for
    what they added, the log could not begin anew: each commit would have to make it longer, that of
    a removal, too. So they are refused while they still can be.

    To close it drops all locks that this process has on the file: SQLite's must be done with it.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def take(self, connection: sqlite3.Connection) -> None:
        """Before a COMMIT: have the disk hold all pages there will be. OSError without room."""
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        size, needed = os.fstat(self._descriptor).st_size, pages * _PAGE
        if needed <= size:
            return
        # SQLite cuts off at the next checkpoint what is too much.
        try:
            self._allocate(size, max(_CHUNK, needed - size))
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._allocate(size, needed - size)

    def close(self) -> None:
        os.close(self._descriptor)

    def _allocate(self, offset: int, length: int) -> None:
        # Not os.posix_fallocate: libc writes to the file where the file system cannot do it, maybe
        # into what a checkpoint has written meanwhile.
        while _libc.fallocate(self._descriptor, 0, offset, length):
            code = ctypes.get_errno()
            if code in _CANNOT:
                found = os.fstatvfs(self._descriptor)
                if found.f_bavail * found.f_frsize >= length + _CHUNK:
                    return
                code = errno.ENOSPC
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))


def log_pages(folder: Path) -> int:
    """How long the log may become before it is written back: what it takes, nothing else can."""
    found = os.statvfs(folder)
    return min(_LOG_PAGES, found.f_blocks * found.f_frsize // _LOG_PART // _PAGE)


def has_room(connection: sqlite3.Connection) -> bool:
    """Whether the file has room by what was removed from the catalog."""
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages >= _ROOM_PAGES


def translated(error: BaseException, folder: Path) -> BaseException:
    """SQLite's word for a full disk as the API's. It knows ENOSPC alone: where a quota is used up
    it speaks of an I/O error, so the folder's disk is asked whether that was it.
    """
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        full = code == sqlite3.SQLITE_FULL or (
            code == sqlite3.SQLITE_IOERR and _has_no_room(folder)
        )
    else:
        full = isinstance(error, OSError) and error.errno in _FULL
    return ApiError(507, "The server's disk is full: nothing was changed.") if full else error


def is_full(failure: BaseException) -> bool:
    """Whether it is what `translated` says of a full disk."""
    return isinstance(failure, ApiError) and failure.status == 507


def _has_no_room(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            left = _ROOM
            while left:
                left -= file.write(bytes(left))
            os.fsync(file.fileno())  # network file systems notice late
    except OSError as error:
        return error.errno in _FULL
    return False

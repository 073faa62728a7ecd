"""System calls that Python's os module does not have, or has too kindly. OSError like os's own."""

from __future__ import annotations

import ctypes
import os

NOREPLACE = 1
EXCHANGE = 2
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
NULL = ctypes.c_void_p(0)
NOWHERE = ctypes.c_void_p(0xDEADC0DE)  # mapped by nobody: it is no multiple of a page, and odd
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(old: str | bytes, new: str | bytes, flags: int) -> None:
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def link(old: str, new: str) -> None:
    """Another name of a symbolic link itself, too, not of what that leads to."""
    os.link(old, new, follow_symlinks=False)


def lchmod(path: str, mode: int) -> None:
    """chmod of what the path names, and not of what that leads to."""
    _checked(_libc.fchmodat(AT_FDCWD, os.fsencode(path), mode, AT_SYMLINK_NOFOLLOW))


def utimensat(path: str, accessed: tuple[int, int], modified: tuple[int, int]) -> None:
    """Times as (seconds, nanoseconds); the nanoseconds may be UTIME_NOW or UTIME_OMIT."""
    times = (_Timespec * 2)(_Timespec(*accessed), _Timespec(*modified))
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) itself, which unlike posix_fallocate(3) makes up for nothing."""
    function = _libc.fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    _checked(function(descriptor, mode, offset, length))


def raw(name: str, *arguments: bytes | ctypes.c_void_p) -> None:
    """A call of libc's by its name, also with addresses that are none."""
    _checked(getattr(_libc, name)(*arguments))

"""Another user in this process: a thread with credentials, working directory and umask of its own.

The kernel keeps credentials for each thread; only libc spreads a change of them to all. The working
directory is entered before the change, so tests name files by relative paths.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NOBODY = 65534
SOMEBODY = 64999
_ANSWER_SECONDS = 60
_CLONE_FS = 0x200
# setgroups, setresgid, setresuid
_NUMBERS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}[platform.machine()]
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Who:
    """Whom to be: the group is called as the user unless it is told; groups are supplementary."""

    uid: int
    gid: int | None = None
    groups: tuple[int, ...] = ()


ROOT = Who(0)


class User:
    """Runs functions as somebody, in a directory. `close` ends its thread."""

    def __init__(
        self, directory: Path, uid: int, gid: int | None = None, groups: tuple[int, ...] = ()
    ) -> None:
        self.uid = uid
        who = (directory, uid, uid if gid is None else gid, groups)
        self._pool = ThreadPoolExecutor(1, initializer=_become, initargs=who)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._pool.submit(function, *args, **kwargs).result(_ANSWER_SECONDS)

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def _become(directory: Path, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    _call(_libc.unshare, _CLONE_FS)
    os.chdir(directory)
    os.umask(0o022)
    setgroups, setresgid, setresuid = _NUMBERS
    if uid:
        array = (ctypes.c_uint * max(1, len(groups)))(*groups)
        _call(_libc.syscall, setgroups, len(groups), array)
        _call(_libc.syscall, setresgid, gid, gid, gid)
        _call(_libc.syscall, setresuid, uid, uid, uid)


def _call(function: Callable[..., int], *args: object) -> None:
    if function(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

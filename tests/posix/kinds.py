"""Files of each kind: how they are made and removed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable

NO_DIRECTORIES = ("file", "fifo", "block", "char", "socket", "symlink")
KINDS = (*NO_DIRECTORIES, "directory")
FOLLOWED = ("file", "directory", "fifo", "block", "char", "socket")  # what chmod and utime reach


def make(kind: str, path: str, owner: int = 0) -> None:
    """A new file of this kind, 0644 (a directory 0755, a link 0777)."""
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)),
        "fifo": lambda: os.mkfifo(path, 0o644),
        "block": lambda: os.mknod(path, 0o644 | stat.S_IFBLK, os.makedev(1, 2)),
        "char": lambda: os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 2)),
        "socket": lambda: _bind(path),
        "symlink": lambda: os.symlink("target", path),
        "directory": lambda: os.mkdir(path, 0o755),
    }
    makers[kind]()
    if owner:
        os.lchown(path, owner, owner)


def plant_kinds() -> None:
    """In the working directory: a file of each kind, and a link to each (to-KIND). The one called
    symlink leads nowhere.
    """
    for kind in KINDS:
        make(kind, kind)
    for kind in FOLLOWED:
        os.symlink(kind, f"to-{kind}")


def remove(path: str) -> None:
    """What is there, if anything."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)

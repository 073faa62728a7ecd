"""The tree that the errno table is about, and what it looks like. root's, but `mine` and `*/u`."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tests.posix.users import NOBODY

LONGEST = "n" * 255


def plant(root: Path) -> None:
    """Files of every kind, with doors open and closed to an ordinary user."""
    for name, mode in (("d", 0o755), ("empty", 0o755), ("closed", 0o700), ("readonly", 0o555)):
        (root / name).mkdir()
        (root / name).chmod(mode)
    for name, mode in (("f", 0o644), ("secret", 0o600), ("d/f", 0o644), ("closed/f", 0o644)):
        (root / name).write_text("content")
        (root / name).chmod(mode)
    _plant_links(root)
    _plant_mine(root)
    _plant_sticky(root)


def _plant_links(root: Path) -> None:
    for name, target in (
        ("link", "f"),
        ("linkdir", "d"),
        ("dangling", "missing"),
        ("loop", "loop"),
        ("loop-a", "loop-b"),
        ("loop-b", "loop-a"),
    ):
        (root / name).symlink_to(target)
    os.link(root / "f", root / "hard")
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    descriptor = os.open(root, os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:  # a path over 107 bytes does not fit
        listener.bind(f"/proc/self/fd/{descriptor}/socket")
    os.close(descriptor)


def _plant_mine(root: Path) -> None:
    for name in ("mine", "mine/d", "mine/empty"):
        (root / name).mkdir()
        os.chown(root / name, NOBODY, NOBODY)
    for name in ("mine/f", "mine/d/f"):
        (root / name).write_text("content")
        os.chown(root / name, NOBODY, NOBODY)
    (root / "mine/theirs").mkdir()


def _plant_sticky(root: Path) -> None:
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    for name in ("f", "u"):
        (root / "sticky" / name).write_text("content")
    (root / "sticky/d").mkdir()
    (root / "sticky/e").mkdir()
    os.chown(root / "sticky/u", NOBODY, NOBODY)
    os.chown(root / "sticky/e", NOBODY, NOBODY)


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Every name, with what a failed call must leave alone."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(folder, name)
            status = path.lstat()
            regular = stat.S_ISREG(status.st_mode)
            found[str(path.relative_to(root))] = (
                oct(status.st_mode),
                status.st_nlink,
                (status.st_uid, status.st_gid),
                (status.st_mtime_ns, status.st_ctime_ns),
                path.read_bytes() if regular else None,
            )
    return found

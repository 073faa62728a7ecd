"""What each call answers on `tree`, to root and to an ordinary user. tmpfs is the judge.

A row is (call, root's errno, the user's errno); 0 is success, None is not asked (it would succeed
and change the tree). Calls that fail must change nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from errno import (
    EACCES,
    EBADF,
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    ENXIO,
    EPERM,
    EXDEV,
)

from tests.posix.calls import EXCHANGE, NOREPLACE, renameat2, utimensat
from tests.posix.tree import LONGEST
from tests.posix.users import NOBODY, SOMEBODY

Row = tuple[Callable[[], object], int | None, int | None]

TOO_LONG = "n" * 256
LONG_PATH = "d/../" * 819 + "f"  # 4,096 bytes, and the NUL no longer fits


def _open(path: str, flags: int, mode: int = 0o666) -> None:
    os.close(os.open(path, flags, mode))


def _ftruncate(path: str, flags: int, size: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _through_descriptor(path: str, call: Callable[[int], object]) -> None:
    """The calls that take a descriptor: fchmod, fchown, futimens, openat."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)


def _rows_with_bad_paths(
    name: str, call: Callable[[str], object], *, follows: bool
) -> dict[str, Row]:
    """What every call answers to a path that leads nowhere."""
    rows: dict[str, Row] = {
        f"{name}-below-a-missing-directory": (lambda: call("missing/x"), ENOENT, ENOENT),
        f"{name}-below-a-file": (lambda: call("f/x"), ENOTDIR, ENOTDIR),
        f"{name}-below-a-closed-directory": (lambda: call("closed/x"), None, EACCES),
        f"{name}-through-a-loop": (lambda: call("loop/x"), ELOOP, ELOOP),
        f"{name}-through-a-dangling-link": (lambda: call("dangling/x"), ENOENT, ENOENT),
        f"{name}-name-too-long": (lambda: call(TOO_LONG), ENAMETOOLONG, ENAMETOOLONG),
        f"{name}-name-too-long-below": (lambda: call(f"d/{TOO_LONG}"), ENAMETOOLONG, ENAMETOOLONG),
        f"{name}-directory-too-long": (lambda: call(f"{TOO_LONG}/x"), ENAMETOOLONG, ENAMETOOLONG),
        f"{name}-path-too-long": (lambda: call(LONG_PATH), ENAMETOOLONG, ENAMETOOLONG),
        f"{name}-empty-path": (lambda: call(""), ENOENT, ENOENT),
    }
    if follows:
        rows[f"{name}-of-a-loop"] = (lambda: call("loop"), ELOOP, ELOOP)
        rows[f"{name}-of-two-links-in-a-loop"] = (lambda: call("loop-a"), ELOOP, ELOOP)
        rows[f"{name}-of-a-dangling-link"] = (lambda: call("dangling"), ENOENT, ENOENT)
        rows[f"{name}-of-a-missing-file"] = (lambda: call("missing"), ENOENT, ENOENT)
        rows[f"{name}-of-the-longest-name"] = (lambda: call(LONGEST), ENOENT, ENOENT)
    return rows


_RENAME: dict[str, Row] = {
    "rename-missing": (lambda: os.rename("missing", "x"), ENOENT, ENOENT),
    "rename-file-over-directory": (lambda: os.rename("f", "empty"), EISDIR, EACCES),
    "rename-directory-over-file": (lambda: os.rename("empty", "f"), ENOTDIR, EACCES),
    "rename-over-a-full-directory": (lambda: os.rename("empty", "d"), ENOTEMPTY, EACCES),
    "rename-own-over-a-full-directory": (
        lambda: os.rename("mine/empty", "mine/d"),
        ENOTEMPTY,
        ENOTEMPTY,
    ),
    "rename-own-file-over-directory": (lambda: os.rename("mine/f", "mine/d"), EISDIR, EISDIR),
    "rename-own-directory-over-file": (lambda: os.rename("mine/d", "mine/f"), ENOTDIR, ENOTDIR),
    "rename-into-itself": (lambda: os.rename("mine/d", "mine/d/x"), EINVAL, EINVAL),
    "rename-deep-into-itself": (lambda: os.rename("mine", "mine/d/x"), EINVAL, EINVAL),
    "rename-over-its-own-parent": (lambda: os.rename("mine/d/f", "mine"), ENOTEMPTY, ENOTEMPTY),
    "rename-dot": (lambda: os.rename("mine/.", "x"), EBUSY, EBUSY),
    "rename-dot-dot": (lambda: os.rename("mine/..", "x"), EBUSY, EBUSY),
    "rename-to-a-name-too-long": (lambda: os.rename("f", TOO_LONG), ENAMETOOLONG, ENAMETOOLONG),
    "rename-to-below-a-file": (lambda: os.rename("f", "secret/x"), ENOTDIR, ENOTDIR),
    "rename-to-below-a-missing-directory": (lambda: os.rename("f", "missing/x"), ENOENT, ENOENT),
    "rename-to-a-closed-directory": (lambda: os.rename("mine/f", "closed/x"), None, EACCES),
    "rename-to-a-read-only-directory": (lambda: os.rename("mine/f", "readonly/x"), None, EACCES),
    "rename-file-with-a-slash": (lambda: os.rename("f/", "x"), ENOTDIR, ENOTDIR),
    "rename-file-to-a-slash": (lambda: os.rename("mine/f", "mine/x/"), ENOTDIR, ENOTDIR),
    "rename-others-in-sticky": (lambda: os.rename("sticky/f", "sticky/x"), None, EPERM),
    "rename-over-others-in-sticky": (lambda: os.rename("sticky/u", "sticky/f"), None, EPERM),
    "rename-others-directory-to-elsewhere": (
        lambda: os.rename("mine/theirs", "mine/d/x"),
        None,
        EACCES,
    ),
    "rename-to-another-file-system": (lambda: os.rename("mine/f", "/proc/x"), EXDEV, EXDEV),
    "rename-onto-itself": (lambda: os.rename("mine/f", "mine/f"), 0, 0),
    "rename-onto-its-other-name": (lambda: os.rename("f", "hard"), 0, 0),
    "noreplace-existing": (lambda: renameat2("f", "secret", NOREPLACE), EEXIST, EEXIST),
    "noreplace-directory": (lambda: renameat2("empty", "d", NOREPLACE), EEXIST, EEXIST),
    "exchange-missing": (lambda: renameat2("mine/f", "mine/x", EXCHANGE), ENOENT, ENOENT),
    "exchange-with-own-parent": (lambda: renameat2("mine/d/f", "mine/d", EXCHANGE), EINVAL, EINVAL),
    "exchange-and-noreplace": (
        lambda: renameat2("f", "secret", EXCHANGE | NOREPLACE),
        EINVAL,
        EINVAL,
    ),
    "rename-unknown-flag": (lambda: renameat2("f", "x", 1 << 10), EINVAL, EINVAL),
}

_EXCHANGE: dict[str, Row] = {
    "noreplace-to-others": (lambda: renameat2("mine/f", "d/x", NOREPLACE), None, EACCES),
    "noreplace-missing": (lambda: renameat2("mine/x", "mine/y", NOREPLACE), ENOENT, ENOENT),
    "exchange-with-others": (lambda: renameat2("mine/f", "d/f", EXCHANGE), None, EACCES),
    "exchange-others-in-sticky": (
        lambda: renameat2("sticky/u", "sticky/f", EXCHANGE),
        None,
        EPERM,
    ),
    "exchange-to-another-file-system": (
        lambda: renameat2("mine/f", "/proc/version", EXCHANGE),
        EXDEV,
        EXDEV,
    ),
    "rename-directory-with-others-in-sticky": (
        lambda: os.rename("sticky/d", "sticky/x"),
        None,
        EPERM,
    ),
    "rename-directory-over-others-in-sticky": (
        lambda: os.rename("sticky/e", "sticky/d"),
        None,
        EPERM,
    ),
}

_OPEN: dict[str, Row] = {
    "open": (lambda: _open("f", os.O_RDONLY), 0, 0),
    "open-directory-to-write": (lambda: _open("d", os.O_WRONLY), EISDIR, EISDIR),
    "open-directory-read-write": (lambda: _open("d", os.O_RDWR), EISDIR, EISDIR),
    "open-create-directory": (lambda: _open("d", os.O_CREAT), EISDIR, EISDIR),
    "open-create-with-a-slash": (lambda: _open("x/", os.O_CREAT), EISDIR, EISDIR),
    "open-file-as-directory": (lambda: _open("f", os.O_DIRECTORY), ENOTDIR, ENOTDIR),
    "open-file-with-a-slash": (lambda: _open("f/", os.O_RDONLY), ENOTDIR, ENOTDIR),
    "open-exclusive": (lambda: _open("f", os.O_CREAT | os.O_EXCL), EEXIST, EEXIST),
    "open-exclusive-link": (lambda: _open("dangling", os.O_CREAT | os.O_EXCL), EEXIST, EEXIST),
    "open-exclusive-directory": (lambda: _open("d", os.O_CREAT | os.O_EXCL), EEXIST, EEXIST),
    "open-link-nofollow": (lambda: _open("link", os.O_NOFOLLOW), ELOOP, ELOOP),
    "open-secret": (lambda: _open("secret", os.O_RDONLY), 0, EACCES),
    "open-to-write": (lambda: _open("f", os.O_WRONLY), 0, EACCES),
    "open-to-truncate": (lambda: _open("f", os.O_RDONLY | os.O_TRUNC), None, EACCES),
    "open-in-closed": (lambda: _open("closed/f", os.O_RDONLY), 0, EACCES),
    "open-create-in-read-only": (lambda: _open("readonly/x", os.O_CREAT), None, EACCES),
    "open-create-in-others": (lambda: _open("d/x", os.O_CREAT), None, EACCES),
    "open-noatime-of-others": (lambda: _open("f", os.O_NOATIME), 0, EPERM),
    "open-fifo-without-reader": (lambda: _open("fifo", os.O_WRONLY | os.O_NONBLOCK), ENXIO, EACCES),
    "open-below-a-descriptor-of-a-file": (
        lambda: _through_descriptor("f", lambda number: os.open("x", 0, dir_fd=number)),
        ENOTDIR,
        ENOTDIR,
    ),
    "open-below-no-descriptor": (lambda: os.open("x", 0, dir_fd=987_654), EBADF, EBADF),
    "open-directory-to-truncate": (lambda: _open("d", os.O_RDONLY | os.O_TRUNC), EISDIR, EISDIR),
    "open-exclusive-loop": (lambda: _open("loop", os.O_CREAT | os.O_EXCL), EEXIST, EEXIST),
    "open-create-loop": (lambda: _open("loop", os.O_CREAT), ELOOP, ELOOP),
    "open-socket": (lambda: _open("socket", os.O_RDONLY), ENXIO, ENXIO),
    **_rows_with_bad_paths("open", lambda path: _open(path, os.O_RDONLY), follows=True),
    **_rows_with_bad_paths("create", lambda path: _open(path, os.O_CREAT), follows=False),
}

_REMOVE: dict[str, Row] = {
    "unlink-missing": (lambda: os.unlink("missing"), ENOENT, ENOENT),
    "unlink-directory": (lambda: os.unlink("d"), EISDIR, EACCES),
    "unlink-own-directory": (lambda: os.unlink("mine/d"), EISDIR, EISDIR),
    "unlink-with-a-slash": (lambda: os.unlink("f/"), ENOTDIR, ENOTDIR),
    "unlink-others": (lambda: os.unlink("f"), None, EACCES),
    "unlink-others-in-sticky": (lambda: os.unlink("sticky/f"), None, EPERM),
    "unlink-in-read-only": (lambda: os.unlink("readonly/x"), ENOENT, ENOENT),
    "rmdir-missing": (lambda: os.rmdir("missing"), ENOENT, ENOENT),
    "rmdir-full": (lambda: os.rmdir("mine/d"), ENOTEMPTY, ENOTEMPTY),
    "rmdir-file": (lambda: os.rmdir("mine/f"), ENOTDIR, ENOTDIR),
    "rmdir-link": (lambda: os.rmdir("linkdir"), ENOTDIR, EACCES),
    "rmdir-dot": (lambda: os.rmdir("mine/empty/."), EINVAL, EINVAL),
    "rmdir-dot-dot": (lambda: os.rmdir("mine/empty/.."), ENOTEMPTY, ENOTEMPTY),
    "rmdir-others": (lambda: os.rmdir("empty"), None, EACCES),
    "rmdir-others-in-sticky": (lambda: os.rmdir("sticky/d"), None, EPERM),
    **_rows_with_bad_paths("unlink", os.unlink, follows=False),
    **_rows_with_bad_paths("rmdir", os.rmdir, follows=False),
}

_MAKE: dict[str, Row] = {
    "mkdir-file": (lambda: os.mkdir("f"), EEXIST, EEXIST),
    "mkdir-directory": (lambda: os.mkdir("d"), EEXIST, EEXIST),
    "mkdir-dot": (lambda: os.mkdir("."), EEXIST, EEXIST),
    "mkdir-dangling-link": (lambda: os.mkdir("dangling"), EEXIST, EEXIST),
    "mkdir-in-read-only": (lambda: os.mkdir("readonly/x"), None, EACCES),
    "mkdir-in-others": (lambda: os.mkdir("x"), None, EACCES),
    "mknod-existing": (lambda: os.mknod("f"), EEXIST, EEXIST),
    "mkfifo-existing": (lambda: os.mkfifo("fifo"), EEXIST, EEXIST),
    "mknod-directory": (lambda: os.mknod("mine/x", stat.S_IFDIR | 0o777), EPERM, EPERM),
    "mknod-unknown-type": (lambda: os.mknod("mine/x", 0o050666), EINVAL, EINVAL),
    "mknod-block-device": (lambda: os.mknod("mine/x", stat.S_IFBLK | 0o666, 1795), None, EPERM),
    "mknod-below-no-descriptor": (lambda: os.mknod("x", dir_fd=987_654), EBADF, EBADF),
    "mkdir-below-a-descriptor-of-a-file": (
        lambda: _through_descriptor("f", lambda number: os.mkdir("x", dir_fd=number)),
        ENOTDIR,
        ENOTDIR,
    ),
    "mkdir-over-a-link-to-a-directory": (lambda: os.mkdir("linkdir"), EEXIST, EEXIST),
    "mkdir-with-a-slash-over-a-file": (lambda: os.mkdir("f/"), EEXIST, EEXIST),
    "symlink-over-a-directory": (lambda: os.symlink("t", "d"), EEXIST, EEXIST),
    "link-over-a-directory": (lambda: os.link("mine/f", "mine/d"), EEXIST, EEXIST),
    "mknod-device": (lambda: os.mknod("mine/x", stat.S_IFCHR | 0o666, 259), None, EPERM),
    "mknod-in-others": (lambda: os.mkfifo("x"), None, EACCES),
    "symlink-existing": (lambda: os.symlink("t", "f"), EEXIST, EEXIST),
    "symlink-over-a-link": (lambda: os.symlink("t", "dangling"), EEXIST, EEXIST),
    "symlink-empty-target": (lambda: os.symlink("", "mine/x"), ENOENT, ENOENT),
    "symlink-target-too-long": (
        lambda: os.symlink("t" * 4096, "mine/x"),
        ENAMETOOLONG,
        ENAMETOOLONG,
    ),
    "symlink-in-others": (lambda: os.symlink("t", "x"), None, EACCES),
    "link-existing": (lambda: os.link("f", "secret"), EEXIST, EEXIST),
    "link-directory": (lambda: os.link("d", "mine/x"), EPERM, EPERM),
    "link-missing": (lambda: os.link("missing", "mine/x"), ENOENT, ENOENT),
    "link-below-a-file": (lambda: os.link("f/x", "mine/x"), ENOTDIR, ENOTDIR),
    "link-in-others": (lambda: os.link("mine/f", "x"), None, EACCES),
    "link-of-a-closed-file": (lambda: os.link("closed/f", "mine/x"), None, EACCES),
    "link-through-a-loop": (lambda: os.link("loop/x", "mine/x"), ELOOP, ELOOP),
    "link-to-another-file-system": (lambda: os.link("mine/f", "/nothing-here"), EXDEV, EXDEV),
    **_rows_with_bad_paths("mkdir", os.mkdir, follows=False),
    **_rows_with_bad_paths("mknod", os.mknod, follows=False),
    **_rows_with_bad_paths("mkfifo", os.mkfifo, follows=False),
    **_rows_with_bad_paths("symlink", lambda path: os.symlink("t", path), follows=False),
    **_rows_with_bad_paths("link", lambda path: os.link("mine/f", path), follows=False),
    **_rows_with_bad_paths("rename", lambda path: os.rename("mine/f", path), follows=False),
    **_rows_with_bad_paths("rename-of", lambda path: os.rename(path, "mine/x"), follows=False),
    **_rows_with_bad_paths("link-of", lambda path: os.link(path, "mine/x"), follows=False),
}

_CHANGE: dict[str, Row] = {
    "chmod-others": (lambda: os.chmod("f", 0o600), None, EPERM),
    "chmod-others-directory": (lambda: os.chmod("d", 0o700), None, EPERM),
    "chown-others": (lambda: os.chown("f", NOBODY, NOBODY), None, EPERM),
    "chown-own-to-another-user": (lambda: os.chown("mine/f", SOMEBODY, -1), None, EPERM),
    "chown-own-to-another-group": (lambda: os.chown("mine/f", -1, SOMEBODY), None, EPERM),
    "lchown-others-link": (lambda: os.lchown("link", NOBODY, NOBODY), None, EPERM),
    "utime-others": (lambda: os.utime("f", (1, 1)), None, EPERM),
    "utime-now-of-others": (lambda: os.utime("f"), None, EACCES),
    "fchmod-others": (
        lambda: _through_descriptor("f", lambda number: os.fchmod(number, 0o600)),
        None,
        EPERM,
    ),
    "fchown-others": (
        lambda: _through_descriptor("f", lambda number: os.fchown(number, NOBODY, -1)),
        None,
        EPERM,
    ),
    "futimens-others": (
        lambda: _through_descriptor("f", lambda number: os.utime(number, (1, 1))),
        None,
        EPERM,
    ),
    "fchmod-no-descriptor": (lambda: os.fchmod(987_654, 0o600), EBADF, EBADF),
    "fchown-no-descriptor": (lambda: os.fchown(987_654, -1, -1), EBADF, EBADF),
    "ftruncate-no-descriptor": (lambda: os.ftruncate(987_654, 0), EBADF, EBADF),
    "truncate-socket": (lambda: os.truncate("socket", 0), EINVAL, EINVAL),
    "truncate-device": (lambda: os.truncate("device", 0), EINVAL, EINVAL),
    "truncate-secret": (lambda: os.truncate("secret", 0), None, EACCES),
    "ftruncate-fifo": (lambda: _ftruncate("fifo", os.O_RDWR | os.O_NONBLOCK, 0), EINVAL, EACCES),
    "utime-nanoseconds-out-of-range": (lambda: utimensat("f", (1, 10**9), (1, 0)), EINVAL, EINVAL),
    "utime-negative-nanoseconds": (lambda: utimensat("f", (1, -1), (1, 0)), EINVAL, EINVAL),
    "truncate-directory": (lambda: os.truncate("d", 0), EISDIR, EISDIR),
    "truncate-others": (lambda: os.truncate("f", 0), None, EACCES),
    "truncate-negative": (lambda: os.truncate("mine/f", -1), EINVAL, EINVAL),
    "truncate-fifo": (lambda: os.truncate("fifo", 0), EINVAL, EINVAL),
    "ftruncate-read-only": (lambda: _ftruncate("f", os.O_RDONLY, 0), EINVAL, EINVAL),
    "ftruncate-negative": (lambda: _ftruncate("mine/f", os.O_RDWR, -1), EINVAL, EINVAL),
    "ftruncate-directory": (lambda: _ftruncate("d", os.O_RDONLY, 0), EINVAL, EINVAL),
    "readlink-of-a-file": (lambda: os.readlink("f"), EINVAL, EINVAL),
    "listdir-of-a-file": (lambda: os.listdir("f"), ENOTDIR, ENOTDIR),
    "listdir-closed": (lambda: os.listdir("closed"), 0, EACCES),
    "chdir-closed": (lambda: os.stat("closed/."), 0, EACCES),
    **_rows_with_bad_paths("chmod", lambda path: os.chmod(path, 0o600), follows=True),
    **_rows_with_bad_paths("chown", lambda path: os.chown(path, -1, -1), follows=True),
    **_rows_with_bad_paths("lchown", lambda path: os.lchown(path, -1, -1), follows=False),
    **_rows_with_bad_paths("utime", lambda path: os.utime(path, (1, 1)), follows=True),
    **_rows_with_bad_paths("truncate", lambda path: os.truncate(path, 1), follows=True),
    **_rows_with_bad_paths("stat", os.stat, follows=True),
    **_rows_with_bad_paths("lstat", os.lstat, follows=False),
    **_rows_with_bad_paths("readlink", os.readlink, follows=False),
}

TABLE: dict[str, Row] = {**_OPEN, **_RENAME, **_EXCHANGE, **_REMOVE, **_MAKE, **_CHANGE}

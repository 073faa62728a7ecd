"""Files of a registered `file://` location, reached so that no link leads out of it.

It must not know of registrations, HTTP or the catalog. A path is walked from the location's root
one component at a time, each opened relative to the last without following links. So a component
that somebody swaps for a link in between ends the walk; nothing is checked first and used later.
Links that stay within the location are resolved and then walked the same way.

All functions block: call them from a thread. They raise ApiError: 403 for a way out, 404 for what
is not there, 503 when the location itself cannot be reached.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

from files_server.errors import IS_DIRECTORY, NOT_DIRECTORY, NOT_EMPTY, ApiError, shown
from files_server.names import SEGMENT_BYTES

TEMPORARY = ".files-server-tmp-"  # what a write in progress is called; never shown
_NAME = re.compile(r"[A-Za-z0-9_\-.]+\Z")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block us


@dataclass(frozen=True, slots=True)
class Found:
    """A file or directory of a location. `key` is relative to it, a directory's without slash."""

    key: str
    is_directory: bool
    size: int
    etag: str
    mode: int
    uid: int
    gid: int
    nlink: int
    inode: int
    modified_ns: int
    changed_ns: int
    accessed_ns: int

    @property
    def mime_type(self) -> str:
        if self.is_directory:
            return "inode/directory"
        return guess_type(self.key)[0] or "application/octet-stream"


def version(status: os.stat_result) -> str:
    """The ETag of a file's state: another one after any write that the kernel notes."""
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return f'"f{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def is_shown(name: str) -> bool:
    """Whether a name in a location can be part of a key; others are left out."""
    return (
        _NAME.match(name) is not None
        and name not in (".", "..")
        and len(name) <= SEGMENT_BYTES
        and not name.startswith(TEMPORARY)
    )


def find(root: Path, key: str) -> Found:
    """What `key` names; "" is the location itself."""
    with _opened(root, key) as descriptor:
        return _found(key, os.fstat(descriptor))


class OpenFile:
    """A regular file, open for reading. Closed with its last reference: an answer that nobody
    fetches is simply dropped."""

    def __init__(self, descriptor: int, found: Found) -> None:
        self._descriptor = descriptor
        self.found = found

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the version that was opened: ApiError 410 when the file has changed since."""
        data = os.pread(self._descriptor, length, start)
        if version(os.fstat(self._descriptor)) != self.found.etag:
            raise ApiError(410, "The file has changed while it was read. Read its metadata again.")
        return data

    def __del__(self) -> None:
        os.close(self._descriptor)


def open_file(root: Path, key: str) -> OpenFile:
    """A regular file of the location."""
    with _opened(root, key) as descriptor:
        found = _found(key, os.fstat(descriptor))
        if found.is_directory:
            raise ApiError(404, f"{shown(key)} is a directory of the location, not a file.")
        return OpenFile(os.dup(descriptor), found)


def children(root: Path, key: str) -> list[Found]:
    """What is directly in a directory, by key bytes where a directory's name ends with a slash."""
    with _opened(root, key) as descriptor:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise ApiError(404, f"{shown(key)} is a file of the location, not a directory.")
        names = [name for name in os.listdir(descriptor) if is_shown(name)]
        found = [_child(root, descriptor, key, name) for name in names]
    return sorted((f for f in found if f), key=lambda f: f.key + "/" * f.is_directory)


def walk(root: Path, key: str = "") -> Iterator[Found]:
    """Every file and directory below, in key order. Linked directories are not entered twice:
    they show, but what is in them shows under its own name only."""
    for found in children(root, key):
        yield found
        if found.is_directory and not os.path.islink(root / found.key):
            with suppress(_Vanished):
                yield from _below(root, found.key)


def remove(root: Path, key: str) -> None:
    """Remove a file, or an empty directory (`key` with a trailing slash)."""
    name = key.rstrip("/")
    with _parent(root, name) as (descriptor, last):
        try:
            if key.endswith("/"):
                os.rmdir(last, dir_fd=descriptor)
            else:
                os.unlink(last, dir_fd=descriptor)
        except OSError as error:
            raise _refused(name, error) from None
        os.fsync(descriptor)


def make_directory(root: Path, key: str) -> Found:
    """A directory, with those above it; that it exists is no error."""
    name = key.rstrip("/")
    with _made(root, name) as descriptor:
        return _found(name, os.fstat(descriptor))


@contextmanager
def writing(root: Path, key: str) -> Iterator[int]:
    """A descriptor to write a new version of `key` to; it replaces the old one when the block ends
    well: synced, renamed, the directory synced. Otherwise nothing is left of it."""
    directory, _, name = key.rpartition("/")
    with _made(root, directory) as parent:
        temporary = f"{TEMPORARY}{os.urandom(12).hex()}"
        mode = _mode_of(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, mode, dir_fd=parent)
        except OSError as error:
            raise _refused(key, error) from None
        try:
            yield descriptor
            os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
        except OSError as error:
            raise _refused(key, error) from None
        finally:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(temporary, dir_fd=parent)


class _Vanished(Exception):
    """A directory went while a walk was on its way to it."""


def _below(root: Path, key: str) -> Iterator[Found]:
    try:
        yield from walk(root, key)
    except ApiError as error:
        if error.status != 404:
            raise
        raise _Vanished from None


def _child(root: Path, parent: int, key: str, name: str) -> Found | None:
    path = f"{key}/{name}" if key else name
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return find(root, path)
        return _found(path, status)
    except (ApiError, OSError):
        return None  # a link that leads out or nowhere, a device, or gone since


def _found(key: str, status: os.stat_result) -> Found:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ApiError(404, f"{shown(key)} is neither a regular file nor a directory.")
    is_directory = stat.S_ISDIR(status.st_mode)
    return Found(
        key=key,
        is_directory=is_directory,
        size=0 if is_directory else status.st_size,
        etag=version(status),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        nlink=status.st_nlink,
        inode=status.st_ino,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        accessed_ns=status.st_atime_ns,
    )


@contextmanager
def _opened(root: Path, key: str) -> Iterator[int]:
    try:
        descriptor = _walk_to(root, key)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise _refused(key, error) from None
        descriptor = _walk_resolved(root, key, error)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walk_resolved(root: Path, key: str, first: OSError) -> int:
    try:
        relative = os.path.relpath(os.path.realpath(root / key), root)
    except OSError:  # a link that was swapped while it was read
        raise _not_there(key) from None
    if relative == ".." or relative.startswith("../"):
        raise ApiError(403, f"{shown(key)} leads out of the registered location by a link.")
    if relative == key and first.errno == errno.ENOTDIR:  # a file where a directory should be
        raise _not_there(key)
    try:
        return _walk_to(root, "" if relative == "." else relative)
    except OSError as error:
        raise (_not_there(key) if error.errno == errno.ENOTDIR else _refused(key, error)) from None


def _not_there(key: str) -> ApiError:
    return ApiError(404, f"{shown(key)} is not in the registered location.")


def _walk_to(root: Path, key: str) -> int:
    """Open `key` without following any link. OSError for what is in the way."""
    current = open_root(root)
    segments = key.split("/") if key else []
    for number, segment in enumerate(segments):
        try:
            flags = _FILE if number == len(segments) - 1 else _DIRECTORY
            following = os.open(segment, flags, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return current


def open_root(root: Path) -> int:
    """The location's own directory. ApiError 503 when it cannot be reached."""
    current = os.open("/", _DIRECTORY)
    for segment in root.parts[1:]:
        try:
            following = os.open(segment, _DIRECTORY, dir_fd=current)
        except OSError as error:
            raise ApiError(
                503, f"The registered location {root} cannot be reached: {error.strerror}."
            ) from None
        finally:
            os.close(current)
        current = following
    return current


@contextmanager
def _parent(root: Path, key: str) -> Iterator[tuple[int, str]]:
    directory, _, name = key.rpartition("/")
    with _opened(root, directory) as descriptor:
        yield descriptor, name


@contextmanager
def _made(root: Path, key: str) -> Iterator[int]:
    """The directory `key`, made where it is missing. Through no links at all: this is writing."""
    current = open_root(root)
    for segment in key.split("/") if key else []:
        try:
            with suppress(FileExistsError):
                os.mkdir(segment, 0o777, dir_fd=current)
                os.fsync(current)
            following = os.open(segment, _DIRECTORY, dir_fd=current)
        except OSError as error:
            raise _refused(key, error) from None
        finally:
            os.close(current)
        current = following
    try:
        yield current
    finally:
        os.close(current)


def _mode_of(parent: int, name: str) -> int:
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return 0o666


_STATUS = {
    errno.ENOENT: 404,
    errno.ENAMETOOLONG: 404,
    errno.ENXIO: 404,  # a socket
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.ELOOP: 403,
    errno.ENOSPC: 507,
    errno.EDQUOT: 507,
}
_CONFLICTS = {
    errno.ENOTEMPTY: NOT_EMPTY,
    errno.EISDIR: IS_DIRECTORY,
    errno.ENOTDIR: NOT_DIRECTORY,
}


def _refused(key: str, error: OSError) -> ApiError:
    number = error.errno or 0
    reason = _CONFLICTS.get(number, "")
    status = 409 if reason else _STATUS.get(number, 503)
    detail = f"{shown(key)} in the registered location: {error.strerror or error}."
    return ApiError(status, detail, reason=reason)

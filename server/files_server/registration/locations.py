"""Files of a registered `file://` location, reached so that no link leads out of it.

It must not know of registrations, HTTP or the catalog, nor change anything (`writing.py` does).
A path is walked from the location's root one component at a time, each opened relative to the last
without following links. So a component that somebody swaps for a link in between ends the walk;
nothing is checked first and used later. Links that stay within the location are resolved and then
walked the same way.

Names with characters that keys leave out are known by their escape (`filesfs/escape.py`), as in the
mount: `a b` is the key `_-a_20b`, so that what is registered shows whole, and under its own names.

All functions block: call them from a thread. They raise ApiError: 403 for a way out, 404 for what
is not there, 503 when the location itself cannot be reached.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

from files_server.errors import IS_DIRECTORY, NOT_DIRECTORY, NOT_EMPTY, ApiError, shown
from files_server.names import SEGMENT_BYTES
from filesfs.escape import NAME_MAX, decoded, encoded

TEMPORARY = ".files-server-tmp-"  # what a write in progress is called; never shown
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block us


@dataclass(frozen=True, slots=True)
class Location:
    """A registered folder. `path` is resolved: without links.

    `mountpoint` is where the file system that holds it was mounted when it was registered, None if
    nobody noted it. While another one shows there, the location is away: an empty mount point is
    not an empty location. It is the place and not the device's number, which a restart may change.
    """

    path: Path
    mountpoint: Path | None = None


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
    device: int
    inode: int
    modified_ns: int
    changed_ns: int
    accessed_ns: int

    @property
    def mime_type(self) -> str:
        if self.is_directory:
            return "inode/directory"
        return guess_type(path_of(self.key))[0] or "application/octet-stream"


def version(status: os.stat_result) -> str:
    """The ETag of a file's state: another one after any write that the kernel notes."""
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return f'"f{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def segment_of(name: str) -> str | None:
    """What a name of a location is called in a key; None for those that do not show."""
    segment = encoded(os.fsencode(name))
    hidden = name.startswith(TEMPORARY) or len(segment) > SEGMENT_BYTES
    return None if hidden else segment.decode("ascii")


def is_shown(segment: str) -> bool:
    """Whether a segment of a key can name something in a location."""
    name = os.fsencode(name_of(segment))
    return len(name) <= NAME_MAX and not name.startswith(TEMPORARY.encode())


def path_of(key: str) -> str:
    """The names that a key's segments stand for: a path below the location."""
    return "/".join(map(name_of, key.split("/")))


def name_of(segment: str) -> str:
    """The name in the file system that a segment of a key stands for."""
    name = decoded(segment.encode())
    return segment if name is None else os.fsdecode(name)


def find(location: Location, key: str) -> Found:
    """What `key` names; "" is the location itself."""
    with opened(location, key) as descriptor:
        return as_found(key, os.fstat(descriptor))


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


def open_file(location: Location, key: str) -> OpenFile:
    """A regular file of the location."""
    with opened(location, key) as descriptor:
        found = as_found(key, os.fstat(descriptor))
        if found.is_directory:
            raise ApiError(404, f"{shown(key)} is a directory of the location, not a file.")
        return OpenFile(os.dup(descriptor), found)


def children(location: Location, key: str) -> list[Found]:
    """What is directly in a directory, by key bytes where a directory's name ends with a slash."""
    with opened(location, key) as descriptor:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise ApiError(404, f"{shown(key)} is a file of the location, not a directory.")
        names = ((name, segment_of(name)) for name in os.listdir(descriptor))
        found = [_child(location, descriptor, key, name, as_) for name, as_ in names if as_]
    return sorted((f for f in found if f), key=lambda f: f.key + "/" * f.is_directory)


def walk(location: Location, key: str = "") -> Iterator[Found]:
    """Every file and directory below, in key order. Linked directories are not entered twice:
    they show, but what is in them shows under its own name only."""
    for found in children(location, key):
        yield found
        if found.is_directory and not os.path.islink(location.path / path_of(found.key)):
            with suppress(_Vanished):
                yield from _below(location, found.key)


class _Vanished(Exception):
    """A directory went while a walk was on its way to it."""


def _below(location: Location, key: str) -> Iterator[Found]:
    try:
        yield from walk(location, key)
    except ApiError as error:
        if error.status != 404:
            raise
        raise _Vanished from None


def _child(location: Location, parent: int, key: str, name: str, segment: str) -> Found | None:
    child = f"{key}/{segment}" if key else segment
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return find(location, child)
        return as_found(child, status)
    except (ApiError, OSError):
        return None  # a link that leads out or nowhere, a device, or gone since


def as_found(key: str, status: os.stat_result) -> Found:
    """What stat(2) says. ApiError 404 for anything but files and directories."""
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
        device=status.st_dev,
        inode=status.st_ino,
        modified_ns=_told(status.st_mtime_ns),
        changed_ns=_told(status.st_ctime_ns),
        accessed_ns=_told(status.st_atime_ns),
    )


def _told(nanoseconds: int) -> int:
    """A time as the API has it, in 64 bits: at most the year 2262. Disks know later ones, and one
    such file must not take its whole directory's listing from clients.
    """
    return max(-(1 << 63), min(nanoseconds, (1 << 63) - 1))


@contextmanager
def opened(location: Location, key: str) -> Iterator[int]:
    """A descriptor of what `key` names; links within the location are followed."""
    try:
        descriptor = walk_to(location, path_of(key))
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise refused(key, error) from None
        descriptor = _walk_resolved(location, key, error)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walk_resolved(location: Location, key: str, first: OSError) -> int:
    try:
        path = path_of(key)
        relative = os.path.relpath(os.path.realpath(location.path / path), location.path)
    except OSError:  # a link that was swapped while it was read
        raise _not_there(key) from None
    if relative == ".." or relative.startswith("../"):
        raise ApiError(403, f"{shown(key)} leads out of the registered location by a link.")
    if relative == path and first.errno == errno.ENOTDIR:  # a file where a directory should be
        raise _not_there(key)
    try:
        return walk_to(location, "" if relative == "." else relative)
    except OSError as error:
        raise (_not_there(key) if error.errno == errno.ENOTDIR else refused(key, error)) from None


def _not_there(key: str) -> ApiError:
    return ApiError(404, f"{shown(key)} is not in the registered location.")


def walk_to(location: Location, path: str) -> int:
    """Open what is at `path` without following any link. OSError for what is in the way."""
    current = open_root(location)
    names = path.split("/") if path else []
    for number, name in enumerate(names):
        try:
            flags = _FILE if number == len(names) - 1 else DIRECTORY
            following = os.open(name, flags, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return current


def open_root(location: Location) -> int:
    """The location's own directory. ApiError 503 when it cannot be reached."""
    try:
        descriptor, mountpoint = _descend(location.path)
    except OSError as error:
        raise ApiError(
            503, f"The registered location {location.path} cannot be reached: {error.strerror}."
        ) from None
    if location.mountpoint in (None, mountpoint):
        return descriptor
    os.close(descriptor)
    raise ApiError(
        503,
        f"The registered location {location.path} cannot be reached: what was mounted on"
        f" {location.mountpoint} when it was registered is not there. Mount it, or if the folder"
        " lies elsewhere for good, DELETE the bucket (no data goes) and register it again.",
    )


def mountpoint_of(path: Path) -> Path:
    """Where the file system is mounted that holds the folder. Raises OSError."""
    descriptor, mountpoint = _descend(path)
    os.close(descriptor)
    return mountpoint


def _descend(path: Path) -> tuple[int, Path]:
    """The folder, opened through no link, and the mount point above it, or it itself."""
    current, mountpoint = os.open("/", DIRECTORY), Path("/")
    device = os.fstat(current).st_dev
    for depth, segment in enumerate(path.parts[1:], 2):
        try:
            following = os.open(segment, DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = following
        if (found := os.fstat(current).st_dev) != device:
            device, mountpoint = found, Path(*path.parts[:depth])
    return current, mountpoint


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


def refused(key: str, error: OSError) -> ApiError:
    """What the kernel refused, as an answer."""
    number = error.errno or 0
    reason = _CONFLICTS.get(number, "")
    status = 409 if reason else _STATUS.get(number, 503)
    detail = f"{shown(key)} in the registered location: {error.strerror or error}."
    return ApiError(status, detail, reason=reason)

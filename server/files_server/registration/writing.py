"""Changes in a registered location that was registered for writing: through no link at all.

It must not decide whether writing is allowed (`located.py` does), nor know of sessions. What it
returns from is durable: files are synced, and the folder that names them. Content appears under its
name in one step. All functions block, and raise ApiError as `locations.py` does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Protocol

from files_server.blobs.upload import UploadFile
from files_server.errors import EXISTS, ApiError, shown
from files_server.registration.locations import (
    DIRECTORY,
    TEMPORARY,
    Found,
    Location,
    as_found,
    find,
    name_of,
    open_root,
    opened,
    path_of,
    refused,
)
from filesfs.wire import AttributesPatch

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_one_at_a_time = threading.Lock()  # our own commits: none comes between a check and its rename


class Check(Protocol):
    """Raises ApiError 412 where what is there (None: nothing) is not what a commit waits for."""

    def __call__(self, found: Found | None) -> None: ...


def temporary_name(upload: str) -> str:
    """What an upload's content is called beside the name that it is to get."""
    return TEMPORARY + hashlib.sha256(upload.encode()).hexdigest()[:24]


class StagedFile:
    """A complete file beside the name that it is to get, hidden, with its mode, owner and times.

    The received file itself where it is on the same file system, else a copy of it.
    """

    def __init__(
        self,
        location: Location,
        key: str,
        file: UploadFile,
        name: str,
        attributes: AttributesPatch | None,
    ) -> None:
        self._location, self._key, self._file = location, key, file
        self._temporary = temporary_name(name)
        directory, _, last = key.rpartition("/")
        self._name = name_of(last)
        self._parent = _make(location, directory)
        self._descriptor = -1
        try:
            self._descriptor = self._bring()
            _dress(self._descriptor, self._parent, self._name, attributes)
            os.fsync(self._descriptor)
            status = os.fstat(self._descriptor)
            # What a rename leaves as it is. An inode's number alone may soon be another file's.
            self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        except BaseException as error:
            self.drop()
            if isinstance(error, OSError):
                raise refused(key, error) from None
            raise

    def commit(self, check: Check, *, only_new: bool) -> Found:
        """Rename it into place. `only_new`: 412 when there is anything by that name."""
        try:
            with _one_at_a_time:
                self._rename(check, only_new=only_new)
            os.fsync(self._parent)
            # Its other name, once the new one is safe; the file's version is that after it.
            self._file.path.unlink(missing_ok=True)
        except OSError as error:
            raise refused(self._key, error) from None
        return find(self._location, self._key)

    def drop(self) -> None:
        """Nothing of it stays beside the name."""
        if self._parent < 0:
            return
        with suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._parent)
        os.close(self._parent)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._parent = self._descriptor = -1

    def _bring(self) -> int:
        with suppress(FileNotFoundError):  # of the same session, from before a crash
            os.unlink(self._temporary, dir_fd=self._parent)
        try:
            if self._file.blocks is not None:  # begun while this was a bucket of the catalog
                raise OSError(errno.EMLINK, "a version has the file, too", str(self._file.path))
            os.link(self._file.path, self._temporary, dst_dir_fd=self._parent)
        except OSError:  # another file system, or one without hard links
            flags = _OPEN | os.O_CREAT | os.O_EXCL
            descriptor = os.open(self._temporary, flags, 0o600, dir_fd=self._parent)
            try:
                self._file.feed(lambda data: _write_all(descriptor, data))
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        return os.open(self._temporary, _OPEN, dir_fd=self._parent)

    def _rename(self, check: Check, *, only_new: bool) -> None:
        there = _present(self._parent, self._name)
        if there is not None and not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
            if stat.S_ISDIR(there.st_mode):
                raise refused(self._key, IsADirectoryError(errno.EISDIR, "it is a directory"))
            raise ApiError(409, f"{shown(self._key)} is no regular file.", reason=EXISTS)
        is_file = there is not None and stat.S_ISREG(there.st_mode)
        check(as_found(self._key, there) if is_file and there else None)
        places = {"src_dir_fd": self._parent, "dst_dir_fd": self._parent}
        if not only_new:
            os.rename(self._temporary, self._name, **places)
            return
        try:
            os.link(self._temporary, self._name, **places, follow_symlinks=False)
        except FileExistsError:
            raise ApiError(412, f"{shown(self._key)} is there already (If-None-Match).") from None
        os.unlink(self._temporary, dir_fd=self._parent)


def remove(location: Location, key: str, check: Check) -> None:
    """Remove a file, or an empty directory (`key` with a trailing slash)."""
    name = key.rstrip("/")
    directory, _, segment = name.rpartition("/")
    last = name_of(segment)
    with opened(location, directory) as parent, _refusing(name):
        with _one_at_a_time:
            check(find(location, name))
            if key.endswith("/"):
                os.rmdir(last, dir_fd=parent)
            else:
                os.unlink(last, dir_fd=parent)
        os.fsync(parent)


def make_directory(
    location: Location, key: str, check: Check, attributes: AttributesPatch | None
) -> Found:
    """A directory, with those above it; that it exists is no error unless `check` says so."""
    name = key.rstrip("/")
    try:
        existing: Found | None = find(location, name)
    except ApiError as error:
        if error.status != 404:
            raise
        existing = None
    check(existing)
    if existing and not existing.is_directory:
        raise ApiError(409, f"{shown(name)} is a file already.", reason=EXISTS)
    descriptor = _make(location, name)
    try:
        with _refusing(name):
            if attributes is not None:
                _set(descriptor, attributes, squash=existing is None)
                os.fsync(descriptor)
            return as_found(name, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def set_attributes(location: Location, key: str, change: AttributesPatch, check: Check) -> Found:
    """Mode, owner and times, of a file or a directory. ApiError 403 for what is not allowed."""
    name = key.removesuffix("/")
    with opened(location, name) as descriptor, _refusing(name):
        check(as_found(name, os.fstat(descriptor)))
        _set(descriptor, change, squash=False)
        os.fsync(descriptor)
        return as_found(name, os.fstat(descriptor))


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refused(name, error) from None


def _make(location: Location, key: str) -> int:
    """The directory `key`, opened, made where it is missing."""
    current = open_root(location)
    for name in path_of(key).split("/") if key else []:
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o777, dir_fd=current)
                os.fsync(current)
            following = os.open(name, DIRECTORY, dir_fd=current)
        except OSError as error:
            raise refused(key, error) from None
        finally:
            os.close(current)
        current = following
    return current


def _dress(descriptor: int, parent: int, name: str, attributes: AttributesPatch | None) -> None:
    """Owner and mode: those asked for, else those of the file that is replaced, else a new one's.

    An owner that this server may not give is the server's own, as with a squashed NFS export.
    """
    old, folder = _present(parent, name), os.fstat(parent)
    if old is not None and stat.S_ISREG(old.st_mode):
        owner, mode = (old.st_uid, old.st_gid), stat.S_IMODE(old.st_mode)
    else:
        group = folder.st_gid if folder.st_mode & stat.S_ISGID else -1
        owner, mode = (-1, group), 0o666 & ~_umask()
    if attributes is None or attributes.mode is None:
        attributes = (attributes or AttributesPatch()).model_copy(update={"mode": mode})
    with suppress(PermissionError):
        os.fchown(descriptor, *owner)
    _set(descriptor, attributes, squash=True)


def _set(descriptor: int, change: AttributesPatch, *, squash: bool) -> None:
    if change.uid is not None or change.gid is not None:
        try:
            os.fchown(
                descriptor,
                -1 if change.uid is None else change.uid,
                -1 if change.gid is None else change.gid,
            )
        except PermissionError:
            if not squash:
                raise
    if change.mode is not None:  # behind the owner: that clears setuid
        os.fchmod(descriptor, change.mode)
    if change.accessed_ns is not None or change.modified_ns is not None:
        status = os.fstat(descriptor)
        accessed = status.st_atime_ns if change.accessed_ns is None else change.accessed_ns
        modified = status.st_mtime_ns if change.modified_ns is None else change.modified_ns
        os.utime(descriptor, ns=(accessed, modified))


def _present(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@lru_cache(1)
def _umask() -> int:
    """This process's; umask(2) tells it only by changing it, for all threads."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022

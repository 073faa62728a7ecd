"""A consistent copy of a data folder, taken while its server runs: `filesfs backup`.

It must not change the data folder. What a version has of its blob never changes, so on one disk
blobs are hard-linked and cost nothing; on another one, versions that share a file share its copy.
The catalog's copy decides: it is taken after the first round of
links, so what it names is linked already, or is newer and is linked then. Open upload sessions are
left out.

To restore: stop the server and start it on the copy (or on a copy of the copy, to keep it). It
sees that its catalog has moved and takes a new epoch, so clients drop what they cached.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

from files_server.blobs.local import LocalBlobs
from files_server.blobs.upload import copy_range

CATALOG, FORMAT = "catalog.sqlite", "format"
_ROUNDS = 5  # a blob that came and went within a round costs another one
_READ = 16 << 20


class BackupError(Exception):
    """No backup was made; one line with the cause."""


def backup(data_dir: Path, target: Path) -> int:
    """Copy `data_dir` to the new folder `target`; how many blobs it holds. Raises BackupError."""
    if not (data_dir / CATALOG).exists():
        raise BackupError(f"{data_dir} is no data folder: it has no {CATALOG}")
    try:
        target.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise BackupError(f"{target} exists: name a folder that does not") from None
    try:
        return _copied(data_dir, target)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"cannot copy {data_dir} to {target}: {error}") from error


def _copied(data_dir: Path, target: Path) -> int:
    source, copy, copies = LocalBlobs(data_dir), LocalBlobs(target), _Copies()
    copy.prepare()
    for path in (data_dir / "blobs").glob("??/*"):
        copies.link(path, copy.path(path.name))
    for _ in range(_ROUNDS):
        named = _copy_catalog(data_dir / CATALOG, target / CATALOG)
        missing = [blob for blob in named if not copy.path(blob).exists()]
        if all(copies.link(source.path(blob), copy.path(blob)) for blob in missing):
            break
    else:
        raise BackupError("content was replaced faster than it could be copied: try again")
    for path in (target / "blobs").glob("??/*"):
        if path.name not in named:
            path.unlink()
    shutil.copy2(data_dir / FORMAT, target / FORMAT)
    os.sync()  # thousands of links and their folders: one call for all of them
    return len(named)


def _copy_catalog(source: Path, target: Path) -> set[str]:
    """Copy the catalog as of now; the blobs that it names."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        copy.execute("DELETE FROM sessions WHERE state = 0")
        copy.commit()
        rows = copy.execute("SELECT blob FROM versions WHERE blob IS NOT NULL")
        return {row[0] for row in rows}


class _Copies:
    """Brings blobs over. Knows which file was copied to which, and in what state that was: another
    name of it is a link to the same copy, unless something was written to it since."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, ...], Path] = {}

    def link(self, source: Path, target: Path) -> bool:
        """Link, or copy to another disk; False when `source` has gone."""
        try:
            os.link(source, target)
        except FileExistsError:
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            return self._copy(source, target)
        return True

    def _copy(self, source: Path, target: Path) -> bool:
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            found = os.fstat(descriptor)
            state = (
                found.st_dev,
                found.st_ino,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
            if state in self._made:
                with suppress(OSError):  # it may have too many names
                    os.link(self._made[state], target)
                    return True
            with target.open("xb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o600)
                _copy_data(descriptor, file.fileno(), found.st_size)
            self._made[state] = target
        finally:
            os.close(descriptor)
        return True


def _copy_data(source: int, target: int, size: int) -> None:
    """Without the holes."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole up to the end
        hole = min(size, os.lseek(source, at, os.SEEK_HOLE))
        while at < hole:
            copied = copy_range(source, target, min(_READ, hole - at), at, at)
            if copied == 0:
                return  # cut meanwhile, which no version's bytes are
            at += copied


def main() -> int:
    """`DATA_DIR TARGET`; the exit code."""
    if len(sys.argv) != 3:
        print("usage: filesfs backup DATA_DIR TARGET", file=sys.stderr)
        return 2
    try:
        count = backup(Path(sys.argv[1]), Path(sys.argv[2]))
    except BackupError as error:
        print(f"filesfs backup: {error}", file=sys.stderr)
        return 1
    print(f"copied the catalog and {count} blobs to {sys.argv[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A consistent copy of a data folder, taken while its server runs: `filesfs backup`.

It must not change the data folder. Blobs never change once they are named, so on one disk they are
hard-linked and cost nothing. The catalog's copy decides: it is taken after the first round of
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
from contextlib import closing
from pathlib import Path

from files_server.blobs.local import LocalBlobs

CATALOG, FORMAT = "catalog.sqlite", "format"
_ROUNDS = 5  # a blob that came and went within a round costs another one


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
    source, copy = LocalBlobs(data_dir), LocalBlobs(target)
    copy.prepare()
    for path in (data_dir / "blobs").glob("??/*"):
        _link(path, copy.path(path.name))
    for _ in range(_ROUNDS):
        named = _copy_catalog(data_dir / CATALOG, target / CATALOG)
        missing = [blob for blob in named if not copy.path(blob).exists()]
        if all(_link(source.path(blob), copy.path(blob)) for blob in missing):
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


def _link(source: Path, target: Path) -> bool:
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
        return _copy(source, target)
    return True


def _copy(source: Path, target: Path) -> bool:
    try:
        shutil.copy2(source, target)
    except FileNotFoundError:
        return False
    return True


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

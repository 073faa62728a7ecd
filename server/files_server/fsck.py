"""Checks a data folder: whether what the catalog names is there, and whole.

It must not run beside a server that writes (`repair` and `check` take the folder's lock), and it
repairs only what can be repaired without guessing: link counts, and files that nothing names.
`filesfs fsck [--digests] [--repair] DATA_DIR`
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from files_server.blobs.checksums import BLOCK, BlockSums, checksums
from files_server.blobs.layout import Layout
from files_server.blobs.local import LocalBlobs
from files_server.blobs.pieces import Stored

_CATALOG = "catalog.sqlite"
_LINKS = (
    "SELECT r.id, r.rid, r.nlink, count(n.id) FROM resources r"
    " LEFT JOIN nodes n ON n.resource_id = r.id WHERE r.kind = 0"
    " GROUP BY r.id HAVING r.nlink <> count(n.id)"
)
_BROKEN = {
    "a name without a resource": "SELECT n.sort_name FROM nodes n LEFT JOIN resources r"
    " ON r.id = n.resource_id WHERE r.id IS NULL",
    "a name without its directory": "SELECT n.sort_name FROM nodes n LEFT JOIN nodes p"
    " ON p.id = n.parent_id WHERE n.parent_id <> 0 AND p.id IS NULL",
    "a file without its version": "SELECT r.rid FROM resources r LEFT JOIN versions v"
    " ON v.id = r.version_id WHERE r.kind = 0 AND v.id IS NULL",
    "a version without its bytes": "SELECT v.etag FROM versions v LEFT JOIN contents c"
    " ON c.version_id = v.id WHERE v.blob IS NULL AND c.version_id IS NULL",
    "a version that no file has": "SELECT v.etag FROM versions v LEFT JOIN resources r"
    " ON r.version_id = v.id WHERE v.expires_at IS NULL AND r.id IS NULL",
}
_LOST = (  # what can be undeleted has a version that expires
    "SELECT d.version_id, d.bucket, d.key FROM deleted d LEFT JOIN versions v"
    " ON v.id = d.version_id AND v.expires_at IS NOT NULL WHERE v.id IS NULL"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and whether this run has repaired it."""

    text: str
    repaired: bool = False


class InUse(Exception):
    """A server runs on this data folder."""


def check(data_dir: Path, digests: bool, repair: bool) -> list[Problem]:
    """All problems of a data folder. `digests`: read every byte. Raises InUse, OSError."""
    if not (data_dir / _CATALOG).exists():
        raise FileNotFoundError(f"{data_dir} is no data folder: it has no {_CATALOG}")
    with _locked(data_dir), closing(_open(data_dir)) as catalog:
        problems = list(_catalog(catalog))
        problems += _links(catalog, repair)
        problems += _deleted(catalog, repair)
        problems += _contents(catalog, LocalBlobs(data_dir), digests)
        problems += _strays(catalog, data_dir, repair)
        return problems


def _open(data_dir: Path) -> sqlite3.Connection:
    path = data_dir / _CATALOG
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _catalog(catalog: sqlite3.Connection) -> Iterator[Problem]:
    for (text,) in catalog.execute("PRAGMA integrity_check"):
        if text != "ok":
            yield Problem(f"the catalog is damaged: {text}")
    for what, query in _BROKEN.items():
        for (name,) in catalog.execute(query):
            yield Problem(f"{what}: {name!r}")


def _links(catalog: sqlite3.Connection, repair: bool) -> Iterator[Problem]:
    for resource, rid, recorded, found in catalog.execute(_LINKS).fetchall():
        mend = repair and found > 0
        if mend:
            catalog.execute("UPDATE resources SET nlink = ? WHERE id = ?", (found, resource))
        yield Problem(f"the resource {rid} has {found} names, not {recorded}", mend)


def _deleted(catalog: sqlite3.Connection, repair: bool) -> Iterator[Problem]:
    if not catalog.execute("SELECT 1 FROM sqlite_master WHERE name = 'deleted'").fetchone():
        return  # the catalog of an older server, which kept nothing for undelete
    for version, bucket, key in catalog.execute(_LOST).fetchall():
        if repair:
            catalog.execute("DELETE FROM deleted WHERE version_id = ?", (version,))
        yield Problem(f"the deleted file {bucket}/{key} has no content any more", repair)


def _contents(catalog: sqlite3.Connection, blobs: LocalBlobs, digests: bool) -> Iterator[Problem]:
    columns = {column[1] for column in catalog.execute("PRAGMA table_info(versions)")}
    blocks = "v.blocks" if "blocks" in columns else "NULL"  # of an older server
    rows = catalog.execute(
        f"SELECT v.etag, v.size, v.blob, v.crc32c, {blocks}, c.data FROM versions v"
        " LEFT JOIN contents c ON c.version_id = v.id"
    )
    for etag, size, blob, expected, places, data in rows:
        if blob is None:
            if data is not None and (len(data) != size or checksums(data) != expected):
                yield Problem(f"the bytes of version {etag} in the catalog are damaged")
        else:
            if places is not None and len(places) != 4 * -(-size // BLOCK):
                yield Problem(f"the catalog does not say where all of version {etag} is")
                continue
            stored = Stored(size, expected, Layout(places))
            yield from _blob(blobs.path(blob), etag, stored, digests)


def _blob(path: Path, etag: str, stored: Stored, digests: bool) -> Iterator[Problem]:
    needed = stored.layout.end(0, stored.size)
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        yield Problem(f"the blob {path} of version {etag} is missing: restore it from a backup")
        return
    if found < needed:  # more is another version's, or an upload's that was given up
        yield Problem(f"the blob {path} of version {etag} has {found} bytes, not {needed}")
    elif digests and _sums(path, stored) != stored.sums:
        yield Problem(f"the blob {path} of version {etag} is damaged: its checksums do not match")


def _sums(path: Path, stored: Stored) -> bytes:
    sums = BlockSums()
    with path.open("rb") as file:
        for start in range(0, stored.size, BLOCK):
            end = min(start + BLOCK, stored.size)
            sums.update(stored.layout.read(file.fileno(), start, end))
    return sums.value()


def _strays(catalog: sqlite3.Connection, data_dir: Path, repair: bool) -> Iterator[Problem]:
    """Files that nothing names. A published blob of an open session is one that a start takes."""
    named = {row[0] for row in catalog.execute("SELECT blob FROM versions WHERE blob IS NOT NULL")}
    open_ones = {row[0] for row in catalog.execute("SELECT id FROM sessions WHERE state = 0")}
    blobs = (path for path in (data_dir / "blobs").glob("??/*") if path.name not in named)
    for path in [*blobs, *(data_dir / "uploads").glob("*")]:
        if path.name.partition(".")[0] not in open_ones:
            if repair:
                path.unlink()
            yield Problem(f"nothing names the file {path}", repair)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InUse(f"a server runs on {data_dir}: stop it first, or check a backup") from None
    finally:
        os.close(descriptor)


def main() -> int:
    """0: clean or all repaired; 1: problems are left; 2: it could not be checked."""
    parser = argparse.ArgumentParser("filesfs fsck", description="Check a data folder.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--digests", action="store_true", help="read every byte")
    parser.add_argument("--repair", action="store_true", help="mend what can be mended")
    options = parser.parse_args()
    try:
        problems = check(options.data_dir, options.digests, options.repair)
    except (InUse, OSError, sqlite3.Error) as error:
        print(f"filesfs fsck: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(problem.text + (" (repaired)" if problem.repaired else ""))
    return 1 if any(not problem.repaired for problem in problems) else 0


if __name__ == "__main__":
    sys.exit(main())

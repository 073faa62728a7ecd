"""What can be undeleted: listed, brought back under a name, or given up early.

It must not decide who may; every change runs inside the writer's transaction. A version that comes
back keeps its ETag: it is the same content.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from files_server.catalog import keeping, nodes, tree
from files_server.catalog.commits import Outcome, names_of
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import Keep
from files_server.catalog.nodes import Node
from files_server.catalog.schema import FILE
from files_server.errors import ApiError, shown
from filesfs.wire import SPECIAL_TYPES, Operation

_COLUMNS = (
    "d.version_id, d.bucket, d.key, d.deleted_at, d.replaced, d.deleted_by, d.mime_type, d.mode,"
    " d.uid, d.gid, d.modified_ns, d.accessed_ns, d.xattrs, v.etag, v.size, v.expires_at"
)
_FROM = " FROM deleted d JOIN versions v ON v.id = d.version_id"


class Deleted(NamedTuple):
    """A version without a name, and what was known of its file when it lost it."""

    version_id: int
    bucket: str
    key: str
    deleted_at: int  # Unix seconds
    replaced: int
    deleted_by: str
    mime_type: str
    mode: int | None
    uid: int | None
    gid: int | None
    modified_ns: int
    accessed_ns: int
    xattrs: str | None
    etag: str
    size: int
    expires_at: int


class DeletedBucket(NamedTuple):
    """How much of one bucket could be brought back."""

    name: str
    files: int
    bytes: int


def buckets(connection: sqlite3.Connection) -> list[DeletedBucket]:
    """The buckets of which something can be brought back; they need not exist any more."""
    rows = connection.execute(
        f"SELECT d.bucket, count(*), sum(v.size){_FROM} GROUP BY d.bucket ORDER BY d.bucket"
    )
    return [DeletedBucket(*row) for row in rows]


def listed(
    connection: sqlite3.Connection, bucket: str, prefix: str, after: tuple[str, int]
) -> Iterator[Deleted]:
    """By key and version, behind the (key, version id) `after`."""
    rows = connection.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE d.bucket = ? AND d.key >= ?"
        " AND (d.key, d.version_id) > (?, ?) ORDER BY d.key, d.version_id",
        (bucket, prefix, *after),
    )
    for row in map(Deleted._make, rows):
        if not row.key.startswith(prefix):
            return
        yield row


def find(connection: sqlite3.Connection, etag: str) -> Deleted:
    """ApiError 404 for what is not kept, or no longer."""
    row = connection.execute(f"SELECT {_COLUMNS}{_FROM} WHERE v.etag = ?", (etag,)).fetchone()
    if row is None:
        raise ApiError(404, f"The version {shown(etag)} is not among what can be undeleted.")
    return Deleted._make(row)


def restore(
    tx: Transaction, etag: str, place: tuple[str, str], keep: Keep, *, overwrite: bool
) -> Outcome:
    """Bring a version back as `place`, with its attributes. ApiError 404, 409, 412."""
    kept, (bucket, key) = find(tx.connection, etag), place
    existing = nodes.find(tx.connection, bucket, key)
    if existing and existing.is_directory:
        raise tree.is_directory(key)
    if existing and not overwrite:
        raise ApiError(412, f"{shown(key)} exists; send Overwrite: T to have it replaced.")
    if existing and _special(existing.mime_type) != _special(kept.mime_type):
        tree.unlink(tx, existing, place, keep, replaced=True)
        existing = None
    if existing:
        keeping.let_go(tx, existing, place, keep, replaced=True)
        node_id, resource = existing.id, existing.resource
    else:
        node_id, resource = _name(tx, kept, place)
    tx.run("DELETE FROM deleted WHERE version_id = ?", kept.version_id)
    tx.run(
        "UPDATE versions SET expires_at = NULL, bucket = ? WHERE id = ?", bucket, kept.version_id
    )
    tx.run(
        "UPDATE resources SET etag = ?, size = ?, mime_type = ?, mode = ?, uid = ?, gid = ?,"
        " modified_ns = ?, accessed_ns = ?, changed_ns = ?, created_at = ?, xattrs = ?,"
        " version_id = ? WHERE id = ?",
        kept.etag, kept.size, kept.mime_type, kept.mode, kept.uid, kept.gid, kept.modified_ns,
        kept.accessed_ns, tx.now_ns, tx.now, kept.xattrs, kept.version_id, resource,
    )  # fmt: skip
    return _told(tx, nodes.by_id(tx.connection, node_id), place)


def purge(tx: Transaction, etag: str) -> None:
    """Give a kept version up now. ApiError 404."""
    keeping.drop_version(tx, find(tx.connection, etag).version_id)


def _name(tx: Transaction, kept: Deleted, place: tuple[str, str]) -> tuple[int, int]:
    tree.make_bucket(tx, place[0])
    directory, name = nodes.split_key(place[1])
    parent = tree.make_directories(tx, place[0], directory)
    tree.stamp(tx, parent)
    node = tree.add(tx, parent, name, FILE, kept.mime_type, kept.etag)
    return node.id, node.resource


def _told(tx: Transaction, node: Node, place: tuple[str, str]) -> Outcome:
    keys = names_of(tx, node) if node.nlink > 1 else [place]
    number = tree.record(tx, Operation.COMMIT, keys, node.rid, node.etag)
    return Outcome(*place, node, number)


def _special(mime_type: str) -> str:
    return mime_type if mime_type in SPECIAL_TYPES else ""

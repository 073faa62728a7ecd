"""Looking names up: from bucket and key to a node with its resource, and back. Reads only.

It must not change anything. A key's depth decides the statement: one join for each segment, each
an index lookup, so that no cache of paths has to be kept right.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any, NamedTuple

from files_server.catalog.schema import DIRECTORY

COLUMNS = (
    "n.id, n.parent_id, n.sort_name, n.explicit, r.id, r.rid, r.kind, r.etag, r.size, r.mime_type,"
    " r.mode, r.uid, r.gid, r.modified_ns, r.changed_ns, r.accessed_ns, r.created_at, r.xattrs,"
    " r.nlink, r.version_id"
)
BY_ID = f"SELECT {COLUMNS} FROM nodes n JOIN resources r ON r.id = n.resource_id WHERE n.id = ?"
Row = tuple[Any, ...]
_DEPTH = 40  # SQLite joins at most 64 tables
# The child of a parent by either of two names, of which one is there; `IN (?, ?)` makes a table.
_EITHER = (
    "coalesce((SELECT id FROM nodes WHERE parent_id = {0} AND sort_name = ?),"
    " (SELECT id FROM nodes WHERE parent_id = {0} AND sort_name = ?))"
)


class Node(NamedTuple):
    """A name with what it names. `sort_name` ends with "/" for a directory."""

    id: int
    parent_id: int
    sort_name: str
    explicit: int
    resource: int
    rid: str
    kind: int
    etag: str
    size: int
    mime_type: str
    mode: int | None
    uid: int | None
    gid: int | None
    modified_ns: int
    changed_ns: int
    accessed_ns: int
    created_at: int
    xattrs: str | None
    nlink: int
    version_id: int | None

    @property
    def is_directory(self) -> bool:
        return self.kind == DIRECTORY


class Joined(NamedTuple):
    """What is asked for beside a node, of tables that are joined to its resource `r`."""

    columns: str
    tables: str


_NOTHING = Joined("", "")


class Place(NamedTuple):
    """Where a key is or would be: the directory, or bucket, that holds it, and what is there."""

    parent: int
    parent_resource: int
    parent_explicit: int
    node: Node | None


@lru_cache(_DEPTH + 1)
def _placing(depth: int) -> str:
    """SELECT the directory that `depth` names lead to, with its child of either of two names."""
    aliases = [f"n{i}" for i in range(depth - 1)] + ["p"]
    tables = " CROSS JOIN ".join(f"nodes {alias}" for alias in aliases)
    ids = ["?", *(f"{alias}.id" for alias in aliases)]
    where = " AND ".join(
        f"{alias}.parent_id = {above} AND {alias}.sort_name = ?"
        for alias, above in zip(aliases, ids, strict=False)
    )
    return (
        f"SELECT p.id, p.resource_id, p.explicit, {COLUMNS} FROM {tables}"
        f" LEFT JOIN nodes n ON n.id = {_EITHER.format('p.id')}"
        f" LEFT JOIN resources r ON r.id = n.resource_id WHERE {where}"
    )


@lru_cache(_DEPTH * 4)
def _lookup(depth: int, full: bool, more: Joined = _NOTHING) -> str:
    """SELECT the node `depth` names below a parent; CROSS JOIN keeps SQLite to our order. `full`:
    with its resource, and what is joined to that."""
    last = f"n{depth - 1}" if not full else "n"
    aliases = [f"n{i}" for i in range(depth - 1)] + [last]
    ids = ["?1", *(f"{alias}.id" for alias in aliases)]
    where = [
        f"n.id = {_EITHER.format(above)}"
        if alias == "n"
        else f"{alias}.parent_id = {above} AND {alias}.sort_name = ?"
        for alias, above in zip(aliases, ids, strict=False)
    ]
    tables = " CROSS JOIN ".join(f"nodes {alias}" for alias in aliases)
    if full:
        return (
            f"SELECT {COLUMNS}{more.columns} FROM {tables} CROSS JOIN resources r{more.tables}"
            f" WHERE {' AND '.join(where)} AND r.id = n.resource_id"
        )
    return f"SELECT {last}.id FROM {tables} WHERE {' AND '.join(where)}"


def sort_names(bucket: str, directory: str) -> list[str]:
    """The sort names of a bucket and the directories of "a/b" ("": none) in it."""
    return [bucket, *(f"{segment}/" for segment in directory.split("/"))] if directory else [bucket]


def split_key(key: str) -> tuple[str, str]:
    """Directory path and last name of a key; a directory's trailing slash stays with its name."""
    head, _, name = key.removesuffix("/").rpartition("/")
    return head, name + "/" if key.endswith("/") else name


def find_id(connection: sqlite3.Connection, names: list[str], parent: int = 0) -> int | None:
    """The id of the node that `names` lead to from `parent`."""
    for start in range(0, len(names), _DEPTH):
        part = names[start : start + _DEPTH]
        row = connection.execute(_lookup(len(part), False), (parent, *part)).fetchone()
        if row is None:
            return None
        parent = row[0]
    return parent


def descend(connection: sqlite3.Connection, names: list[str]) -> tuple[int, int]:
    """How far the path of sort names exists: the last node that does, and how many do."""
    parent = found = 0
    while part := names[found : found + _DEPTH]:
        deeper = find_id(connection, part, parent)
        if deeper is None:
            break
        parent, found = deeper, found + len(part)
    for name in names[found:]:
        deeper = find_id(connection, [name], parent)
        if deeper is None:
            break
        parent, found = deeper, found + 1
    return parent, found


def place(connection: sqlite3.Connection, bucket: str, key: str) -> Place | None:
    """Where a key is or would be, in one statement; None without its directory."""
    directory, name = split_key(key)
    names = sort_names(bucket, directory)
    parent = 0
    if len(names) > _DEPTH:
        deep = find_id(connection, names[:-1])
        if deep is None:
            return None
        parent, names = deep, names[-1:]
    other = name if name.endswith("/") else name + "/"
    values = (name, other, parent, *names)
    row = connection.execute(_placing(len(names)), values).fetchone()
    if row is None:
        return None
    node = Node._make(row[3:]) if row[3] is not None else None
    return Place(row[0], row[1], row[2], node)


def find(connection: sqlite3.Connection, bucket: str, key: str = "") -> Node | None:
    """What is at this key: for "a" a file or the directory "a/", for "a/" the directory alone."""
    if not key:
        return child(connection, 0, bucket)
    row = find_with(connection, bucket, key)
    return Node._make(row) if row else None


def find_with(
    connection: sqlite3.Connection, bucket: str, key: str, more: Joined = _NOTHING
) -> Row | None:
    """The same as a row, behind whose fields come those of `more`."""
    directory, name = split_key(key)
    names = sort_names(bucket, directory)
    parent = 0
    if len(names) >= _DEPTH:
        deep = find_id(connection, names)
        if deep is None:
            return None
        parent, names = deep, []
    other = name if name.endswith("/") else name + "/"
    values = (parent, *names, name, other)
    row: Row | None = connection.execute(_lookup(len(names) + 1, True, more), values).fetchone()
    return row


def child(connection: sqlite3.Connection, parent: int, name: str) -> Node | None:
    """A direct child by name; for "a" also the directory "a/"."""
    other = name if name.endswith("/") or not parent else name + "/"
    row = connection.execute(_lookup(1, True), (parent, name, other)).fetchone()
    return Node._make(row) if row else None


def by_id(connection: sqlite3.Connection, node_id: int) -> Node:
    """The node; it must exist."""
    return Node._make(connection.execute(BY_ID, (node_id,)).fetchone())


def path_of(connection: sqlite3.Connection, node_id: int) -> tuple[str, str]:
    """Bucket and key of a node, walking up."""
    names: list[str] = []
    while node_id:
        parent, name = connection.execute(
            "SELECT parent_id, sort_name FROM nodes WHERE id = ?", (node_id,)
        ).fetchone()
        names.append(name)
        node_id = parent
    bucket = names.pop()
    path = "/".join(name.removesuffix("/") for name in reversed(names))
    return bucket, path + "/" if names and names[0].endswith("/") else path


def names_of(connection: sqlite3.Connection, resource: int) -> list[tuple[str, str]]:
    """Every (bucket, key) of a resource, the oldest name first."""
    rows = connection.execute("SELECT id FROM nodes WHERE resource_id = ? ORDER BY id", (resource,))
    return [path_of(connection, row[0]) for row in rows.fetchall()]

"""Listings: one directory, or everything below a prefix, in ascending order of key bytes.

It must not build answers; it yields (key, node). A walk reads one directory at a time; the caller
holds a read transaction, so that all of it is one snapshot.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from files_server.catalog import nodes
from files_server.catalog.nodes import COLUMNS, Node

_CHILDREN = (
    f"SELECT {COLUMNS} FROM nodes n JOIN resources r ON r.id = n.resource_id"
    " WHERE n.parent_id = ? AND n.sort_name > ? AND n.sort_name >= ? ORDER BY n.sort_name"
)


HAS_ROWS = sqlite3.sqlite_version_info >= (3, 38)  # JSON is part of it from there on
# A row as JSON; made in SQL, it is text before Python sees anything of it.
ROW = (
    "json_array(n.sort_name, r.mime_type, r.size, r.created_at, r.etag, r.rid,"
    " r.nlink, r.mode, r.uid, r.gid, r.modified_ns, r.changed_ns, r.accessed_ns, json(r.xattrs))"
)
_ROWS = (
    f"SELECT {ROW} AS entry FROM nodes n JOIN resources r ON r.id = n.resource_id"
    " WHERE n.parent_id = ? AND n.sort_name > ? ORDER BY n.sort_name LIMIT ?"
)
# Joined in SQL, 300 of them take 280 us instead of 340. With a limit they stay in order.
_JOINED_ROWS = f"SELECT group_concat(entry, ',') FROM ({_ROWS})"


def buckets(connection: sqlite3.Connection) -> list[Node]:
    """Every bucket, by name."""
    return list(_children(connection, 0))


def children(
    connection: sqlite3.Connection, bucket: str, prefix: str = "", after: str = ""
) -> Iterator[tuple[str, Node]]:
    """What `delimiter=/` shows: direct entries of the prefix's directory, a directory's key with
    its slash, behind the key `after`."""
    directory, _, stem = prefix.rpartition("/")
    base = f"{directory}/" if directory else ""
    parent, start = directory_id(connection, bucket, prefix), _shown_until(base, after)
    if parent is None or start is None:
        return
    for node in _children(connection, parent, start, stem):
        if not node.sort_name.startswith(stem):
            return
        yield base + node.sort_name, node


def rows(
    connection: sqlite3.Connection, bucket: str, prefix: str, after: str, limit: int
) -> list[str]:
    """As `children` of a prefix that is a whole directory: each as JSON (EXTENSIONS, Files-Rows),
    at most `limit` of them."""
    parent, start = directory_id(connection, bucket, prefix), _shown_until(prefix, after)
    if parent is None or start is None:
        return []
    return [row for (row,) in connection.execute(_ROWS, (parent, start, limit))]


def rows_of(connection: sqlite3.Connection, node_id: int, most: int) -> str | None:
    """As `rows`, of all that is in a directory, with commas; None if that is more than `most`."""
    inside = "SELECT count(*) FROM (SELECT 1 FROM nodes WHERE parent_id = ? LIMIT ?)"
    if connection.execute(inside, (node_id, most + 1)).fetchone()[0] > most:
        return None
    joined: str | None = connection.execute(_JOINED_ROWS, (node_id, "", most)).fetchone()[0]
    return joined or ""


def directory_id(connection: sqlite3.Connection, bucket: str, prefix: str) -> int | None:
    """The id of the directory that a prefix is in; None without one."""
    if prefix.startswith("/"):  # no key begins so
        return None
    return nodes.find_id(connection, nodes.sort_names(bucket, prefix.rpartition("/")[0]))


def _shown_until(base: str, after: str) -> str | None:
    """The last name of the directory `base` that was shown when the key `after` was; "" if none;
    None if all of them were."""
    if after.startswith(base):
        head, slash, _ = after[len(base) :].partition("/")
        return head + slash  # a key within a directory: that directory has been shown
    return None if after > base else ""


def walk(
    connection: sqlite3.Connection, bucket: str, prefix: str = "", after: str = ""
) -> Iterator[tuple[str, Node]]:
    """Everything below, depth first, directories ahead of their content."""
    directory, _, stem = prefix.rpartition("/")
    base = f"{directory}/" if directory else ""
    parent = nodes.find_id(connection, nodes.sort_names(bucket, directory))
    if parent is None or prefix.startswith("/"):
        return
    if after > base and not after.startswith(base):
        return
    start = after[len(base) :] if after.startswith(base) else ""
    stack = [(base, iter(_from(connection, parent, start, stem)), start)]
    while stack:
        here, rows, skip = stack[-1]
        node = next(rows, None)
        if node is None or (len(stack) == 1 and not node.sort_name.startswith(stem)):
            stack.pop()
            continue
        key = here + node.sort_name
        inside = skip[len(node.sort_name) :] if skip.startswith(node.sort_name) else ""
        if not inside and not (skip and node.sort_name == skip):
            yield key, node
        if node.is_directory:
            stack.append((key, iter(_from(connection, node.id, inside, "")), inside))


def _from(connection: sqlite3.Connection, parent: int, start: str, stem: str) -> Iterator[Node]:
    """Children from the one that `start` is or leads through."""
    head, slash, _ = start.partition("/")
    return _children(connection, parent, "", max(stem, head + slash))


def _children(
    connection: sqlite3.Connection, parent: int, after: str = "", first: str = ""
) -> Iterator[Node]:
    return map(Node._make, connection.execute(_CHILDREN, (parent, after, first)))

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
    parent = nodes.find_id(connection, nodes.sort_names(bucket, directory))
    if parent is None or prefix.startswith("/"):  # no key begins so
        return
    if after.startswith(base):
        after = after[len(base) :]
        head, slash, _ = after.partition("/")
        after = head + slash  # a key within a directory: that directory has been shown
    elif after > base:
        return
    else:
        after = ""
    for node in _children(connection, parent, after, stem):
        if not node.sort_name.startswith(stem):
            return
        yield base + node.sort_name, node


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

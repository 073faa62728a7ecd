"""Growing and pruning the tree: directories made on the way, names removed, parents stamped.

It must not know content or HTTP; every function runs inside the writer's transaction.
"""

from __future__ import annotations

import json
import secrets

from files_server.catalog import keeping, nodes
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import NO_KEEP, Keep
from files_server.catalog.nodes import Node
from files_server.catalog.schema import BUCKET, DIRECTORY, FILE
from files_server.errors import (
    ALIAS,
    IS_DIRECTORY,
    NOT_DIRECTORY,
    NOT_EMPTY,
    ApiError,
    not_found,
    shown,
)
from filesfs.wire import DIRECTORY as DIRECTORY_TYPE
from filesfs.wire import Operation

_INSERT_RESOURCE = (
    "INSERT INTO resources (rid, kind, etag, size, mime_type, modified_ns, changed_ns, accessed_ns,"
    " created_at, nlink, version_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_NODE = "INSERT INTO nodes (parent_id, sort_name, explicit, resource_id) VALUES (?, ?, ?, ?)"
_STAMP = (
    "UPDATE resources SET modified_ns = ?, changed_ns = ?"
    " WHERE id = (SELECT resource_id FROM nodes WHERE id = ?)"
)


def new_etag() -> str:
    """A strong entity tag: 128 random bits, so it is never used again, not even after a restore."""
    return f'"{secrets.token_hex(16)}"'


def record(
    tx: Transaction, operation: Operation, keys: list[tuple[str, str]], rid: str, etag: str
) -> int:
    """One event of the change feed, in this transaction; its number."""
    event = {
        "operation": operation.value,
        "keys": keys,
        "resource_id": rid,
        "etag": etag,
        "origin": tx.origin,
    }
    data = json.dumps(event, separators=(",", ":"))
    number = tx.run("INSERT INTO changes (at, data) VALUES (?, ?)", tx.now, data)
    tx.events.append((number, data))
    return number


def add(
    tx: Transaction,
    parent: int,
    sort_name: str,
    kind: int,
    mime_type: str,
    etag: str,
    *,
    size: int = 0,
    version: int | None = None,
    explicit: bool = True,
) -> int:
    """A fresh resource under a fresh name; the node's id."""
    now = tx.now_ns
    links = 1 if kind == FILE else 2
    resource = tx.run(
        _INSERT_RESOURCE, secrets.token_urlsafe(16), kind, etag, size, mime_type,
        now, now, now, tx.now, links, version,
    )  # fmt: skip
    if kind == DIRECTORY:
        count_directory(tx, parent, 1)
    return tx.run(_INSERT_NODE, parent, sort_name, int(explicit), resource)


def count_directory(tx: Transaction, parent: int, step: int) -> None:
    """A subdirectory came or went: each has a link to its parent, its ".."."""
    tx.run(
        "UPDATE resources SET nlink = nlink + ?"
        " WHERE id = (SELECT resource_id FROM nodes WHERE id = ?)",
        step, parent,
    )  # fmt: skip


def stamp(tx: Transaction, *node_ids: int) -> None:
    """What POSIX wants of a directory whose entries change: its times move on."""
    for node_id in node_ids:
        tx.run(_STAMP, tx.now_ns, tx.now_ns, node_id)


def make_bucket(tx: Transaction, bucket: str) -> tuple[int, bool]:
    """The bucket's node id, and whether it was made just now."""
    found = nodes.find_id(tx.connection, [bucket])
    if found is not None:
        return found, False
    if tx.one("SELECT 1 FROM registrations WHERE bucket = ? LIMIT 1", bucket):
        raise ApiError(409, f"{shown(bucket)} is a registered location by now.", reason=ALIAS)
    etag = new_etag()
    made = add(tx, 0, bucket, BUCKET, DIRECTORY_TYPE, etag)
    record(tx, Operation.BUCKET, [(bucket, "")], nodes.by_id(tx.connection, made).rid, etag)
    return made, True


def make_directories(tx: Transaction, bucket: str, directory: str) -> int:
    """The node id of a directory path in a bucket, each missing level made as an implied one.

    Raises ApiError 404 without the bucket, 409 where a file is in the way.
    """
    names = nodes.sort_names(bucket, directory)
    found = nodes.find_id(tx.connection, names)
    if found is not None:
        return found
    parent = nodes.find_id(tx.connection, [bucket])
    if parent is None:
        raise not_found(bucket)
    for position, name in enumerate(names[1:], 1):
        there = nodes.child(tx.connection, parent, name.removesuffix("/"))
        if there is None:
            stamp(tx, parent)
            parent = add(tx, parent, name, DIRECTORY, DIRECTORY_TYPE, new_etag(), explicit=False)
        elif there.is_directory:
            parent = there.id
        else:
            path = "/".join(n.removesuffix("/") for n in names[1 : position + 1])
            raise in_the_way(path)
    return parent


def in_the_way(path: str) -> ApiError:
    """409: a file is where the key needs a directory."""
    return ApiError(
        409, f"{shown(path)} is a file, so nothing can be below it.", reason=NOT_DIRECTORY
    )


def is_directory(key: str) -> ApiError:
    """409: a directory is where the key names a file."""
    return ApiError(409, f"{shown(key)} is a directory.", reason=IS_DIRECTORY)


def has_children(tx: Transaction, node_id: int) -> bool:
    return tx.one("SELECT 1 FROM nodes WHERE parent_id = ? LIMIT 1", node_id) is not None


def check_empty(tx: Transaction, node: Node, name: str) -> None:
    """Raises ApiError 409 where anything is below."""
    if has_children(tx, node.id):
        raise ApiError(409, f"{shown(name)} is not empty.", reason=NOT_EMPTY)


def unlink(
    tx: Transaction, node: Node, place: tuple[str, str], keep: Keep, *, replaced: bool = False
) -> None:
    """Remove one name, `place`, and the resource with its last one. The content is kept as `keep`
    says. The caller has checked that a directory is empty, and stamps its parent."""
    tx.run("DELETE FROM nodes WHERE id = ?", node.id)
    if node.kind == FILE and node.nlink > 1:
        tx.run(
            "UPDATE resources SET nlink = nlink - 1, changed_ns = ? WHERE id = ?",
            tx.now_ns, node.resource,
        )  # fmt: skip
        return
    if node.is_directory:
        count_directory(tx, node.parent_id, -1)
    tx.run("DELETE FROM resources WHERE id = ?", node.resource)
    keeping.let_go(tx, node, place, keep, replaced=replaced)


def settle_parent(tx: Transaction, parent: int, *, keep: bool) -> None:
    """After a name went from `parent`: stamp it, and let it go too if it was only implied.

    `keep` (Files-Keep-Parent) makes it explicit instead.
    """
    stamp(tx, parent)
    if keep:
        tx.run("UPDATE nodes SET explicit = 1 WHERE id = ?", parent)
        return
    while True:
        node = nodes.by_id(tx.connection, parent)
        if node.explicit or has_children(tx, parent):
            return
        unlink(tx, node, ("", ""), NO_KEEP)
        parent = node.parent_id
        stamp(tx, parent)

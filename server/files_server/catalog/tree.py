"""Growing and pruning the tree: directories made on the way, names removed, parents stamped.

It must not know content or HTTP; every function runs inside the writer's transaction.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from files_server.catalog import keeping, nodes
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import Keep
from files_server.catalog.nodes import Node, Place
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

NOTHING: Mapping[str, Any] = MappingProxyType({})
_RESOURCE = Node._fields.index("rid")  # from here on a node's fields are its resource's columns
_INSERT_RESOURCE = (
    f"INSERT INTO resources ({', '.join(Node._fields[_RESOURCE:])})"
    f" VALUES ({', '.join('?' * len(Node._fields[_RESOURCE:]))})"
)
_INSERT_NODE = "INSERT INTO nodes (parent_id, sort_name, explicit, resource_id) VALUES (?, ?, ?, ?)"
_STAMP = (
    "UPDATE resources SET modified_ns = ?, changed_ns = ?"
    " WHERE id = (SELECT resource_id FROM nodes WHERE id = ?)"
)
# A directory that is only implied and has nothing in it, and those above that have nothing else.
_BARE = (
    "WITH RECURSIVE bare(id, parent_id, resource_id) AS ("
    "SELECT n.id, n.parent_id, n.resource_id FROM nodes n WHERE n.id = ? AND n.explicit = 0"
    " AND NOT EXISTS (SELECT 1 FROM nodes c WHERE c.parent_id = n.id)"
    " UNION ALL SELECT p.id, p.parent_id, p.resource_id FROM bare b JOIN nodes p"
    " ON p.id = b.parent_id WHERE p.explicit = 0"
    " AND NOT EXISTS (SELECT 1 FROM nodes c WHERE c.parent_id = p.id AND c.id <> b.id)"
    ") SELECT id, parent_id, resource_id FROM bare"
)


def new_etag() -> str:
    """A strong entity tag: 128 random bits, so it is never used again, not even after a restore."""
    return f'"{secrets.token_hex(16)}"'


def record(
    tx: Transaction, operation: Operation, keys: list[tuple[str, str]], rid: str, etag: str
) -> int:
    """One event of the change feed, in this transaction; its number."""
    # No name, id or origin has a character that JSON escapes; of an ETag they are its quotes.
    pairs = ",".join([f'["{bucket}","{key}"]' for bucket, key in keys])
    data = (
        f'{{"operation":"{operation.value}","keys":[{pairs}],"resource_id":"{rid}",'
        f'"etag":"\\"{etag[1:-1]}\\"","origin":"{tx.origin}"}}'
    )
    number = tx.run("INSERT INTO changes (at, data) VALUES (?, ?)", tx.now, data)
    tx.events.append((number, data))
    return number


def repeated(tx: Transaction, operation: Operation, keys: list[tuple[str, str]], since: int) -> int:
    """The number of this very change, if this client has made it after change `since`; else 0."""
    if not tx.origin:
        return 0
    for number, data in tx.all(
        "SELECT number, data FROM changes WHERE number > ? AND instr(data, ?)",
        since, f'"origin":"{tx.origin}"',
    ):  # fmt: skip
        event = json.loads(data)
        made = [(bucket, key.rstrip("/")) for bucket, key in event["keys"][: len(keys)]]
        wanted = [(bucket, key.rstrip("/")) for bucket, key in keys]
        if event["operation"] == operation.value and made == wanted:
            tx.repeats = int(number)
            return tx.repeats
    return 0


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
    given: Mapping[str, Any] = NOTHING,
) -> Node:
    """A fresh resource under a fresh name. `given`: columns that are not to have their default."""
    now = tx.now_ns
    node = Node(
        id=0, parent_id=parent, sort_name=sort_name, explicit=1, resource=0,
        rid=secrets.token_urlsafe(16), kind=kind, etag=etag, size=size, mime_type=mime_type,
        mode=None, uid=None, gid=None, modified_ns=now, changed_ns=now, accessed_ns=now,
        created_at=tx.now, xattrs=None, nlink=1 if kind == FILE else 2, version_id=version,
    )  # fmt: skip
    if given:
        node = node._replace(**given)
    resource = tx.run(_INSERT_RESOURCE, *node[_RESOURCE:])
    if kind == DIRECTORY:
        count_directory(tx, parent, 1)
    node_id = tx.run(_INSERT_NODE, parent, sort_name, node.explicit, resource)
    return node._replace(id=node_id, resource=resource)


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


def stamp_resource(tx: Transaction, resource: int) -> None:
    """The same, where the directory's resource is known."""
    tx.run(
        "UPDATE resources SET modified_ns = ?, changed_ns = ? WHERE id = ?",
        tx.now_ns, tx.now_ns, resource,
    )  # fmt: skip


def make_bucket(tx: Transaction, bucket: str) -> tuple[int, bool]:
    """The bucket's node id, and whether it was made just now."""
    found = nodes.find_id(tx.connection, [bucket])
    if found is not None:
        return found, False
    if tx.one("SELECT 1 FROM registrations WHERE bucket = ? LIMIT 1", bucket):
        raise ApiError(409, f"{shown(bucket)} is a registered location by now.", reason=ALIAS)
    etag = new_etag()
    made = add(tx, 0, bucket, BUCKET, DIRECTORY_TYPE, etag)
    record(tx, Operation.BUCKET, [(bucket, "")], made.rid, etag)
    return made.id, True


def make_directories(tx: Transaction, bucket: str, directory: str) -> int:
    """The node id of a directory path in a bucket, each missing level made as an implied one.

    Raises ApiError 404 without the bucket, 409 where a file is in the way.
    """
    names = nodes.sort_names(bucket, directory)
    parent, found = nodes.descend(tx.connection, names)
    if not found:
        raise not_found(bucket)
    if found == len(names):
        return parent
    check_free(tx, parent, names, found)
    return _grow(tx, parent, names[found:])


def check_free(tx: Transaction, parent: int, names: list[str], found: int) -> None:
    """Raises ApiError 409 where a file stands in the first place of `names` that is no directory
    yet; `found` of them are, `parent` is the last."""
    if nodes.child(tx.connection, parent, names[found].removesuffix("/")):
        raise in_the_way("/".join(name.removesuffix("/") for name in names[1 : found + 1]))


def _grow(tx: Transaction, parent: int, names: list[str]) -> int:
    """Implied directories, each in the one before, all of them new; the last one's node id.

    In few statements: a key may have thousands of levels, and everybody waits for the writer.
    """
    stamp(tx, parent)
    count_directory(tx, parent, 1)
    resource, node = (
        _first_free(tx, f"SELECT max(id) FROM {table}") for table in ("resources", "nodes")
    )
    last, now = len(names) - 1, tx.now_ns
    tx.connection.executemany(
        "INSERT INTO resources (id, rid, kind, etag, size, mime_type, modified_ns, changed_ns,"
        " accessed_ns, created_at, nlink) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
        (
            (
                resource + i, secrets.token_urlsafe(16), DIRECTORY, new_etag(), DIRECTORY_TYPE,
                now, now, now, tx.now, 2 if i == last else 3,
            )
            for i in range(len(names))
        ),
    )  # fmt: skip
    tx.connection.executemany(
        "INSERT INTO nodes (id, parent_id, sort_name, explicit, resource_id)"
        " VALUES (?, ?, ?, 0, ?)",
        (
            (node + i, parent if i == 0 else node + i - 1, name, resource + i)
            for i, name in enumerate(names)
        ),
    )
    return node + last


def _first_free(tx: Transaction, newest: str) -> int:
    """The id that SQLite would give to the next row."""
    row = tx.one(newest)
    return int(row[0] or 0) + 1 if row else 1


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
        if replaced:  # the event to come is of what replaces it
            tell_links(tx, node)
        return
    if node.is_directory:
        count_directory(tx, node.parent_id, -1)
    tx.run("DELETE FROM resources WHERE id = ?", node.resource)
    keeping.let_go(tx, node, place, keep, replaced=replaced)


def tell_links(tx: Transaction, node: Node) -> None:
    """An event of its own about all names that a file has, where another one does not tell."""
    keys = nodes.names_of(tx.connection, node.resource)
    record(tx, Operation.ATTRIBUTES, keys, node.rid, node.etag)


def settle_parent(tx: Transaction, place: Place, *, keep: bool) -> None:
    """After the name at `place` went: stamp its directory, and let that go too if it was only
    implied. `keep` (Files-Keep-Parent) makes it explicit instead."""
    stamp_resource(tx, place.parent_resource)
    if place.parent_explicit:
        return
    parent = place.parent
    if keep:
        tx.run("UPDATE nodes SET explicit = 1 WHERE id = ?", parent)
        return
    gone = tx.all(_BARE, parent)
    if not gone:
        return
    tx.connection.executemany("DELETE FROM nodes WHERE id = ?", ((row[0],) for row in gone))
    tx.connection.executemany("DELETE FROM resources WHERE id = ?", ((row[2],) for row in gone))
    left = gone[-1][1]
    count_directory(tx, left, -1)
    stamp(tx, left)

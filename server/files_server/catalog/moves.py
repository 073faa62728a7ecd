"""Changing names: MOVE, exchange, BIND and DELETE, each in one transaction.

It must not know content; a resource keeps its identity, ETag and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from files_server.catalog import nodes, tree
from files_server.catalog.commits import NO_CONDITIONS, Conditions, Outcome
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import NO_KEEP, Keep
from files_server.catalog.nodes import Node
from files_server.errors import EXISTS, ApiError, not_found, shown
from files_server.names import KEY_BYTES
from filesfs.wire import Operation

Place = tuple[str, str]  # bucket, key
_DEEP = 1024  # below such a prefix nobody comes near the key limit by accident


@dataclass(frozen=True, slots=True)
class Move:
    source: Place
    destination: Place
    overwrite: bool = True
    exchange: bool = False
    keep_parent: bool = False
    keep: Keep = NO_KEEP
    conditions: Conditions = NO_CONDITIONS


def must_find(tx: Transaction, place: Place) -> Node:
    """What is at a key, "dir/" for a directory. ApiError 404, also for a directory without "/"."""
    return _found(tx, place, nodes.find(tx.connection, *place))


def _must_be_at(tx: Transaction, place: Place) -> tuple[nodes.Place, Node]:
    """The same, with the directory that holds it."""
    at = nodes.place(tx.connection, *place)
    node = _found(tx, place, at.node if at else None)
    assert at is not None, "what is found is somewhere"
    return at, node


def _found(tx: Transaction, place: Place, node: Node | None) -> Node:
    bucket, key = place
    if node is None and key and nodes.find_id(tx.connection, [bucket]) is None:
        raise not_found(bucket)
    if node is None or (node.is_directory and not key.endswith("/")):
        raise not_found(bucket, key)
    return node


def move(tx: Transaction, wanted: Move) -> Outcome:
    """Rename. ApiError 400, 404, 409, 412."""
    origin, source = _must_be_at(tx, wanted.source)
    wanted.conditions.check(source, wanted.source[1])
    bucket, key = wanted.destination
    if not wanted.exchange:
        bucket, key = _place_for(source, wanted.destination)
    there = _there(tx, wanted.source, origin, (bucket, key))
    if there is None and nodes.find_id(tx.connection, [bucket]) is None:
        raise not_found(bucket)
    target = there.node if there else None
    if source.is_directory:
        _check_not_below(wanted.source, (bucket, key))
    if wanted.exchange:
        return _exchange(tx, wanted, source, target)
    if target:
        if not wanted.overwrite:
            raise ApiError(412, f"{shown(key)} exists, and Overwrite is F.")
        if target.resource == source.resource:  # itself, or another hard link of it: rename(2)
            return Outcome(bucket, key, target, 0)
        _make_room(tx, source, target, (bucket, key), wanted.keep)
    directory, name = nodes.split_key(key)
    parent = there.parent if there else tree.make_directories(tx, bucket, directory)
    _check_depth(tx, source, key)
    tx.run("UPDATE nodes SET parent_id = ?, sort_name = ? WHERE id = ?", parent, name, source.id)
    if parent == source.parent_id:
        tree.stamp_resource(tx, origin.parent_resource)
    else:
        tree.stamp(tx, parent)
        _count(tx, source, parent)
        tree.settle_parent(tx, origin, keep=wanted.keep_parent)
    moved = source._replace(parent_id=parent, sort_name=name)
    return _moved(tx, Operation.MOVE, moved, wanted.source, (bucket, key))


def _there(tx: Transaction, source: Place, origin: nodes.Place, to: Place) -> nodes.Place | None:
    """Where the destination is or would be; mostly in the directory that holds the source."""
    directory, name = nodes.split_key(to[1].removesuffix("/"))
    if (to[0], directory) == (source[0], nodes.split_key(source[1])[0]):
        return origin._replace(node=nodes.child(tx.connection, origin.parent, name))
    return nodes.place(tx.connection, to[0], to[1].removesuffix("/"))


def bind(tx: Transaction, source_place: Place, destination: Place) -> Outcome:
    """A hard link: one more name for a file. ApiError 404, 409."""
    source = must_find(tx, source_place)
    bucket, key = destination
    if source.is_directory or key.endswith("/"):
        raise tree.is_directory(source_place[1] if source.is_directory else key)
    if nodes.find_id(tx.connection, [bucket]) is None:
        raise not_found(bucket)
    if nodes.find(tx.connection, bucket, key):
        raise ApiError(409, f"{shown(key)} exists already.", reason=EXISTS)
    directory, name = nodes.split_key(key)
    parent = tree.make_directories(tx, bucket, directory)
    node_id = tx.run(
        "INSERT INTO nodes (parent_id, sort_name, explicit, resource_id) VALUES (?, ?, 1, ?)",
        parent, name, source.resource,
    )  # fmt: skip
    tx.run(
        "UPDATE resources SET nlink = nlink + 1, changed_ns = ? WHERE id = ?",
        tx.now_ns, source.resource,
    )  # fmt: skip
    tree.stamp(tx, parent)
    keys = [source_place, destination]
    number = tree.record(tx, Operation.BIND, keys, source.rid, source.etag)
    return Outcome(bucket, key, nodes.by_id(tx.connection, node_id), number)


def delete(
    tx: Transaction, place: Place, *, keep_parent: bool, keep: Keep, conditions: Conditions
) -> int:
    """Remove a file's name or an empty directory; the change's number. ApiError 404, 409, 412."""
    at, node = _must_be_at(tx, place)
    conditions.check(node, place[1])
    if node.is_directory:
        tree.check_empty(tx, node, place[1])
    tree.unlink(tx, node, place, keep)
    tree.settle_parent(tx, at, keep=keep_parent)
    return tree.record(tx, Operation.DELETE, [place], node.rid, node.etag)


def delete_bucket(tx: Transaction, bucket: str) -> int:
    """Remove an empty bucket; the change's number. ApiError 404, 409."""
    node = nodes.find(tx.connection, bucket)
    if node is None:
        raise not_found(bucket)
    tree.check_empty(tx, node, bucket)
    tree.unlink(tx, node, (bucket, ""), NO_KEEP)
    return tree.record(tx, Operation.BUCKET, [(bucket, "")], node.rid, node.etag)


def _place_for(source: Node, destination: Place) -> Place:
    bucket, key = destination
    if source.is_directory:
        return bucket, key if key.endswith("/") else key + "/"
    if key.endswith("/"):
        raise ApiError(400, f"A file cannot be moved to {shown(key)}: that names a directory.")
    return destination


def _check_not_below(source: Place, destination: Place) -> None:
    if source[0] == destination[0] and destination[1].startswith(source[1]):
        if destination[1] == source[1]:
            return
        raise ApiError(
            400, f"The directory {shown(source[1])} cannot be moved into itself: {destination[1]!r}"
        )


def _make_room(tx: Transaction, source: Node, target: Node, place: Place, keep: Keep) -> None:
    key = place[1]
    if source.is_directory and not target.is_directory:
        raise tree.in_the_way(key.removesuffix("/"))
    if target.is_directory and not source.is_directory:
        raise tree.is_directory(key)
    if target.is_directory:
        tree.check_empty(tx, target, key)
    tree.unlink(tx, target, place, keep, replaced=True)


def _exchange(tx: Transaction, wanted: Move, source: Node, target: Node | None) -> Outcome:
    bucket, key = wanted.destination
    if target is None:
        raise not_found(bucket, key)
    if target.resource == source.resource:
        return Outcome(bucket, key, target, 0)
    if target.is_directory:
        key = key.removesuffix("/") + "/"
        _check_not_below((bucket, key), wanted.source)
    bare_source, bare_target = source.sort_name.rstrip("/"), target.sort_name.rstrip("/")
    to_target = bare_target + ("/" if source.is_directory else "")
    to_source = bare_source + ("/" if target.is_directory else "")
    rename = "UPDATE nodes SET parent_id = ?, sort_name = ? WHERE id = ?"
    tx.run(rename, -1, source.sort_name, source.id)  # out of the way of the unique index
    tx.run(rename, source.parent_id, to_source, target.id)
    tx.run(rename, target.parent_id, to_target, source.id)
    tree.stamp(tx, source.parent_id, target.parent_id)
    _count(tx, source, target.parent_id)
    _count(tx, target, source.parent_id)
    tx.run("UPDATE resources SET changed_ns = ? WHERE id = ?", tx.now_ns, target.resource)
    if target.nlink > 1 and not target.is_directory:
        tree.tell_links(tx, target)
    place = (bucket, key.removesuffix("/") + ("/" if source.is_directory else ""))
    old = wanted.source[1].removesuffix("/")
    back = (wanted.source[0], old + ("/" if target.is_directory else ""))
    moved = source._replace(parent_id=target.parent_id, sort_name=to_target)
    return _moved(tx, Operation.EXCHANGE, moved, wanted.source, place, back, (bucket, key))


def _count(tx: Transaction, node: Node, parent: int) -> None:
    """The link counts of both parents, when a directory goes to another one."""
    if node.is_directory:
        tree.count_directory(tx, node.parent_id, -1)
        tree.count_directory(tx, parent, 1)


def _moved(
    tx: Transaction, operation: Operation, source: Node, old: Place, new: Place, *others: Place
) -> Outcome:
    tx.run("UPDATE resources SET changed_ns = ? WHERE id = ?", tx.now_ns, source.resource)
    keys = list(dict.fromkeys([old, new, *others]))
    number = tree.record(tx, operation, keys, source.rid, source.etag)
    return Outcome(new[0], new[1], source._replace(changed_ns=tx.now_ns), number)


def _check_depth(tx: Transaction, source: Node, key: str) -> None:
    """No key below a moved directory may come to be longer than the contract allows."""
    if not source.is_directory or len(key) < _DEEP:
        return
    row = tx.one(
        "WITH RECURSIVE below(id, length) AS (SELECT CAST(? AS INTEGER), 0 UNION ALL"
        " SELECT n.id, b.length + length(n.sort_name) FROM nodes n JOIN below b"
        " ON n.parent_id = b.id) SELECT max(length) FROM below",
        source.id,
    )
    if row and len(key) + row[0] > KEY_BYTES:
        raise ApiError(400, f"Below {shown(key)} a key would be longer than {KEY_BYTES} bytes.")

"""Committing content: an atomic replace of what a key, or a resource, holds.

It must not touch blobs: the bytes are on disk before the transaction begins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from files_server.catalog import attributes, keeping, nodes, tree
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import NO_KEEP, Keep
from files_server.catalog.nodes import Node, Place
from files_server.catalog.schema import FILE
from files_server.errors import EXISTS, ApiError, shown
from files_server.ranges import matches
from filesfs.wire import SPECIAL_TYPES, AttributesPatch, Operation


@dataclass(frozen=True, slots=True)
class Conditions:
    """If-Match and If-None-Match as they came; "" for none."""

    if_match: str = ""
    if_none_match: str = ""

    def check(self, node: Node | None, key: str) -> None:
        """Raises ApiError 412 where `node` (None: nothing there) does not meet them."""
        self.check_etag(node.etag if node else None, key)

    def check_etag(self, etag: str | None, key: str) -> None:
        """The same of an ETag alone; None: nothing there."""
        if self.if_match and not matches(self.if_match, etag):
            raise ApiError(
                412, f"{shown(key)} is at version {etag}, not at {self.if_match} (If-Match)."
            )
        if self.if_none_match and matches(self.if_none_match, etag):
            raise ApiError(412, f"{shown(key)} is there already, at {etag} (If-None-Match).")


NO_CONDITIONS = Conditions()


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that are on disk (`blob`) or come along (`data`)."""

    size: int
    crc32c: bytes  # 4 bytes, big-endian, for each MiB
    data: bytes | None = None
    blob: str | None = None
    blocks: bytes | None = None  # where in the blob each MiB is; None: in order


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit is to do. `resource_id` "": whatever the key has."""

    bucket: str
    key: str
    mime_type: str
    content: Content
    conditions: Conditions = NO_CONDITIONS
    attributes: AttributesPatch | None = None
    resource_id: str = ""
    keep: Keep = NO_KEEP


@dataclass(frozen=True, slots=True)
class Outcome:
    """A changed entry under its name, and the number of the change."""

    bucket: str
    key: str
    node: Node
    number: int


def commit(tx: Transaction, wanted: Commit) -> Outcome:
    """Put content under its name in one step. Raises ApiError 409, 410, 412."""
    if wanted.resource_id:
        return _replace_resource(tx, wanted)
    place = nodes.place(tx.connection, wanted.bucket, wanted.key)
    existing = place.node if place else None
    if existing and existing.is_directory:
        raise tree.is_directory(wanted.key)
    wanted.conditions.check(existing, wanted.key)
    own = (wanted.bucket, wanted.key)
    if existing and _is_special(existing.mime_type) != _is_special(wanted.mime_type):
        tree.unlink(tx, existing, own, wanted.keep, replaced=True)  # what it is never changes
        existing = None
    if existing:
        return _finish(tx, _replace(tx, existing, own, wanted), wanted)
    return _finish(tx, _create(tx, place, wanted), wanted)


def check_place(tx: Transaction, bucket: str, key: str, conditions: Conditions) -> None:
    """What op 1 checks ahead of the commit: that the key can hold a file, and the conditions."""
    existing = nodes.find(tx.connection, bucket, key)
    if existing and existing.is_directory:
        raise tree.is_directory(key)
    conditions.check(existing, key)
    if existing is None:
        check_parents(tx, bucket, key)


def check_parents(tx: Transaction, bucket: str, key: str) -> None:
    """Raises ApiError 409 where a file stands in a directory's place."""
    names = nodes.sort_names(bucket, nodes.split_key(key)[0])
    parent, found = nodes.descend(tx.connection, names)
    if 0 < found < len(names):
        tree.check_free(tx, parent, names, found)


def _is_special(mime_type: str) -> str:
    return mime_type if mime_type in SPECIAL_TYPES else ""


def _create(tx: Transaction, place: Place | None, wanted: Commit) -> Node:
    given = _given(wanted, None)  # first: what it refuses spoils no batch
    directory, name = nodes.split_key(wanted.key)
    if place is None:
        tree.make_bucket(tx, wanted.bucket)
        parent = tree.make_directories(tx, wanted.bucket, directory)
        tree.stamp(tx, parent)
    else:
        parent = place.parent
        tree.stamp_resource(tx, place.parent_resource)
    etag, version = _insert_version(tx, wanted, tx.now_ns)
    return tree.add(
        tx, parent, name, FILE, wanted.mime_type, etag, size=wanted.content.size,
        version=version, given=given,
    )  # fmt: skip


def _replace(tx: Transaction, existing: Node, place: tuple[str, str], wanted: Commit) -> Node:
    given = _given(wanted, existing.xattrs)
    etag, version = _insert_version(tx, wanted, tx.now_ns)
    values: dict[str, Any] = {
        "etag": etag,
        "size": wanted.content.size,
        "mime_type": wanted.mime_type,
        "modified_ns": tx.now_ns,
        "changed_ns": tx.now_ns,
        "created_at": tx.now,
        "version_id": version,
        **given,
    }
    assignments = ", ".join(f"{name} = ?" for name in values)
    tx.run(f"UPDATE resources SET {assignments} WHERE id = ?", *values.values(), existing.resource)
    keeping.let_go(tx, existing, place, wanted.keep, replaced=True)
    return existing._replace(**values)


def _given(wanted: Commit, xattrs: str | None) -> Mapping[str, Any]:
    """By column what the attributes that come with the content say."""
    if wanted.attributes is None:
        return tree.NOTHING
    return attributes.changes(wanted.mime_type, xattrs, wanted.attributes)


def _replace_resource(tx: Transaction, wanted: Commit) -> Outcome:
    row = tx.one("SELECT id, kind FROM resources WHERE rid = ?", wanted.resource_id)
    names = tx.all("SELECT id FROM nodes WHERE resource_id = ? ORDER BY id", row[0]) if row else []
    if row is None or row[1] != FILE or not names:
        raise ApiError(410, f"The resource {shown(wanted.resource_id)} has no name left.")
    places = [nodes.path_of(tx.connection, name[0]) for name in names]
    at = (wanted.bucket, wanted.key)
    chosen = places.index(at) if at in places else 0
    if places[chosen][0] != wanted.bucket:  # the rights were checked for the bucket asked for
        raise ApiError(410, f"The resource {shown(wanted.resource_id)} left {wanted.bucket!r}.")
    node = nodes.by_id(tx.connection, names[chosen][0])
    wanted.conditions.check(node, places[chosen][1])
    return _finish(tx, _replace(tx, node, places[chosen], wanted), wanted)


def _insert_version(tx: Transaction, wanted: Commit, modified_ns: int) -> tuple[str, int]:
    etag, content = tree.new_etag(), wanted.content
    version = tx.run(
        "INSERT INTO versions (etag, bucket, size, mime_type, modified_ns, blob, crc32c, blocks)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        etag, wanted.bucket, content.size, wanted.mime_type, modified_ns, content.blob,
        content.crc32c, content.blocks,
    )  # fmt: skip
    if content.blob is None:
        tx.run("INSERT INTO contents (version_id, data) VALUES (?, ?)", version, content.data)
    return etag, version


def _finish(tx: Transaction, node: Node, wanted: Commit) -> Outcome:
    keys = (
        names_of(tx, node)
        if node.nlink > 1 or wanted.resource_id
        else [(wanted.bucket, wanted.key)]
    )
    number = tree.record(tx, Operation.COMMIT, keys, node.rid, node.etag)
    own = (wanted.bucket, wanted.key)
    bucket, key = own if own in keys else keys[0]
    return Outcome(bucket, key, node, number)


def names_of(tx: Transaction, node: Node) -> list[tuple[str, str]]:
    """Every (bucket, key) of a node's resource."""
    return nodes.names_of(tx.connection, node.resource)


def make_directory(
    tx: Transaction, bucket: str, key: str, conditions: Conditions, patch: AttributesPatch | None
) -> Outcome:
    """A directory marker "dir/". Again is a no-op, unless If-None-Match forbids it."""
    existing = nodes.find(tx.connection, bucket, key.removesuffix("/"))
    if existing and not existing.is_directory:
        raise ApiError(409, f"{shown(key[:-1])} is a file already.", reason=EXISTS)
    conditions.check(existing, key)
    if existing and existing.explicit and patch is None:
        return Outcome(bucket, key, existing, 0)
    tree.make_bucket(tx, bucket)
    if existing is None:
        tree.stamp(tx, tree.make_directories(tx, bucket, nodes.split_key(key)[0]))
    node_id = tree.make_directories(tx, bucket, key.removesuffix("/"))
    tx.run("UPDATE nodes SET explicit = 1 WHERE id = ?", node_id)
    node = nodes.by_id(tx.connection, node_id)
    if patch is not None:
        node = attributes.apply(tx, node, patch)
    number = tree.record(tx, Operation.COMMIT, [(bucket, key)], node.rid, node.etag)
    return Outcome(bucket, key, node, number)


def dumped(patch: AttributesPatch | None) -> str:
    """Attributes as JSON for a session's row; only what was given."""
    return json.dumps(patch.model_dump(exclude_unset=True)) if patch else ""

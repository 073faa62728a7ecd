"""Versions that lose their name: how long they are kept, and what is noted for `undelete`.

It must not change names or resources. A version that nothing names any more has an `expires_at`;
what can be undeleted has a row in `deleted` besides, which goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from files_server.catalog.database import Transaction
from files_server.catalog.nodes import Node
from files_server.settings import Settings

# What a full disk takes back of the kept versions in one go: the oldest, until they hold so much.
_ROOM = 1 << 30
_LITTLE = 1 << 20  # and when only the catalog has no room
_WORTH = 1 << 18  # bytes, but for a removal
_FEW = 128  # versions, so that it takes little of the log
_STEP = 250  # versions that expire in one go; some milliseconds, in which nobody else writes


@dataclass(frozen=True, slots=True)
class Keep:
    """Seconds for which a version stays readable by `version=` (`superseded`) and can be undeleted
    (`deleted`, 0: not at all), and the name of the token on whose account it goes."""

    superseded: int = 0
    deleted: int = 0
    by: str = ""


NO_KEEP = Keep()


def asked_for(settings: Settings, by: str) -> Keep:
    """As the operator wants it, for what the token `by` does."""
    return Keep(settings.superseded_seconds, settings.keep_deleted, by)


def let_go(
    tx: Transaction, node: Node, place: tuple[str, str], keep: Keep, *, replaced: bool
) -> None:
    """The version of `node` is no longer current. `place`: its bucket and key."""
    version, seconds = node.version_id, keep.superseded
    if version is None:
        return
    if keep.deleted > 0 and (node.size or not replaced):  # O_EXCL begins with an empty version
        _note(tx, node, place, keep, replaced=replaced)
        seconds = max(seconds, keep.deleted)
    if seconds <= 0:
        drop_version(tx, version)
        return
    tx.run(
        "UPDATE versions SET expires_at = ?, bucket = ? WHERE id = ?",
        tx.now + seconds, place[0], version,
    )  # fmt: skip


def drop_version(tx: Transaction, version: int) -> None:
    """Forget a version; its blob goes once this transaction is committed."""
    row = tx.one("SELECT blob FROM versions WHERE id = ?", version)
    tx.run("DELETE FROM versions WHERE id = ?", version)
    tx.run("DELETE FROM deleted WHERE version_id = ?", version)
    if row and row[0]:
        tx.garbage.append(row[0])
    else:
        tx.run("DELETE FROM contents WHERE version_id = ?", version)


def expire(tx: Transaction) -> bool:
    """Drop some of what has been kept long enough; whether there may be more of it."""
    rows = tx.all(
        "SELECT id FROM versions WHERE expires_at IS NOT NULL AND expires_at < ? LIMIT ?",
        tx.now, _STEP,
    )  # fmt: skip
    for row in rows:
        drop_version(tx, row[0])
    return len(rows) == _STEP


def make_room(tx: Transaction) -> bool:
    """On a full disk: give up what is only there for readers of old versions, else the oldest of
    what could be undeleted. Whether there was any blob to give up."""
    rows = tx.all(
        "SELECT v.id, v.blob FROM versions v LEFT JOIN deleted d ON d.version_id = v.id"
        " WHERE v.expires_at IS NOT NULL AND d.version_id IS NULL"
    )
    if not any(row[1] for row in rows):
        rows += _oldest(tx)
    for row in rows:
        drop_version(tx, row[0])
    return any(row[1] for row in rows)


def give_up(tx: Transaction, least: int = _WORTH) -> bool:
    """When the catalog has no room: give up some of what is kept in it, whatever is to go first
    anyway. Whether there was any, of `least` bytes."""
    rows = tx.all(
        "SELECT id, size FROM versions WHERE expires_at IS NOT NULL AND blob IS NULL"
        " ORDER BY expires_at LIMIT ?",
        _FEW,
    )
    if sum(row[1] for row in rows) < least:
        return False
    size = 0
    for version, length in rows:
        drop_version(tx, version)
        size += length
        if size >= _LITTLE:
            break
    return bool(rows)


def _oldest(tx: Transaction) -> list[tuple[int, str]]:
    rows = tx.connection.execute(
        "SELECT v.id, v.blob, v.size FROM versions v JOIN deleted d ON d.version_id = v.id"
        " WHERE v.blob IS NOT NULL AND v.expires_at IS NOT NULL ORDER BY v.expires_at"
    )
    found, size = [], 0
    for version, blob, length in rows:
        found.append((version, blob))
        size += length
        if size >= _ROOM:
            break
    return found


def _note(
    tx: Transaction, node: Node, place: tuple[str, str], keep: Keep, *, replaced: bool
) -> None:
    tx.run(
        "INSERT OR REPLACE INTO deleted (version_id, bucket, key, deleted_at, replaced, deleted_by,"
        " mime_type, mode, uid, gid, modified_ns, accessed_ns, xattrs)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        node.version_id, *place, tx.now, int(replaced), keep.by, node.mime_type, node.mode,
        node.uid, node.gid, node.modified_ns, node.accessed_ns, node.xattrs,
    )  # fmt: skip

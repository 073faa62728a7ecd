"""Upload sessions as rows: what was asked for, how far it is, what came of it.

It must not hold bytes or open files.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from files_server.catalog import commits
from files_server.catalog.commits import Commit, Conditions, Content, Outcome
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import Keep
from files_server.catalog.nodes import Node
from files_server.errors import ApiError, shown
from filesfs.wire import AttributesPatch

OPEN, COMPLETE, CANCELLED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Wish:
    """What op 1 asks for. `base` is the ETag whose bytes `Files-Copy-Base` may take."""

    bucket: str
    key: str
    mime_type: str
    conditions: Conditions
    attributes: AttributesPatch | None = None
    resource_id: str = ""
    base: str = ""
    owner: str = ""  # the name of the token that made it

    def commit(self, content: Content, keep: Keep) -> Commit:
        """The commit of this wish with its bytes."""
        return Commit(
            self.bucket, self.key, self.mime_type, content, self.conditions,
            self.attributes, self.resource_id, keep,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """`size` None: not yet known. `last_offset`: where the part that completed it began. `answer`:
    of a complete one its outcome, of an open one a mark or None. `blocks`, `crc32c`: where in the
    blob that it shares the bytes up to `offset` are, and their sums; None: it shares none."""

    id: str
    wish: Wish
    size: int | None
    offset: int
    state: int
    last_offset: int
    answer: str | None
    blocks: bytes | None = None
    crc32c: bytes | None = None

    @property
    def outcome(self) -> Outcome:
        """What the session's commit brought; only of a complete one."""
        bucket, key, number, node = json.loads(self.answer or "")
        return Outcome(bucket, key, Node._make(node), number)


def insert(tx: Transaction, session: Session) -> None:
    """Remember a new session."""
    tx.run(
        "INSERT INTO sessions (id, request, size, offset, state, last_offset, touched_at, blocks,"
        " crc32c) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        session.id, _dump(session.wish), session.size, session.offset, OPEN, 0, tx.now,
        session.blocks, session.crc32c,
    )  # fmt: skip


def is_repeated(tx: Transaction, session: Session) -> bool:
    """Whether this session was made before. ApiError 409 when that one is for something else."""
    row = tx.one("SELECT request, size FROM sessions WHERE id = ?", session.id)
    if row is None:
        return False
    known_size = session.size is None or row[1] == session.size
    if row[0] != _dump(session.wish) or not known_size:
        raise ApiError(409, "This Idempotency-Key was given for another upload; use a new one.")
    return True


def exists(connection: sqlite3.Connection, session_id: str) -> bool:
    """Whether a session of this id is known, in whatever state."""
    found = connection.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,))
    return found.fetchone() is not None


def find(connection: sqlite3.Connection, session_id: str) -> Session:
    """The session. Raises ApiError 404, or 410 for a cancelled one."""
    row = connection.execute(
        "SELECT id, request, size, offset, state, last_offset, answer, blocks, crc32c"
        " FROM sessions WHERE id = ?",
        (session_id,),
    ).fetchone()
    if row is None:
        raise ApiError(404, f"There is no upload session {shown(session_id)}; it may have expired.")
    if row[4] == CANCELLED:
        raise ApiError(410, f"The upload session {shown(session_id)} was cancelled.")
    return Session(row[0], _load(row[1]), *row[2:])


def advance(
    tx: Transaction,
    session_id: str,
    offset: int,
    size: int | None = None,
    blocks: bytes | None = None,
    crc32c: bytes | None = None,
) -> None:
    """Record bytes that are on disk by now, and where; and the whole length once it is known."""
    tx.run(
        "UPDATE sessions SET offset = ?, size = coalesce(size, ?), blocks = ?, crc32c = ?,"
        " touched_at = ? WHERE id = ? AND state = ?",
        offset, size, blocks, crc32c, tx.now, session_id, OPEN,
    )  # fmt: skip


def complete(
    tx: Transaction, session: Session, content: Content, last_offset: int, keep: Keep
) -> Outcome:
    """Commit and remember it, in one transaction. ApiError 409, 410, 412."""
    now = find(tx.connection, session.id)
    if now.state == COMPLETE:
        tx.repeats = now.outcome.number
        return now.outcome
    outcome = commits.commit(tx, session.wish.commit(content, keep))
    finish(tx, session.id, outcome, last_offset)
    return outcome


def finish(tx: Transaction, session_id: str, outcome: Outcome, last_offset: int) -> None:
    """Remember what a session's commit brought."""
    answer = json.dumps([outcome.bucket, outcome.key, outcome.number, outcome.node])
    tx.run(
        "UPDATE sessions SET state = ?, size = ?, offset = ?, last_offset = ?, answer = ?,"
        " touched_at = ?, blocks = NULL, crc32c = NULL WHERE id = ?",
        COMPLETE, outcome.node.size, outcome.node.size, last_offset, answer, tx.now, session_id,
    )  # fmt: skip


def mark(tx: Transaction, session_id: str, text: str) -> None:
    """Ahead of a commit that is not the catalog's: by what it is known, should nobody hear of it.
    It stands in for the answer until there is one."""
    tx.run("UPDATE sessions SET answer = ? WHERE id = ? AND state = ?", text, session_id, OPEN)


def cancel(tx: Transaction, session_id: str) -> None:
    """The session stays for 410; a file that it has committed stays too. ApiError 404, 410."""
    find(tx.connection, session_id)
    tx.run(
        "UPDATE sessions SET state = ?, touched_at = ? WHERE id = ?",
        CANCELLED, tx.now, session_id,
    )  # fmt: skip


def collect(
    tx: Transaction, idle_seconds: int, completed_seconds: int, busy: list[str]
) -> list[str]:
    """Forget what nobody asked for in a while, but what is `busy`; the ids of those that were
    still open."""
    for session_id in busy:
        tx.run("UPDATE sessions SET touched_at = ? WHERE id = ?", tx.now, session_id)
    idle = tx.all(
        "SELECT id FROM sessions WHERE state = ? AND touched_at < ?", OPEN, tx.now - idle_seconds
    )
    tx.run(
        "DELETE FROM sessions WHERE (state = ? AND touched_at < ?)"
        " OR (state <> ? AND touched_at < ?)",
        OPEN, tx.now - idle_seconds, OPEN, tx.now - completed_seconds,
    )  # fmt: skip
    return [row[0] for row in idle]


def open_sessions(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT id FROM sessions WHERE state = ?", (OPEN,))
    return {row[0] for row in rows}


def _dump(wish: Wish) -> str:
    given = {
        "bucket": wish.bucket,
        "key": wish.key,
        "mime_type": wish.mime_type,
        "if_match": wish.conditions.if_match,
        "if_none_match": wish.conditions.if_none_match,
        "attributes": commits.dumped(wish.attributes),
        "resource_id": wish.resource_id,
        "base": wish.base,
        "owner": wish.owner,
    }
    return json.dumps(given)


def _load(text: str) -> Wish:
    given = json.loads(text)
    conditions = Conditions(given.pop("if_match"), given.pop("if_none_match"))
    stored = given.pop("attributes")
    patch = AttributesPatch.model_validate_json(stored) if stored else None
    return Wish(conditions=conditions, attributes=patch, **given)

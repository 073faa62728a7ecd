"""Sums over the whole catalog, for those who watch the server. They take a while: for threads.

It must not be asked while a request waits.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple


class Totals(NamedTuple):
    """Bytes and counts as of one moment. `kept`: of versions without a name."""

    files: int
    used_bytes: int
    kept_bytes: int
    deleted_files: int
    blobs: int
    open_sessions: int
    catalog_bytes: int
    catalog_free_bytes: int


def totals(connection: sqlite3.Connection) -> Totals:
    """All of them, in the connection's transaction."""

    def ask(sql: str) -> tuple[int, ...]:
        row: tuple[int, ...] = connection.execute(sql).fetchone()
        return row

    files, used = ask("SELECT count(*), coalesce(sum(size), 0) FROM resources WHERE kind = 0")
    (kept,) = ask("SELECT coalesce(sum(size), 0) FROM versions WHERE expires_at IS NOT NULL")
    (deleted,) = ask("SELECT count(*) FROM deleted")
    (blobs,) = ask("SELECT count(*) FROM versions WHERE blob IS NOT NULL")
    (sessions,) = ask("SELECT count(*) FROM sessions WHERE state = 0")
    (page,), (pages,), (free,) = (
        ask(f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")
    )
    return Totals(files, used, kept, deleted, blobs, sessions, pages * page, free * page)

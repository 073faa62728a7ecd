"""Gives the catalog's unused pages back to the disk: what deleted small files and entries leave.

It must not hold the writer for long: a step moves a few pages, and there is time between steps.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from files_server.catalog.database import Transaction

_STEP = 128  # pages of 4 KiB; some 10 ms
_SLACK = 1024  # pages that stay unused, since the next files want them
_SLACK_PART = 20  # or so many-eths of the catalog, if that is more
_INCREMENTAL = 2
# VACUUM writes all of it anew while the server waits to start.
_MOST_CONVERTED = 1 << 30
_log = logging.getLogger(__name__)


def enable(path: Path) -> None:
    """Have the file able to shrink. Before its first table costs nothing; later it is rewritten
    once, unless that would take long or the disk has no room for it."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        if _ask(connection, "auto_vacuum") == _INCREMENTAL:
            return
        if path.stat().st_size > _MOST_CONVERTED:
            _log.warning("%s is too large to be made able to shrink at a start", path)
            return
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.execute("VACUUM")
    except sqlite3.Error as error:
        _log.warning("%s cannot be made able to shrink: %s", path, error)
    finally:
        connection.close()


def step(tx: Transaction) -> bool:
    """Give a few pages back; whether there are more to give."""
    connection = tx.connection
    if _ask(connection, "auto_vacuum") != _INCREMENTAL:
        return False
    spare = _ask(connection, "freelist_count")
    spare -= max(_SLACK, _ask(connection, "page_count") // _SLACK_PART)
    for _ in range(min(spare, _STEP)):
        connection.execute("PRAGMA incremental_vacuum(1)")  # sqlite3 does one page a call anyway
    return spare > _STEP


def _ask(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

"""Runs one of several changes of a transaction, so that what fails leaves nothing in it.

It must not begin or end the transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Spoilt(Exception):
    """A mutation failed after it had changed something, so that all of its batch must begin again,
    each in a savepoint. Savepoints are not the rule because they copy each page that changes."""


def plainly(connection: sqlite3.Connection, change: Callable[[], T]) -> T:
    """Make the change. Raises Spoilt, or what it raises when nothing of it is there."""
    before = connection.total_changes
    try:
        return change()
    except Exception as error:
        if connection.total_changes != before and connection.in_transaction:
            raise Spoilt from error
        raise


def in_savepoint(connection: sqlite3.Connection, change: Callable[[], T]) -> T:
    """Make the change, or undo what it did and raise what it raises."""
    connection.execute("SAVEPOINT job")
    try:
        return change()
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO job")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE job")


def roll_back(connection: sqlite3.Connection) -> None:
    """Give up the transaction, if there is one."""
    with suppress(sqlite3.Error):
        connection.execute("ROLLBACK")

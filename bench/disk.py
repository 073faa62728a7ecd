"""What the disk allows, measured beside a server: cp and fsync, fdatasync a second, SQLite commits.

It must not know of a server. Everything is written below the folder that it is given.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

SMALL = os.urandom(4096)


def copy_durably(source: Path, target: Path) -> None:
    """`cp`, then fsync of the copy (`sync FILE` is that, without a Python around it)."""
    subprocess.run(["cp", "--reflink=never", "--", source, target], check=True)
    subprocess.run(["sync", "--", target], check=True)


def syncs_a_second(folder: Path, seconds: float) -> float:
    """Appends of 4 KiB, each followed by fdatasync, one after the other."""
    descriptor = os.open(folder / "syncs", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            os.write(descriptor, SMALL)
            os.fdatasync(descriptor)
            count += 1
        return count / passed
    finally:
        os.close(descriptor)
        (folder / "syncs").unlink()


def sqlite_commits_a_second(folder: Path, seconds: float) -> float:
    """Durable transactions (WAL, synchronous=FULL) of one row of 4 KiB, one after the other."""
    with closing(sqlite3.connect(folder / "commits.db", isolation_level=None)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=full")
        database.execute("create table content (id integer primary key, bytes blob)")
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            database.execute("insert into content (bytes) values (?)", (SMALL,))
            count += 1
    for path in folder.glob("commits.db*"):
        path.unlink()
    return count / passed

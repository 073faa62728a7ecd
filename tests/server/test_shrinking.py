"""The catalog gives the space of deleted small files back to the disk."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import httpx

from tests.server.running import running_server

_FILES = 200
_BYTES = 60_000  # each is kept in the catalog


def _fill_and_empty(client: httpx.Client) -> None:
    for number in range(_FILES):
        data = os.urandom(_BYTES)
        client.put(f"b/{number}?alt=media", content=data).raise_for_status()
    for number in range(_FILES - 1):
        client.delete(f"b/{number}").raise_for_status()


def test_the_space_of_deleted_small_files_comes_back(data_dir: Path) -> None:
    catalog = data_dir / "catalog.sqlite"
    with running_server(data_dir, superseded_seconds=0) as server:
        with httpx.Client(base_url=f"{server.url}/v1/files/", trust_env=False) as client:
            _fill_and_empty(client)
            server.restart()  # it looks after the catalog at its start, then once a minute
            size = catalog.stat().st_size
            assert size > _FILES * _BYTES
            deadline = time.monotonic() + 60
            while catalog.stat().st_size > size / 2:
                assert time.monotonic() < deadline, f"still {catalog.stat().st_size} bytes"
                time.sleep(0.1)
            kept = client.get(f"b/{_FILES - 1}?alt=media")
            assert len(kept.content) == _BYTES
        server.stop()
    with contextlib.closing(sqlite3.connect(catalog)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] <= 1100


def test_a_catalog_from_before_is_made_able_to_shrink(data_dir: Path) -> None:
    catalog = data_dir / "catalog.sqlite"
    with running_server(data_dir) as server:
        httpx.put(f"{server.url}/v1/files/b/f?alt=media", content=b"kept").raise_for_status()
        server.stop()
        with contextlib.closing(sqlite3.connect(catalog, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum=0")
            connection.execute("VACUUM")
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
        server.start()
        assert httpx.get(f"{server.url}/v1/files/b/f?alt=media").content == b"kept"
        with contextlib.closing(sqlite3.connect(catalog)) as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

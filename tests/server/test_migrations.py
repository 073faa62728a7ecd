"""A data folder of an older server is brought to today's schema, and what is in it stays."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.server.running import running_server


def counts_open_sessions_by_index(catalog: sqlite3.Connection) -> bool:
    plan = catalog.execute("EXPLAIN QUERY PLAN SELECT count(*) FROM sessions WHERE state = 0")
    return "sessions_open" in str(plan.fetchall())


def test_a_catalog_from_before_undelete(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "place").mkdir(parents=True)
    (tmp_path / "root" / "place" / "f").write_text("there")
    uri = quote(f"file://{tmp_path}/root/place", safe="")
    with running_server(data_dir, file_root=[str(tmp_path / "root")]) as server:
        files = f"{server.url}/v1/files"
        httpx.put(f"{files}/b/k?alt=media", content=b"kept").raise_for_status()
        httpx.put(f"{files}/{uri}").raise_for_status()
        server.stop()
        with contextlib.closing(sqlite3.connect(data_dir / "catalog.sqlite")) as catalog:
            catalog.execute("DROP TABLE deleted")
            catalog.execute("DROP INDEX sessions_open")
            catalog.execute("ALTER TABLE registrations DROP COLUMN mountpoint")
            for table, column in (("versions", "blocks"), ("sessions", "blocks, crc32c")):
                for name in column.split(", "):
                    catalog.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
            catalog.execute("UPDATE alembic_version SET version_num = '0001'")
            catalog.commit()
        server.start()
        with contextlib.closing(sqlite3.connect(data_dir / "catalog.sqlite")) as catalog:
            assert counts_open_sessions_by_index(catalog)
        assert httpx.get(f"{files}/b/k?alt=media").content == b"kept"
        assert httpx.get(f"{files}/place/f?alt=media").text == "there"
        httpx.delete(f"{files}/b/k").raise_for_status()

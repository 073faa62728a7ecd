"""A backup of a running server is whole, and fsck finds what is wrong with a data folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from files_server.backup import BackupError, backup
from files_server.fsck import InUse, check
from tests.server.running import running_server

BIG = bytes(range(256)) * 1024  # larger than what the catalog holds


def test_a_backup_of_a_running_server_is_whole(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    with running_server(data) as server, httpx.Client(base_url=server.url) as client:
        client.put("/v1/files/b/small?alt=media", content=b"small").raise_for_status()
        client.put("/v1/files/b/big?alt=media", content=BIG).raise_for_status()
        body = {"bucket": "b", "key": "open", "mime_type": "text/plain", "size": 9}
        session = client.post("/v1/files", json=body).json()["id"]
        client.post(f"/v1/files/session:{session}", content=b"part").raise_for_status()
        assert backup(data, copy) == 1
        client.put("/v1/files/b/big?alt=media", content=b"replaced").raise_for_status()
        client.delete("/v1/files/b/small").raise_for_status()
        cursor = client.get("/v1/files/b").headers["files-cursor"]
        with pytest.raises(InUse):
            check(data, digests=False, repair=False)
    assert check(copy, digests=True, repair=False) == []
    with running_server(copy) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/v1/files/b/small?alt=media").content == b"small"
        assert client.get("/v1/files/b/big?alt=media").content == BIG
        restored = client.get("/v1/files/b").headers["files-cursor"]
        assert restored.partition("-")[0] != cursor.partition("-")[0]
    with pytest.raises(BackupError, match="exists"):
        backup(data, copy)


def test_fsck_finds_what_is_wrong(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server, httpx.Client(base_url=server.url) as client:
        for name in ("flipped", "short", "lost"):
            client.put(f"/v1/files/b/{name}?alt=media", content=BIG).raise_for_status()
    assert check(data, digests=True, repair=False) == []
    flipped, short, lost = sorted((data / "blobs").glob("??/*"))
    flipped.write_bytes(BIG[:-1] + b"x")
    short.write_bytes(BIG[:-1])
    lost.unlink()
    (data / "blobs" / "00" / "stray").touch()
    with closing(sqlite3.connect(data / "catalog.sqlite")) as catalog:
        catalog.execute("UPDATE resources SET nlink = 7 WHERE kind = 0 AND id = 2")
        catalog.commit()
    found = check(data, digests=True, repair=True)
    texts = "\n".join(problem.text for problem in found)
    for path, says in ((flipped, "checksums"), (short, "bytes, not"), (lost, "missing")):
        assert any(str(path) in problem.text and says in problem.text for problem in found), texts
    assert sum(problem.repaired for problem in found) == 2
    assert len(check(data, digests=True, repair=False)) == 3

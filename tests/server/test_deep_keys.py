"""Keys of thousands of segments: they hold the writer, for whom everybody waits, only shortly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from files_server.catalog import commits, database, moves, nodes, tree
from files_server.catalog.commits import NO_CONDITIONS, Commit, Content
from files_server.catalog.database import Row, Transaction
from files_server.catalog.keeping import NO_KEEP
from files_server.errors import ApiError
from tests.server.running import RunningServer

_LEVELS = 8_192  # the most that 16,384 bytes can have


@dataclass(slots=True)
class Counting(Transaction):
    """Counts its statements."""

    count: int = 0

    def one(self, sql: str, *values: object) -> Row | None:
        self.count += 1
        return Transaction.one(self, sql, *values)

    def all(self, sql: str, *values: object) -> list[Row]:
        self.count += 1
        return Transaction.all(self, sql, *values)

    def run(self, sql: str, *values: object) -> int:
        self.count += 1
        return Transaction.run(self, sql, *values)


@pytest.fixture
def tx(tmp_path: Path) -> Counting:
    database.prepare(tmp_path / "catalog.sqlite")
    connection = database.connect(tmp_path / "catalog.sqlite")
    connection.execute("BEGIN")
    return Counting(connection, time.time_ns())


def _commit(tx: Transaction, key: str) -> None:
    commits.commit(tx, Commit("b", key, "text/plain", Content(1, bytes(4), data=b"x")))


def _links(tx: Transaction, key: str = "") -> int:
    found = nodes.find(tx.connection, "b", key)
    assert found is not None
    return found.nlink


def test_making_and_removing_one_takes_few_statements(tx: Counting) -> None:
    key = "/".join(["a"] * _LEVELS)
    _commit(tx, key)
    assert tx.count < 50
    half = key[:_LEVELS]  # "a/a/.../a/"
    assert (_links(tx), _links(tx, half), _links(tx, key[:-2] + "/")) == (3, 3, 2)
    _commit(tx, key[:-1] + "b/c")
    assert tx.count < 100
    assert _links(tx, key[:-2] + "/") == 3
    for gone in (key, key[:-1] + "b/c"):
        moves.delete(tx, ("b", gone), keep_parent=False, keep=NO_KEEP, conditions=NO_CONDITIONS)
    assert tx.count < 150
    assert (_links(tx), nodes.find(tx.connection, "b", "a/")) == (2, None)
    assert tx.one("SELECT count(*) FROM nodes") == (1,)
    assert tx.one("SELECT count(*) FROM resources") == (1,)


def test_what_is_in_the_way_is_named_at_any_depth(tx: Counting) -> None:
    for depth in (1, 31, 32, 33, 64, 100):
        key = "/".join(["d"] * depth)
        _commit(tx, f"{key}/file")
        with pytest.raises(ApiError, match="nothing can be below") as refused:
            tree.make_directories(tx, "b", f"{key}/file/x/y")
        assert f"{key}/file'" in str(refused.value) or depth > 50


def test_explicit_directories_and_siblings_stay(tx: Counting) -> None:
    commits.make_directory(tx, "b", "kept/", NO_CONDITIONS, None)
    for key in ("kept/a/b/c/f", "kept/a/s"):
        _commit(tx, key)
    for key, left in (("kept/a/b/c/f", "kept/a/"), ("kept/a/s", "kept/")):
        moves.delete(tx, ("b", key), keep_parent=False, keep=NO_KEEP, conditions=NO_CONDITIONS)
        found = nodes.find(tx.connection, "b", left)
        assert found is not None
        assert (found.nlink, found.modified_ns) == (2, tx.now_ns)
    assert nodes.find(tx.connection, "b", "kept/a/") is None


def test_over_the_api(server: RunningServer, client: httpx.Client, bucket: str) -> None:
    key = "/".join(["x"] * _LEVELS)
    client.put(f"/files/{bucket}/{key}?alt=media", content=b"deep").raise_for_status()
    assert client.get(f"/files/{bucket}/{key}?alt=media").content == b"deep"
    client.delete(f"/files/{bucket}/{key}").raise_for_status()
    assert client.get(f"/files/{bucket}?delimiter=/").json()["common_prefixes"] == []

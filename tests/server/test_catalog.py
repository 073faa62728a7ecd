"""The catalog on a real SQLite file: order and pages of keys, group commit."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from files_server.catalog import commits, database, listing, nodes
from files_server.catalog.commits import Commit, Content
from files_server.catalog.database import Committed, Transaction, Writer
from files_server.errors import ApiError

_segments = st.text(alphabet="ab-._0A", min_size=1, max_size=3).filter(lambda s: s.strip("."))
_keys = st.lists(_segments, min_size=1, max_size=3).map("/".join)


def put(tx: Transaction, key: str) -> None:
    commits.commit(tx, Commit("b", key, "x", Content(0, b"", data=b"")))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keys=st.sets(_keys, max_size=12), cut=_keys, prefix=st.text(alphabet="ab/", max_size=3))
def test_a_walk_goes_by_key_bytes(tmp_path: Path, keys: set[str], cut: str, prefix: str) -> None:
    path = tmp_path / "catalog"
    database.prepare(path)
    connection = database.connect(path)
    connection.execute("BEGIN")
    stored: set[str] = set()
    for key in sorted(keys):
        connection.execute("SAVEPOINT one")
        try:
            put(Transaction(connection, time.time_ns()), key)
            stored.add(key)
        except ApiError:
            connection.execute("ROLLBACK TO one")
    files = lambda after, prefix: [  # noqa: E731
        key for key, node in listing.walk(connection, "b", prefix, after) if not node.is_directory
    ]
    assert files("", "") == sorted(stored)
    assert files(cut, "") == sorted(key for key in stored if key > cut)
    if not prefix.startswith("/") and "//" not in prefix:
        assert files("", prefix) == sorted(key for key in stored if key.startswith(prefix))
    direct = {key.partition("/")[0] + ("/" if "/" in key else "") for key in stored}
    assert [key for key, _ in listing.children(connection, "b")] == sorted(direct)
    connection.execute("ROLLBACK")
    connection.close()


def test_deep_keys(tmp_path: Path) -> None:
    database.prepare(tmp_path / "catalog")
    connection = database.connect(tmp_path / "catalog")
    key = "/".join(f"s{number}" for number in range(200))
    put(Transaction(connection, 1), key)
    found = nodes.find(connection, "b", key)
    assert found is not None
    assert nodes.path_of(connection, found.id) == ("b", key)
    for depth in (38, 39, 40, 41, 42, 80, 81):
        prefix = "/".join(f"s{number}" for number in range(depth))
        directory = nodes.find(connection, "b", prefix)
        assert directory is not None
        assert directory.is_directory
    connection.close()


def test_one_failed_mutation_leaves_its_batch_alone(tmp_path: Path) -> None:
    async def scenario() -> list[object]:
        seen: list[Committed] = []
        writer = Writer(tmp_path / "catalog", seen.append)

        def fails(tx: Transaction) -> None:
            put(tx, "bad")
            raise ApiError(400, "no")

        waiting = [
            asyncio.ensure_future(writer.write(lambda tx: put(tx, "a"))),
            asyncio.ensure_future(writer.write(fails)),
            asyncio.ensure_future(writer.write(lambda tx: put(tx, "c"))),
        ]
        await asyncio.sleep(0)
        writer.start()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert len(seen) == 1  # one commit for all of them
        assert [data.count('"commit"') for _, data in seen[0].events] == [0, 1, 1]
        await writer.close()
        return list(results)

    database.prepare(tmp_path / "catalog")
    first, second, third = asyncio.run(scenario())
    assert (first, third) == (None, None)
    assert isinstance(second, ApiError)
    connection = database.connect(tmp_path / "catalog")
    assert [key for key, _ in listing.walk(connection, "b")] == ["a", "c"]
    connection.close()


def test_a_newer_catalog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    database.prepare(path)
    connection = database.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(database.CatalogError, match="newer server"):
        database.prepare(path)


def test_a_spoilt_batch_begins_again_and_counts_nothing_twice(tmp_path: Path) -> None:
    async def scenario() -> Committed:
        seen: list[Committed] = []
        writer = Writer(tmp_path / "catalog", seen.append)

        def fails_twice_over(tx: Transaction) -> None:
            put(tx, "half")
            tx.garbage.append("half")
            raise ApiError(409, "no")

        jobs = [lambda tx: put(tx, "a"), fails_twice_over, fails_twice_over]
        waiting = [asyncio.ensure_future(writer.write(job)) for job in jobs]
        await asyncio.sleep(0)
        writer.start()
        await asyncio.gather(*waiting, return_exceptions=True)
        await writer.close()
        (committed,) = seen
        return committed

    database.prepare(tmp_path / "catalog")
    committed = asyncio.run(scenario())
    assert len(committed.events) == 2  # the bucket and its file
    assert committed.garbage == []
    connection = database.connect(tmp_path / "catalog")
    assert connection.execute("SELECT count(*) FROM changes").fetchone() == (2,)
    assert [key for key, _ in listing.walk(connection, "b")] == ["a"]
    connection.close()


@pytest.mark.parametrize("depth", [1, 2, 39, 40, 41, 81])
def test_a_place_is_found_with_and_without_what_is_there(tmp_path: Path, depth: int) -> None:
    database.prepare(tmp_path / "catalog")
    connection = database.connect(tmp_path / "catalog")
    key = "/".join(f"s{number}" for number in range(depth))
    put(Transaction(connection, 1), key)
    found = nodes.place(connection, "b", key)
    assert found is not None
    assert found.node == nodes.find(connection, "b", key)
    sibling = nodes.place(connection, "b", f"{key}x")
    assert sibling is not None
    assert sibling == found._replace(node=None)
    assert nodes.place(connection, "b", f"{key}/below") is None
    assert nodes.place(connection, "elsewhere", key) is None
    connection.close()

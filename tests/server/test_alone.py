"""Who commits: the event loop for a client that asks alone, else the writer's thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from files_server.catalog import commits, database, listing, nodes
from files_server.catalog.commits import Commit, Content
from files_server.catalog.database import Committed, Transaction, Writer
from files_server.errors import ApiError

_LONE = 20  # changes one after the other, after which one alone is taken for the rule


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests hold on slow disks, too."""
    monkeypatch.setattr(database, "_SLOW_SECONDS", 0.4)


def put(tx: Transaction, key: str, data: bytes = b"") -> bool:
    """Whether it was done on the event loop's thread."""
    commits.commit(tx, Commit("b", key, "x", Content(len(data), b"", data=data)))
    return threading.current_thread() is threading.main_thread()


async def lone(writer: Writer, key: str, data: bytes = b"") -> bool:
    """`put` by a client that asks again only once it has its answer."""
    here = await writer.write(lambda tx: put(tx, key, data))
    await pause()
    return here


async def pause() -> None:
    """While an answer is on its way nobody waits."""
    for _ in range(4):
        await asyncio.sleep(0)


def run(path: Path, scenario: Callable[[Writer, list[Committed]], Awaitable[None]]) -> list[str]:
    """A scenario with a writer that a lone client has used for a while; the names it leaves."""

    async def prepared() -> None:
        seen: list[Committed] = []
        writer = Writer(path, seen.append)
        writer.start()
        for number in range(_LONE):
            await lone(writer, f"lone{number:02}")
        await scenario(writer, seen)
        await writer.close()

    database.prepare(path)
    asyncio.run(prepared())
    connection = database.connect(path)
    try:
        return [key for key, _ in listing.walk(connection, "b")][:-_LONE]
    finally:
        connection.close()


def test_one_alone_is_committed_on_the_event_loop(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        here = [await lone(writer, f"a{number:03}") for number in range(300)]
        other = sqlite3.connect(tmp_path / "catalog")
        assert other.execute("SELECT count(*) FROM versions").fetchone() == (300 + _LONE,)
        other.close()
        assert 250 < sum(here) < 300  # the thread has its turn now and then
        numbers = [number for committed in seen for number, _ in committed.events]
        assert numbers == list(range(1, 300 + _LONE + 2))  # with the bucket's

    assert run(tmp_path / "catalog", scenario) == [f"a{number:03}" for number in range(300)]


def test_the_log_is_written_back_although_one_is_always_alone(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        for number in range(450):
            await lone(writer, f"a{number:03}", bytes(60_000))
        assert (tmp_path / "catalog-wal").stat().st_size < 40 << 20

    assert len(run(tmp_path / "catalog", scenario)) == 450


def test_what_comes_together_shares_a_commit_in_the_thread(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        for turn in range(5):
            before = len(seen)
            jobs = [writer.write(lambda tx, k=f"a{turn}-{n}": put(tx, k)) for n in range(8)]
            here = await asyncio.gather(*jobs)
            assert sum(here) <= (1 if turn == 0 else 0)  # the first cannot know of the others
            assert len(seen) - before <= 4

    assert len(run(tmp_path / "catalog", scenario)) == 40


def test_while_another_request_runs_the_thread_has_all(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        writer.enter()
        assert await lone(writer, "a0")
        writer.enter()
        here = [await lone(writer, f"a{number}") for number in range(1, 20)]
        assert not any(here)
        writer.leave()
        assert await lone(writer, "a20")

    run(tmp_path / "catalog", scenario)


def test_who_had_to_wait_for_a_commit_has_the_thread_do_the_next(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        assert await writer.write(lambda tx: put(tx, "a0"))
        writer.enter()  # right after it
        await pause()
        writer.leave()
        here = [await lone(writer, f"a{number}") for number in range(1, 20)]
        assert not any(here[:8])
        assert all(here[8:])

    run(tmp_path / "catalog", scenario)


def test_after_a_slow_commit_the_thread_has_the_next(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        await writer.write(lambda tx: time.sleep(0.5))
        await pause()
        assert not await writer.write(lambda tx: put(tx, "a"))
        assert any([await lone(writer, f"a{number}") for number in range(50)])

    run(tmp_path / "catalog", scenario)


def test_what_may_take_long_is_for_the_thread(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        assert not await writer.write(lambda tx: put(tx, "a"), aside=True)

    assert run(tmp_path / "catalog", scenario) == ["a"]


def test_the_event_loop_waits_for_nobodys_lock(tmp_path: Path) -> None:
    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        other = sqlite3.connect(tmp_path / "catalog", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        waiting = asyncio.ensure_future(writer.write(lambda tx: put(tx, "a")))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        assert time.monotonic() - begun < 2
        other.execute("ROLLBACK")
        other.close()
        assert not await waiting

    assert run(tmp_path / "catalog", scenario) == ["a"]


@pytest.mark.parametrize("late", [False, True])
def test_one_alone_that_fails_leaves_nothing_behind(tmp_path: Path, late: bool) -> None:
    def fails(tx: Transaction) -> None:
        if late:
            put(tx, "half")
            tx.garbage.append("half")
        raise ApiError(409, "no")

    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        with pytest.raises(ApiError, match="no"):
            await writer.write(fails)
        assert not seen[-1].events
        assert not seen[-1].garbage
        await writer.write(lambda tx: put(tx, "a"))
        with pytest.raises(sqlite3.OperationalError):
            await writer.write(lambda tx: tx.run("INSERT INTO nothing VALUES (1)"))

    assert run(tmp_path / "catalog", scenario) == ["a"]


def test_a_read_goes_over_the_writers_connection_while_that_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    """Never while something is in it that may be rolled back."""
    going_on = threading.Event()

    def held_up(tx: Transaction) -> None:
        put(tx, "b")
        going_on.wait(20)

    async def scenario(writer: Writer, seen: list[Committed]) -> None:
        await lone(writer, "a")
        connection = writer.lent()
        assert connection is not None
        assert [key for key, _ in listing.walk(connection, "b")][-1] == "lone19"
        assert connection.execute("SELECT 1 FROM nodes")  # whoever leaves a statement open
        running = asyncio.ensure_future(writer.write(held_up, aside=True))
        await pause()
        assert writer.lent() is None
        going_on.set()
        await running
        assert writer.lent() is connection
        await lone(writer, "c")
        assert nodes.find(connection, "b", "c")
        await writer.close()
        assert writer.lent() is None

    assert run(tmp_path / "catalog", scenario) == ["a", "b", "c"]

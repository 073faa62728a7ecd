"""Opens the catalog's SQLite file and owns the one connection that writes to it.

It must not know what a transaction means. Mutations are functions; the writer takes all that wait,
runs them, commits once (one fsync for all of them) and only then answers them.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from files_server.catalog import schema
from files_server.catalog.disk import Place, has_room, is_full, log_pages, translated
from files_server.catalog.log import Log
from files_server.catalog.savepoints import Spoilt, in_savepoint, plainly, roll_back
from files_server.errors import ApiError
from files_server.meters import meters

T = TypeVar("T")
Row = tuple[Any, ...]
_GATHER_SECONDS = 0.002  # about a sync: who just got an answer is likely to ask again by then
_SLOW_SECONDS = 0.002  # a commit of so long would hold up all other requests on the event loop
_LONELY = 8  # jobs without another request meanwhile are taken for one client alone
_AT_ONCE = 128  # commits on the event loop; then it is the thread's turn, to write the log back
_BUSY_SECONDS = 10  # a wait for the lock of whoever else has opened the catalog
_READER_SECONDS = 1  # a full disk's wait for those who still read what is in the log
_BATCH = 256  # mutations in one commit: bounds how long the first one waits for the others


class CatalogError(RuntimeError):
    """The catalog cannot be used; the message is one line for the operator."""


@dataclass(slots=True)
class Transaction:
    """What a mutation works with: the connection, its time, and the change events it makes.

    `now_ns` is later than that of every earlier transaction. `garbage` are blobs that nothing names
    any more once the commit is through.
    """

    connection: sqlite3.Connection
    now_ns: int
    origin: str = ""
    events: list[tuple[int, str]] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)
    repeats: int = 0  # the number of an earlier change that is answered once more

    @property
    def now(self) -> int:
        """Unix seconds."""
        return self.now_ns // 1_000_000_000

    def one(self, sql: str, *values: object) -> Row | None:
        """The first row, None without one."""
        row: Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: object) -> list[Row]:
        return self.connection.execute(sql, values).fetchall()

    def run(self, sql: str, *values: object) -> int:
        """Execute; the row id of an INSERT."""
        return self.connection.execute(sql, values).lastrowid or 0


Mutation = Callable[[Transaction], T]
_Job = tuple[Mutation[Any], str, "asyncio.Future[Any]", bool]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


@dataclass(frozen=True, slots=True)
class Committed:
    """What one commit brought: for the change feed, and for the blobs to remove."""

    events: Sequence[tuple[int, str]]
    garbage: Sequence[str]


@dataclass(slots=True)
class _Batch:
    """Mutations that are committed together, and what each of their callers will be told."""

    outcomes: list[_Outcome] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)
    full: bool = False  # none of it was done: the disk has no room

    def add(self, later: _Batch) -> None:
        self.outcomes += later.outcomes
        self.events += later.events
        self.garbage += later.garbage


class Writer:
    """Owns the writing connection. `write` may be awaited from the event loop's tasks.

    Where one client asks for one change after the other, each is made right on the event loop: two
    changes of thread cost as much as its statements. All else is the thread's: what comes while
    any other request runs, changes among them share a sync, and what follows a slow commit.

    Invariant: the connection is the thread's while `_handed` jobs are with it, else the event
    loop's. Only the loop hands jobs over, and it takes them back when it answers them.
    """

    def __init__(self, path: Path, committed: Callable[[Committed], None]) -> None:
        self._path = path
        self._connection = connect(path)
        self._place = Place(path)
        self._log_pages = log_pages(path.parent)
        self._log = Log(path, self._log_pages)
        self._most_at_once = min(_AT_ONCE, self._log_pages // 31)
        self._committed = committed
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._handed = 0
        self._thread = threading.Thread(target=self._main, name="catalog-writer", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._last_ns = 0
        self._last_batch = 1
        self._last_seconds = 0.0
        self._lonely = 0  # jobs, one after the other, during which no request came
        self._at_once = 0  # jobs done on the event loop since the thread's last commit
        self._requests = 0  # that run
        self._turns = 0  # of the event loop in which those come who had to wait for such a job
        self._turning: asyncio.Handle | None = None
        self._last: object = None  # the connection of the last request
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    def enter(self, connection: object = None) -> None:
        """A request runs from now on: where there are several, none of them waits for a commit.
        One of the same connection has not waited: it came after the last answer."""
        self._requests += 1
        if self._turning is not None and connection is not None and connection is self._last:
            self._turning.cancel()
            self._turns = 0
        if self._requests > 1 or self._turns:
            self._lonely = 0
        self._last = connection

    def leave(self) -> None:
        """It has ended."""
        self._requests -= 1

    async def write(
        self, mutation: Mutation[T], origin: str = "", *, aside: bool = False, frees: bool = False
    ) -> T:
        """Run `mutation` in a transaction; its result once it is on disk. Raises what it raises.

        It may run twice: a batch that one mutation spoils is rolled back, and begins again.
        `aside`: it may take long, and is for the thread in any case. `frees`: it makes room.
        """
        if self._closed:
            raise ApiError(503, "The server is stopping.")
        future: asyncio.Future[T] = self._loop.create_future()
        job = (mutation, origin, future, frees)
        if self._handed or self._turns:
            self._lonely = 0
        if aside or not self._is_quiet() or not self._do_now(job):
            self._handed += 1
            self._jobs.put(job)
        return await future

    def lent(self) -> sqlite3.Connection | None:
        """The connection while it is the event loop's, for a read that ends before anything is
        awaited; None while it is the thread's."""
        return None if self._handed or self._closed else self._connection

    async def close(self) -> None:
        """Finish what is queued and close the connection."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _is_quiet(self) -> bool:
        return (
            self._lonely >= _LONELY
            and self._requests <= 1
            and self._last_seconds < _SLOW_SECONDS
            and self._at_once < self._most_at_once
        )

    def _do_now(self, job: _Job) -> bool:
        """Commit on the event loop, unless that would have to wait, for somebody else's lock or on
        a full disk for the log."""
        if not self._at_once:
            self._connection.execute("PRAGMA busy_timeout=0")
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
        self._at_once += 1
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        batch = self._commit([job])
        if batch.full:
            self._lonely = 0
            return False
        self._answer(batch)
        self._turns = 2  # in one a request is taken on, in the next it comes to its mutation
        self._turning = self._loop.call_soon(self._turn)
        return True

    def _turn(self) -> None:
        self._turns -= 1
        self._turning = self._loop.call_soon(self._turn) if self._turns else None

    def _back_from_loop(self) -> None:
        self._at_once = 0
        self._connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        self._connection.execute(f"PRAGMA wal_autocheckpoint={self._log_pages}")

    def _main(self) -> None:
        running = True
        while running:
            jobs, running = self._take()
            if jobs:
                if self._at_once:
                    self._back_from_loop()
                self._log.before_commit()
                batch = self._commit(jobs)
                if batch.full:
                    batch = self._one_by_one(jobs)
                with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                    self._loop.call_soon_threadsafe(self._take_back, batch)
                self._log.after_commit()
        with suppress(sqlite3.Error):  # then the next start does it
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._place.close()
        self._log.close()

    def _take(self) -> tuple[list[_Job], bool]:
        """What waits; under load also what is about to come, since it shares the sync."""
        batch: list[_Job] = []
        job = self._jobs.get()
        deadline = time.monotonic() + _GATHER_SECONDS
        with suppress(queue.Empty):
            while job is not None:
                batch.append(job)
                if len(batch) == _BATCH:
                    break
                more_expected = len(batch) < self._last_batch
                left = deadline - time.monotonic() if more_expected else 0.0
                job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
        self._last_batch = len(batch)
        return batch, job is not None

    def _commit(self, jobs: list[_Job]) -> _Batch:
        """Run them and commit once; what their callers will be told."""
        begun = time.perf_counter()
        try:
            batch = self._run(self._connection, jobs)
            self._place.take(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:
            roll_back(self._connection)
            failure = translated(error, self._path.parent)
            outcomes: list[_Outcome] = [(future, None, failure) for _, _, future, _ in jobs]
            batch = _Batch(outcomes, full=is_full(failure))
        self._last_seconds = time.perf_counter() - begun
        meters.committed(len(jobs), self._last_seconds)
        return batch

    def _one_by_one(self, jobs: list[_Job]) -> _Batch:
        """On a full disk: each alone, which needs the least. Where it or the catalog's file has
        room, in the place that the log has; else to change anything is refused."""
        batch, is_new = _Batch(), False
        for job in jobs:
            one = self._commit([job])
            if one.full and not is_new and (job[3] or has_room(self._connection)):
                self._begin_log()
                is_new = True
                one = self._commit([job])
            is_new = is_new and one.full
            batch.add(one)
        return batch

    def _begin_log(self) -> None:
        """Write all of the log back, so that the next commit is written over what it holds."""
        with suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA busy_timeout={_READER_SECONDS * 1000}")
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")

    def _run(self, connection: sqlite3.Connection, jobs: list[_Job]) -> _Batch:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        try:
            return self._all(connection, jobs, plainly)
        except Spoilt:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            return self._all(connection, jobs, in_savepoint)

    def _all(
        self,
        connection: sqlite3.Connection,
        jobs: list[_Job],
        run: Callable[[sqlite3.Connection, Callable[[], Any]], Any],
    ) -> _Batch:
        batch = _Batch()
        for mutation, origin, future, _ in jobs:
            self._last_ns = max(self._last_ns + 1, time.time_ns())
            transaction = Transaction(connection, self._last_ns, origin)
            try:
                result = run(connection, partial(mutation, transaction))
            except Spoilt:
                raise
            except Exception as error:
                failure = translated(error, self._path.parent)
                if is_full(failure) or not connection.in_transaction:  # SQLite rolled it back
                    raise
                batch.outcomes.append((future, None, failure))
                continue
            batch.outcomes.append((future, result, None))
            batch.events += transaction.events
            batch.garbage += transaction.garbage
        return batch

    def _take_back(self, batch: _Batch) -> None:
        self._handed -= len(batch.outcomes)
        self._lonely = self._lonely + 1 if not self._handed and len(batch.outcomes) == 1 else 0
        self._answer(batch)

    def _answer(self, batch: _Batch) -> None:
        for future, result, error in batch.outcomes:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        # Last, so that who listens for changes is woken after those who wait for their answer.
        self._committed(Committed(batch.events, batch.garbage))


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the catalog. Durable at commit: the log is synced each time."""
    connection = sqlite3.connect(
        path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={log_pages(path.parent)}")
    connection.execute("PRAGMA cache_size=-32768")
    connection.execute("PRAGMA temp_store=MEMORY")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


def prepare(path: Path) -> None:
    """Bring the file to the current schema. Raises CatalogError for one from a newer server."""
    connection = connect(path)
    try:
        found = _revision(connection)
    finally:
        connection.close()
    if found != schema.REVISION:
        from files_server.catalog.migrations import upgrade  # Alembic costs 300 ms to import

        upgrade(path, found)
    _identify(path)


def _revision(connection: sqlite3.Connection) -> str:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name='alembic_version'")
    if known.fetchone() is None:
        return ""
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else ""


def _identify(path: Path) -> None:
    """A catalog restored from a backup (another inode) gets a new epoch: its change numbers and
    those that clients saw may differ in meaning."""
    status = path.stat()
    home = f"{status.st_dev}:{status.st_ino}"
    connection = connect(path)
    try:
        known = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if known.get("home") != home:
            values = {"home": home, "epoch": secrets.token_hex(8)}
            values.setdefault("server_id", known.get("server_id") or secrets.token_hex(16))
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
    finally:
        connection.close()

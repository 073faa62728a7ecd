"""The open catalog: a reader for the event loop, the writer's queue, snapshots for threads.

It must not know HTTP. It tells the change feed and the blobs of each commit, in commit order.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from files_server.catalog import database, keeping, nodes, shrinking
from files_server.catalog.database import Committed, Mutation, T, Transaction, Writer
from files_server.catalog.nodes import Node
from files_server.catalog.reserve import Reserve
from files_server.errors import ApiError, shown

_PAUSE_SECONDS = 0.05  # between two steps of expiring, and of giving pages back
_KEPT_CHANGES = 100_000  # older events are pruned: whoever is further behind starts again


@dataclass(frozen=True, slots=True)
class Version:
    """Content, current or superseded. `modified_ns` is its commit's. `blocks`: where in the blob
    each MiB is; None: in order."""

    id: int
    etag: str
    bucket: str
    size: int
    mime_type: str
    modified_ns: int
    blob: str | None
    crc32c: bytes
    blocks: bytes | None
    data: bytes | None = None  # of one that is kept in the catalog, where it was asked for, too


_VERSION = "id, etag, bucket, size, mime_type, modified_ns, blob, crc32c, blocks"
_CURRENT = nodes.Joined(
    "".join(f", v.{column}" for column in _VERSION.split(", ")) + ", c.data",
    " LEFT JOIN versions v ON v.id = r.version_id LEFT JOIN contents c ON c.version_id = v.id",
)
_NODE_FIELDS = len(Node._fields)


class Removals(Protocol):
    """What the catalog needs of the blobs: to be rid of those that nothing names any more."""

    def begin(self, blobs: Iterable[str]) -> None: ...

    async def settled(self) -> None: ...

    async def close(self) -> None: ...


class Recalls(Protocol):
    """What the catalog needs of the leases: what nobody may be told before others confirmed it."""

    @property
    def pending(self) -> Mapping[int, object]:
        """Changes that wait for somebody."""

    async def heard(self, first: int, last: int) -> None: ...


class Catalog:
    """Owns the connections. `reader` is the event loop's: short reads only."""

    def __init__(
        self,
        path: Path,
        removals: Removals,
        feed: Callable[[list[tuple[int, str]]], None],
        recalls: Recalls,
    ) -> None:
        self._reserve = Reserve(path.parent)
        _prepare(path, self._reserve)
        self._path = path
        self._removals = removals
        self._feed = feed
        self._recalls = recalls
        self.reader = database.connect(path, read_only=True)
        self._writer = Writer(path, self._after)
        self._reserve.set_aside()
        self.epoch, self.latest = self._position()
        self._writer.start()

    @property
    def at_hand(self) -> sqlite3.Connection:
        """A reader for what ends before anything is awaited: the writer's connection while that has
        nothing to do. Each commit has all others read anew what they had in memory, all of it.
        """
        return self._writer.lent() or self.reader

    @property
    def cursor(self) -> str:
        """The change feed's position that every read from now on is at or behind."""
        return f"{self.epoch}-{self.latest}"

    def cursor_at(self, number: int) -> str:
        """The cursor of one change; 0: the latest."""
        return f"{self.epoch}-{number or self.latest}"

    def enter(self, connection: object) -> None:
        """A request of this connection runs from now on, until `leave`."""
        self._writer.enter(connection)

    def leave(self) -> None:
        self._writer.leave()

    async def write(
        self, mutation: Mutation[T], origin: str = "", *, aside: bool = False, frees: bool = False
    ) -> T:
        """Run a mutation; its result once it is durable, the disk has the space back of blobs that
        it left without a name, and whoever has a lease on what it changed has let go of that.
        `aside`: it may take long, and nobody else may wait for it.
        Old versions that are kept in the catalog give way when that has no room for it."""
        done: Transaction | None = None

        def noted(tx: Transaction) -> T:  # it may run twice
            nonlocal done
            done = tx
            return mutation(tx)

        try:
            result = await self._writer.write(noted, origin, aside=aside, frees=frees)
        except ApiError as error:
            if error.status != 507 or not await self._gave_up(frees):
                raise
            result = await self._writer.write(noted, origin, aside=aside, frees=frees)
        assert done is not None, "what has a result was run"
        if done.garbage:
            await self._removals.settled()
        if self._recalls.pending and (done.events or done.repeats):
            numbers = [number for number, _ in done.events]
            await self._recalls.heard(numbers[0] if numbers else 0, max(done.repeats, *numbers, 0))
        return result

    async def heard(self, number: int) -> None:
        """Until a change that was made before, and all before it, may be answered."""
        if self._recalls.pending:
            await self._recalls.heard(0, number)

    async def _gave_up(self, least: bool) -> bool:
        """Whether something kept made place in the catalog; `least`: be it ever so little."""
        give_up = partial(keeping.give_up, least=0) if least else keeping.give_up
        try:
            return await self._writer.write(give_up, aside=True, frees=True)
        except ApiError:  # it has no room in the log itself
            return False

    async def remove(self, mutation: Mutation[T], origin: str = "", *, aside: bool = False) -> T:
        """As `write`, for what takes names away: it works on a full disk, too."""
        try:
            return await self.write(mutation, origin, aside=aside, frees=True)
        except ApiError as error:
            if error.status != 507 or not self._reserve.give():
                raise
        result = await self.write(mutation, origin, aside=aside, frees=True)
        with suppress(ApiError):  # it is done; room for the next one is looked for here, or later
            await self.make_room()
        await asyncio.to_thread(self._reserve.set_aside)
        return result

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of one's own that sees one state. For threads."""
        connection = database.connect(self._path, read_only=True)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()

    def current(self, bucket: str, key: str) -> tuple[Node, Version | None] | None:
        """What is at a key, and its content, of one moment; None where nothing is."""
        row = nodes.find_with(self.at_hand, bucket, key, _CURRENT)
        if row is None:
            return None
        found = row[_NODE_FIELDS:]
        return Node._make(row[:_NODE_FIELDS]), None if found[0] is None else Version(*found)

    def version(self, version_id: int) -> Version | None:
        """A version by id; None when it went in the meantime."""
        row = self.at_hand.execute(f"SELECT {_VERSION} FROM versions WHERE id = ?", (version_id,))
        found = row.fetchone()
        return Version(*found) if found else None

    def version_by_etag(self, etag: str, bucket: str, key: str) -> Version:
        """A version of `bucket`, current or superseded, or one that has a name in it now, whichever
        bucket it was written to (links and moves lead from one to another). ApiError 410.
        """
        row = self.reader.execute(f"SELECT {_VERSION} FROM versions WHERE etag = ?", (etag,))
        found = row.fetchone()
        if found is not None and found[2] != bucket:
            node = nodes.find(self.reader, bucket, key)
            if (node is None or node.version_id != found[0]) and not self._has(bucket, found[0]):
                found = None
        if found is None:
            raise ApiError(410, f"The version {shown(etag)} is no more, or never was.")
        return Version(*found)

    def _has(self, bucket: str, version_id: int) -> bool:
        """Whether the version is now under any name of `bucket`."""
        rows = self.reader.execute(
            "SELECT n.id FROM resources r JOIN nodes n ON n.resource_id = r.id"
            " WHERE r.version_id = ?",
            (version_id,),
        ).fetchall()
        return any(nodes.path_of(self.reader, row[0])[0] == bucket for row in rows)

    def data(self, version_id: int) -> bytes:
        """The bytes of a version that is kept in the catalog."""
        row = self.at_hand.execute("SELECT data FROM contents WHERE version_id = ?", (version_id,))
        found = row.fetchone()
        if found is None:
            raise ApiError(410, "This version went while it was read. Read the file again.")
        return bytes(found[0])

    async def make_room(self) -> bool:
        """Give up versions that nothing names; whether there was any with a blob."""
        return await self.write(keeping.make_room, aside=True)

    def kept_blobs(self) -> list[str]:
        """Those that `make_room` could give up, all in all. For threads."""
        with self.snapshot() as connection:
            rows = connection.execute(
                "SELECT blob FROM versions WHERE expires_at IS NOT NULL AND blob IS NOT NULL"
            )
            return [row[0] for row in rows]

    async def prune(self) -> None:
        """Drop what has expired: superseded versions, old change events."""
        more = True
        while more:  # as an hour after a large `rm -r`
            more = await self.remove(keeping.expire, aside=True)
            await asyncio.sleep(_PAUSE_SECONDS if more else 0)
        await self.remove(_prune, aside=True)
        await asyncio.to_thread(self._reserve.set_aside)

    async def shrink(self) -> None:
        """Give unused pages back to the disk, with pauses, so that requests go in between."""
        given = False
        while await self.remove(shrinking.step, aside=True):
            given = True
            await asyncio.sleep(_PAUSE_SECONDS)
        if given:  # the file is cut when the log has been written back
            await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        connection = database.connect(self._path)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            connection.close()

    def named_blobs(self) -> set[str]:
        """Every blob that a version names."""
        rows = self.reader.execute("SELECT blob FROM versions WHERE blob IS NOT NULL")
        return {row[0] for row in rows}

    async def close(self) -> None:
        await self._writer.close()
        await self._removals.close()
        self.reader.close()

    def _after(self, committed: Committed) -> None:
        if committed.events:
            self.latest = committed.events[-1][0]
            self._feed(list(committed.events))
        if committed.garbage:
            self._removals.begin(committed.garbage)

    def _position(self) -> tuple[str, int]:
        epoch = self.reader.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0]
        row = self.reader.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
        found = row.fetchone()
        return epoch, found[0] if found else 0


def _prepare(path: Path, reserve: Reserve) -> None:
    """Bring the file to the current form. To open it takes a little of the disk, too."""
    shrinking.enable(path)
    try:
        database.prepare(path)
    except sqlite3.OperationalError:
        if not reserve.give():
            raise
        database.prepare(path)


def _prune(tx: Transaction) -> None:
    tx.run(
        "DELETE FROM changes WHERE number <= (SELECT max(number) FROM changes) - ?", _KEPT_CHANGES
    )

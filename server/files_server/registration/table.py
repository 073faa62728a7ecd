"""Registered locations: which URI may be registered under which alias, and the rows that say so.

It must not open files of a location beyond finding them (`locations.py` does): no byte moves.
The table is small and read with each request, so it is held in memory; the writer's transactions
change the rows, and the copy follows each of them.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from files_server.catalog.database import Transaction
from files_server.errors import ALIAS, ApiError, not_found, shown
from files_server.names import check_bucket
from files_server.registration import locations
from files_server.registration.locations import Location

AVAILABLE, UNAVAILABLE = "available", "unavailable"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
T = TypeVar("T")


class Writer(Protocol):
    """What changes the catalog."""

    def write(self, mutation: Callable[[Transaction], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Registration:
    """One row. `key` "": the bucket shows the whole location."""

    bucket: str
    key: str
    location: Location
    writable: bool
    created_at: int  # Unix seconds

    def status(self) -> str:
        """Whether it can be reached now. Blocks."""
        try:
            locations.find(self.location, self.key)
        except ApiError:
            return UNAVAILABLE
        return AVAILABLE


@dataclass(slots=True)
class Registered:
    """All that is registered under one alias: the whole location, or files of it, or both."""

    location: Location
    whole: Registration | None = None
    files: dict[str, Registration] = field(default_factory=dict)

    @property
    def created_at(self) -> int:
        return min(row.created_at for row in self)

    def __iter__(self) -> Iterator[Registration]:
        if self.whole:
            yield self.whole
        yield from self.files.values()

    def covers(self, key: str) -> bool:
        """Whether `key` is visible: registered, or a directory above something that is."""
        if self.whole or key in self.files or not key:
            return True
        return any(name.startswith(key + "/") for name in self.files)

    def writable(self, key: str) -> bool:
        row = self.files.get(key) or self.whole
        return row is not None and row.writable

    @property
    def read_only(self) -> bool:
        return not any(row.writable for row in self)


class Registrations:
    """Owns the table of registrations in memory. Sync but for what writes."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [Path(os.path.realpath(root)) for root in roots]
        self._table: dict[str, Registered] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        """Read all rows; at startup."""
        self._table = {}
        for row in connection.execute(f"SELECT {_COLUMNS} FROM registrations"):
            self._remember(_row(row))

    def get(self, bucket: str) -> Registered | None:
        """What is registered under this alias; None for a managed bucket."""
        return self._table.get(bucket)

    def aliases(self) -> list[str]:
        return sorted(self._table)

    async def register(
        self, writer: Writer, location: Location, alias: str, key: str, writable: bool | None
    ) -> Registration:
        """Record a location, or (with `key`) one file of it; what is there stays as it is.

        `writable` None: read-only, or as before. Raises ApiError 409 for an alias that is taken.
        """
        row = await writer.write(lambda tx: _register(tx, location, alias, key, writable))
        self._remember(row)
        return row

    async def forget(self, writer: Writer, bucket: str, key: str | None = None) -> None:
        """Drop a whole alias, or the registration of one file; the data stays. ApiError 404."""
        await writer.write(lambda tx: _forget(tx, bucket, key))
        registered = self._table.get(bucket)
        if registered and key is not None:
            registered.files.pop(key, None)
        if registered and (key is None or not list(registered)):
            self._table.pop(bucket, None)

    def known(self, path: Path, key: str) -> Registration | None:
        """The registration of this location (and file) that is there already."""
        rows = (row for registered in self._table.values() for row in registered)
        return next((row for row in rows if row.location.path == path and row.key == key), None)

    def resolve(self, uri: str) -> Path:
        """The folder that a URI names. ApiError 400, 403 or 501; it need not exist. Blocks."""
        path = Path(os.path.realpath(path_of(uri)))
        if not any(path.is_relative_to(root) for root in self._roots):
            allowed = "below the configured roots" if self._roots else "where a root is configured"
            raise ApiError(
                403, f"{shown(uri)} may not be registered; file:// is allowed {allowed}."
            )
        return path

    def _remember(self, row: Registration) -> None:
        registered = self._table.setdefault(row.bucket, Registered(row.location))
        if row.key:
            registered.files[row.key] = row
        else:
            registered.whole = row


def path_of(uri: str) -> str:
    """The absolute path in a `file:` URI. ApiError 400 for a bad one, 501 for other schemes."""
    match = _SCHEME.match(uri)
    if match is None:
        raise ApiError(400, f"{shown(uri)} is no storage URI such as file:///data.")
    if match.group(1).lower() != "file":
        raise ApiError(501, f"The scheme of {shown(uri)} is not supported here; file:// is.")
    try:
        parts = urlsplit(uri)
        path = unquote_to_bytes(parts.path).decode()
    except ValueError:
        raise ApiError(400, f"{shown(uri)} is no well-formed URI.") from None
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ApiError(400, f"{shown(uri)} must be file:///PATH, without host, query or fragment.")
    if not path.startswith("/") or "\0" in path:
        raise ApiError(400, f"{shown(uri)} names no absolute path.")
    return path


def alias_of(uri: str, name: str | None) -> str:
    """The bucket name for a URI: `name`, or its last component made valid."""
    if name is not None:
        return check_bucket(name)
    last = path_of(uri).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_-]", "_", last)[:255] or "root"


_COLUMNS = "bucket, key, uri, writable, created_at, mountpoint"


def _row(row: tuple[str, str, str, int, int, str | None]) -> Registration:
    bucket, key, uri, writable, created_at, mountpoint = row
    location = Location(Path(path_of(uri)), None if mountpoint is None else Path(mountpoint))
    return Registration(bucket, key, location, bool(writable), created_at)


def _register(
    tx: Transaction, location: Location, alias: str, key: str, writable: bool | None
) -> Registration:
    """What is there keeps its mount point: asking again while the disk is away must not make the
    empty folder below it the location."""
    uri = location.path.as_uri()
    _check_alias(tx, alias, uri)
    found = tx.one(f"SELECT {_COLUMNS} FROM registrations WHERE bucket = ? AND key = ?", alias, key)
    if found is None:
        row = (alias, key, uri, int(bool(writable)), tx.now, _mountpoint(tx, location, alias))
        tx.run(f"INSERT INTO registrations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", *row)
        return _row(row)
    before = _row((found[0], found[1], found[2], found[3], found[4], found[5]))
    if writable is None or writable == before.writable:
        return before
    tx.run(
        "UPDATE registrations SET writable = ? WHERE bucket = ? AND key = ?",
        int(writable), alias, key,
    )  # fmt: skip
    return replace(before, writable=writable)


def _mountpoint(tx: Transaction, location: Location, alias: str) -> str | None:
    """Of one alias all rows say the same."""
    known = tx.one("SELECT mountpoint FROM registrations WHERE bucket = ? LIMIT 1", alias)
    if known:
        return None if known[0] is None else str(known[0])
    return None if location.mountpoint is None else str(location.mountpoint)


def _check_alias(tx: Transaction, alias: str, uri: str) -> None:
    managed = tx.one("SELECT 1 FROM nodes WHERE parent_id = 0 AND sort_name = ?", alias)
    other = tx.one("SELECT uri FROM registrations WHERE bucket = ? AND uri != ?", alias, uri)
    if managed or other:
        holder = f"the location {shown(str(other[0]))}" if other else "a managed bucket"
        raise ApiError(
            409,
            f"The name {shown(alias)} belongs to {holder}; choose another one with ?name=.",
            reason=ALIAS,
        )


def _forget(tx: Transaction, bucket: str, key: str | None) -> None:
    condition, values = "bucket = ?", [bucket]
    if key is not None:
        condition, values = "bucket = ? AND key = ?", [bucket, key]
    if tx.one(f"SELECT 1 FROM registrations WHERE {condition}", *values) is None:
        raise not_found(bucket, key or "")
    tx.run(f"DELETE FROM registrations WHERE {condition}", *values)

"""What is not on the server yet, on disk before it is acknowledged.

Owner of the journal's folder: its lock, its log, its spool files. It must not talk to the server;
replay.py does. Sync, and it waits for the disk: `buffer.sync(INLINE)` first makes a `keep` of many
bytes short.

A record is a snapshot: what is written into the buffer later does not change it. Two records of one
file follow on each other (`Record.after`); when the first is stored, the second is from then on a
change of that version, and the same line of the log says both.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from filesfs.domain import AttributeChange, Entry, Location
from filesfs.errors import UsageError
from filesfs.write.buffer import WriteBuffer
from filesfs.write.log import RecordLog, sync_above
from filesfs.write.records import (
    FORMAT,
    JournalId,
    Payload,
    Record,
    done,
    entry_from_json,
    entry_to_json,
    from_json,
    to_json,
)
from filesfs.write.spool import SpoolFile, SpoolFolder
from filesfs.write.upload import Target

__all__ = ["Journal", "JournalId", "Record"]

log = logging.getLogger(__name__)

# Records of what is done by now are dropped when the log has grown this much beyond those that
# are not.
_COMPACT_AT = 1 << 20
# Dirty bytes up to this many stand in the record itself: one wait for the disk instead of three.
# They stay in memory until the server has them, so this is for small files only.
INLINE = 16 << 10


class Journal:
    """The log and the spool of one mount. One daemon at a time, one server."""

    def __init__(self, folder: Path, server_id: str, lock: int) -> None:
        self.folder = folder
        self.spool = SpoolFolder(folder / "spool")
        self._server_id = server_id
        self._lock = lock
        self._log = RecordLog(folder / "journal.log")
        # In replay order. A record's spool file outlives the record.
        self._records: dict[JournalId, Record] = {}
        self._followers: dict[JournalId, JournalId] = {}  # by `Record.after`; one each
        # Of those that this process kept: a hold on the spool file.
        self._files: dict[JournalId, SpoolFile] = {}
        self._compacted = 0  # bytes of the log when it was last rewritten
        self._next = 1

    @classmethod
    def open(cls, folder: Path, server_id: str) -> Journal:
        """Lock the folder and read what an earlier mount left.

        UsageError: another daemon has it, a newer filesfs wrote it, or it holds another server's
        changes.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(folder)
        try:
            journal = cls(folder, server_id, lock)
            try:
                journal._load()
                sync_above(folder)
            except BaseException:
                journal._log.close()
                raise
        except BaseException:
            os.close(lock)
            raise
        return journal

    # -- what to keep -----------------------------------------------------------------------------
    def keep(
        self,
        buffer: WriteBuffer,
        target: Target,
        id: JournalId | None = None,
        after: JournalId | None = None,
    ) -> JournalId:
        """The buffer's content and where it goes, durable when this returns; replaces the record
        `id`, which must not have been sent. `after`: the file's record that comes before it.

        OSError (ENOSPC, EIO) if the disk does not take it: the record `id` is then as it was.
        """
        number = self._number(id)
        data = buffer.small(INLINE)
        if data is None:
            file = buffer.spill()
            file.sync()
            self.spool.sync()
            self._append(_upload(number, buffer, target, file.name, b"", after))
            buffer.freeze()
            file.hold()
        else:
            file = None
            self._append(_upload(number, buffer, target, "", data, after))
        self._replace_file(number, file)
        return number

    def _replace_file(self, id: JournalId, file: SpoolFile | None) -> None:
        former = self._files.pop(id, None)
        if file is not None:
            self._files[id] = file
        if former is not None:
            former.release()

    def note_attributes(
        self, location: Location, change: AttributeChange, after: JournalId
    ) -> JournalId:
        """A change of attributes that follows the record `after`, durable when this returns."""
        number = self._number(None)
        self._append(Record(number, location, int(time.time()), change, after=after))
        return number

    def add_attributes(self, id: JournalId, change: AttributeChange) -> None:
        """A record that was not sent yet takes a change along, durable when this returns; it keeps
        its place in the order.
        """
        record = self._records[id]
        self._write(replace(record, change=record.change.then(change)), in_place=True)

    def move(self, id: JournalId, location: Location, mime_type: str) -> None:
        """A record that was not sent yet goes elsewhere, and last; durable when this returns."""
        record = self._records[id]
        payload = record.payload and replace(record.payload, mime_type=mime_type)
        self._append(replace(record, location=location, payload=payload))

    def _number(self, id: JournalId | None) -> JournalId:
        if id is not None:
            return id
        self._next += 1
        return JournalId(self._next - 1)

    def _append(self, record: Record) -> None:
        """A record that is replaced moves to the end: what was noted since does not know its new
        state.
        """
        self._write(record, in_place=False)

    def _write(self, record: Record, *, in_place: bool) -> None:
        value = to_json(record)
        self._append_line({**value, "in_place": True} if in_place else value)
        self._take(record, in_place)
        self._shorten()

    def _append_line(self, line: dict[str, Any], *, durable: bool = True) -> None:
        if self._log.doubtful:
            self._compact()
        self._log.append(line, durable=durable)

    def _take(self, record: Record, in_place: bool) -> None:
        if not in_place:
            self._records.pop(record.id, None)
        self._records[record.id] = record
        if record.after is not None:
            self._followers[record.after] = record.id

    # -- what is done -----------------------------------------------------------------------------
    def stored(self, id: JournalId, entry: Entry) -> None:
        """The server has it, as `entry`: what follows it is a change of that version."""
        self._done(id, {"stored": id, "entry": entry_to_json(entry)})

    def forget(self, id: JournalId) -> None:
        """Nobody wants it any more, or it is stored under another name."""
        self._done(id, {"forget": id})

    def _done(self, id: JournalId, line: dict[str, Any]) -> None:
        """Not waited for: if the disk never gets it, the next start finds it out again. For that it
        needs the spool file, if there is one: that goes once the line is certain.
        """
        record = self._records.get(id)
        if record is None:
            return
        spooled = record.payload is not None and bool(record.payload.spool)
        self._cross_out(line)
        try:
            self._append_line(line, durable=spooled)
        except OSError as error:
            log.warning("%s: %s is done, and cannot be crossed out: %s", self.folder, record, error)
            if (file := self._files.pop(id, None)) is not None:
                file.leave()
            return
        self._let_go(record)
        self._shorten()

    def _cross_out(self, line: dict[str, Any]) -> None:
        id = done(line)
        record = self._records.get(id) if id is not None else None
        if record is None:
            return
        follower = self.follower(record)
        del self._records[record.id]
        self._followers.pop(record.id, None)
        if follower is not None and "entry" in line:
            entry = entry_from_json(line["entry"])
            once = follower.once_dressed if record.payload is None else follower.once_stored
            self._records[follower.id] = once(entry)
        elif follower is not None:
            self._records[follower.id] = replace(follower, after=None)

    def _let_go(self, record: Record) -> None:
        file = self._files.pop(record.id, None)
        if file is not None:
            file.release()
        elif record.payload is not None and record.payload.spool not in self._spools():
            (self.spool.path / record.payload.spool).unlink(missing_ok=True)

    def _spools(self) -> set[str]:
        """The spool files that records need, and "", which is none."""
        records = self._records.values()
        return {"", *(record.payload.spool for record in records if record.payload)}

    # -- what is kept -----------------------------------------------------------------------------
    def pending(self) -> tuple[Record, ...]:
        """All that the server does not have, in order."""
        return tuple(self._records.values())

    def __len__(self) -> int:
        """How many records are pending."""
        return len(self._records)

    def get(self, id: JournalId) -> Record | None:
        """The record as it is by now; None when it is done."""
        return self._records.get(id)

    def follower(self, record: Record) -> Record | None:
        """What is pending of the same file and comes right after this record."""
        id = self._followers.get(record.id)
        return self._records.get(id) if id is not None else None

    def restore(self, record: Record) -> WriteBuffer:
        """The content of a record, in a buffer of its own. FileNotFoundError if its spool file is
        gone.
        """
        payload = record.payload
        assert payload is not None
        return WriteBuffer.restored(
            self.spool,
            self.spool.open(payload.spool) if payload.spool else payload.data,
            size=payload.size,
            base_size=payload.base_size,
            base_end=payload.base_end,
            extents=payload.extents,
        )

    # -- the folder -------------------------------------------------------------------------------
    def _load(self) -> None:
        values = self._log.read()
        records, header = values[1:], (values[0] if values else None)
        if header is not None:
            self._check_format(header)
        for value in records:
            self._apply(value)
        if header is not None and self._records:
            self._check_server(header)
        self._next = max(self._records, default=0) + 1
        self._clear_orphans()
        try:
            self._compact()
        except OSError as error:  # a full disk: what is in there has to go up all the more
            if header is None:
                raise UsageError(
                    f"cannot write to the cache folder {self.folder}: {error.strerror};"
                    " make room, or choose another with -o cache_dir=DIR",
                    32,
                ) from error
            log.warning("%s: not compacted: %s", self.folder, error)

    def _check_format(self, header: dict[str, Any]) -> None:
        if header.get("format", 0) > FORMAT:
            raise UsageError(
                f"{self.folder}: its journal has format {header['format']}, this filesfs knows "
                f"formats up to {FORMAT}; mount with the newer filesfs, or give another folder"
            )

    def _check_server(self, header: dict[str, Any]) -> None:
        if header.get("server_id") != self._server_id:
            raise UsageError(
                f"{self.folder}: its journal holds {len(self._records)} changes for the server "
                f"{header.get('server_id')!r}, and this is {self._server_id!r}; mount that server "
                "with this cache folder until they are stored, or give another cache folder"
            )

    def _apply(self, value: dict[str, Any]) -> None:
        if done(value) is not None:
            self._cross_out(value)
        else:
            self._take(from_json(value), value.get("in_place", False))

    def _clear_orphans(self) -> None:
        """Remove spool files that no record names: their writes were never acknowledged as durable.

        After a torn log that is not certain, if it was the disk that lost bytes: set aside what
        there is.
        """
        named = self._spools()
        for path in self.spool.path.iterdir():
            if path.name in named or not path.is_file():
                continue
            if self._log.torn and path.stat().st_size:
                aside = self.folder / "recovered"
                aside.mkdir(mode=0o700, exist_ok=True)
                log.warning("%s: in no record; moved to %s", path, aside)
                path.rename(aside / path.name)
            else:
                path.unlink()

    def _shorten(self) -> None:
        """Nothing is wrong if it fails: the log is as it was."""
        if self._log.length <= 2 * self._compacted + _COMPACT_AT:
            return
        try:
            self._compact()
        except OSError as error:
            log.warning("%s: the journal's log stays long: %s", self.folder, error)

    def _compact(self) -> None:
        header = {"format": FORMAT, "server_id": self._server_id}
        self._log.rewrite([header, *map(to_json, self._records.values())])
        self._compacted = self._log.length

    def close(self) -> None:
        """Give the folder back. What is pending stays in it."""
        for file in self._files.values():
            file.leave()
        self._files.clear()
        self._log.close()
        os.close(self._lock)


def _upload(
    id: JournalId,
    buffer: WriteBuffer,
    target: Target,
    spool: str,
    data: bytes,
    after: JournalId | None,
) -> Record:
    payload = Payload(
        spool=spool,
        data=data,
        size=buffer.size,
        base_size=buffer.base_size,
        base_end=buffer.base_end,
        extents=buffer.extents,
        mime_type=target.mime_type,
        base=target.base,
        resource_id=target.resource_id,
        only_new=target.only_new,
        if_match=target.if_match,
    )
    return Record(id, target.location, int(time.time()), target.change, payload, after)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock until it is closed."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 100, 0).decode(errors="replace").strip()
        os.close(lock)
        raise UsageError(
            f"{folder}: in use by another filesfs{f' (process {holder})' if holder else ''}; "
            "unmount that one first, or give this mount a cache folder of its own"
        ) from error
    with contextlib.suppress(OSError):  # a full disk; the number is only for messages
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock

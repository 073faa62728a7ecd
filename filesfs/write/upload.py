"""Sends a buffer's content to the server as one new version.

It must not change what the buffer holds: the caller rebases it once it has taken the new entry
over, without an `await` between the two. Whatever goes wrong, every dirty byte is still in the
buffer.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import trio

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import Entry, Kind
from filesfs.errors import (
    Conflict,
    Gone,
    InvalidRequest,
    NotFound,
    RequestError,
    Unavailable,
    Unsupported,
)
from filesfs.wire import Extension
from filesfs.write.buffer import BaseReader, WriteBuffer
from filesfs.write.plan import COPY_AT_LEAST, Step, plan
from filesfs.write.records import same_version
from filesfs.write.sending import cancel, send_steps
from filesfs.write.stream import Stream
from filesfs.write.target import Target

__all__ = ["Target", "Uploader"]

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # a session that the server lost is started again this often
# Each has a part in memory.
_MOST_STREAMS = 8
# A writer that keeps going back to its header would have the file sent again each time.
_STREAMS_A_COMMIT = 2


class _SessionLost(Gone):
    """Gone in the middle of a session; when the resource itself is gone, opening the next one
    says so.
    """


@dataclass(frozen=True, slots=True)
class _Landed:
    """A stream's content is committed, its last attributes are not: only they are still to be
    sent.
    """

    generation: int
    stream: Stream
    entry: Entry


class Uploader:
    """Commits buffers. One commit of a buffer at a time: the inode's lock is the caller's."""

    def __init__(
        self,
        backend: FilesBackend,
        nursery: trio.Nursery | None,
        part_bytes: int = 8 << 20,
        put_limit: int = 1 << 20,
    ) -> None:
        """A file of at most `put_limit` bytes goes in one request, else in `part_bytes` each.

        Streams run in `nursery`; None: nothing is sent before its commit.
        """
        self._backend = backend
        self._nursery = nursery
        self._part_bytes = part_bytes
        self._put_limit = put_limit
        self._streams: dict[WriteBuffer, Stream] = {}
        self._begun: WeakKeyDictionary[WriteBuffer, int] = WeakKeyDictionary()
        self._landed: WeakKeyDictionary[WriteBuffer, _Landed] = WeakKeyDictionary()
        self._committing: set[WriteBuffer] = set()  # no stream begins or is fed meanwhile

    # -- commit -----------------------------------------------------------------------------------
    async def commit(self, buffer: WriteBuffer, target: Target, base: BaseReader) -> Entry:
        """Upload the whole content and return the new entry; then the caller rebases the buffer.

        Compare `buffer.generation` from before: if it moved, writes came meanwhile, the buffer must
        stay dirty, and another commit is due. Raises what the backend and `base` raise:
        PreconditionFailed, Gone when the resource has no name left, Stale when the base is no more,
        Unavailable, NoSpace, ...
        """
        self._committing.add(buffer)
        try:
            entry = await self._commit(buffer, target, base)
        finally:
            self._committing.discard(buffer)
        self._begun.pop(buffer, None)
        return entry

    async def _commit(self, buffer: WriteBuffer, target: Target, base: BaseReader) -> Entry:
        landed = self._landed.get(buffer)
        if landed is not None:
            if landed.generation == buffer.generation and landed.stream.serves(target):
                return await self._dress(buffer, landed.entry, target)
            # What is there by now is our own.
            etag = landed.entry.etag if target.if_match else None
            target = replace(target, only_new=False, if_match=etag)
        entry = await self._stream_end(buffer, target, base)
        if entry is None:
            entry = await self._anew(buffer, target, base)
        self._landed.pop(buffer, None)
        return entry

    async def _anew(self, buffer: WriteBuffer, target: Target, base: BaseReader) -> Entry:
        if buffer.size <= self._put_limit:
            return await self._put(buffer, target, base)
        if self._copies(buffer, target):
            try:
                return await self._session(buffer, target, base, copy=True)
            except RequestError as error:
                # That version may be superseded, or be no more; what failed for another reason
                # fails again.
                log.info("%s: not from the server's copy: %s", target.location, error)
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._session(buffer, target, base, copy=False)
            except _SessionLost:
                continue
        try:
            return await self._session(buffer, target, base, copy=False)
        except _SessionLost as error:  # not Gone: the file is there, for all we know
            raise Unavailable(f"the upload was lost {_ATTEMPTS} times: {error}") from error

    async def _put(self, buffer: WriteBuffer, target: Target, base: BaseReader) -> Entry:
        return await self._backend.put(
            target.location,
            await buffer.read(0, buffer.size, base),
            target.mime_type,
            target.change,
            only_new=target.only_new,
            if_match=target.if_match,
            resource_id=target.resource_id,
        )

    def _copies(self, buffer: WriteBuffer, target: Target) -> bool:
        """The server can take unchanged parts from the version that it has."""
        known = target.base is not None and target.base.etag is not None
        able = Extension.RANGES_UPLOAD in self._backend.extensions
        return able and known and buffer.base_end >= COPY_AT_LEAST

    async def _session(
        self, buffer: WriteBuffer, target: Target, base: BaseReader, *, copy: bool
    ) -> Entry:
        steps = plan(buffer.layout(0, buffer.size), self._part_bytes, copy=copy)
        session = await self._backend.open_upload(
            target.location,
            target.mime_type,
            target.change,
            size=buffer.size,
            only_new=target.only_new,
            if_match=target.if_match,
            resource_id=target.resource_id,
            base=target.base.etag if target.base is not None and copy else None,
            begin=_begins_with(steps, target.base),
        )
        steps = [step for step in steps if step.end > session.offset]
        try:
            return await send_steps(session, steps, buffer, base)
        except Gone as error:
            await cancel(session)
            raise _SessionLost(str(error)) from error
        except BaseException:
            await cancel(session)
            raise

    # -- streams ----------------------------------------------------------------------------------
    def note_write(self, buffer: WriteBuffer, target: Callable[[], Target]) -> bool:
        """After each write: begin, feed or give up the stream of a file that is written from its
        start. Whether the writer is so far ahead of it that `room` would have him wait.
        """
        stream = self._streams.get(buffer)
        if stream is None:
            enough = buffer.size >= self._part_bytes and buffer.run >= self._part_bytes
            if enough and self._may_begin(buffer):
                self._begin(buffer, target())
            return False
        if buffer.intact:
            stream.wrote()
            return stream.is_behind
        stream.drop()
        self._let_go(buffer)
        return False

    def _may_begin(self, buffer: WriteBuffer) -> bool:
        return (
            self._nursery is not None
            and buffer not in self._committing
            and buffer.base_end <= buffer.run  # nothing of the base shows behind what is written
            and len(self._streams) < _MOST_STREAMS
            and self._begun.get(buffer, 0) < _STREAMS_A_COMMIT
            and Extension.DEFER_LENGTH in self._backend.extensions
        )

    def _begin(self, buffer: WriteBuffer, target: Target) -> None:
        assert self._nursery is not None
        self._begun[buffer] = self._begun.get(buffer, 0) + 1
        buffer.restart()
        stream = self._streams[buffer] = Stream(self._backend, buffer, target, self._part_bytes)
        self._nursery.start_soon(stream.run)

    def _let_go(self, buffer: WriteBuffer) -> Stream | None:
        return self._streams.pop(buffer, None)

    async def room(self, buffer: WriteBuffer) -> None:
        """Slow a writer that is far ahead of its stream."""
        stream = self._streams.get(buffer)
        if stream is not None and stream.is_behind:
            await stream.room()

    async def discard(self, buffer: WriteBuffer) -> None:
        """The file is unlinked, or its content replaced: nothing of a running stream is wanted."""
        stream = self._let_go(buffer)
        self._landed.pop(buffer, None)
        if stream is not None:
            await stream.void()

    async def _stream_end(
        self, buffer: WriteBuffer, target: Target, base: BaseReader
    ) -> Entry | None:
        """Commit through the stream. None: there is none that serves, so all goes anew."""
        stream = self._let_go(buffer)
        if stream is None:
            return None
        if not stream.serves(target) or stream.is_outgrown:
            await stream.void()
            return None
        generation = buffer.generation
        try:
            entry = await stream.finish(base)
        except (Gone, Conflict, InvalidRequest) as error:  # the last: bytes were garbled on the way
            log.info("%s: the upload ahead of close was lost: %s", target.location, error)
            return None
        if entry is None or stream.change == target.change:
            return entry
        # If this fails, the commit fails, and the next one has only this left to do.
        self._landed[buffer] = _Landed(generation, stream, entry)
        return await self._dress(buffer, entry, target)

    async def _dress(self, buffer: WriteBuffer, entry: Entry, target: Target) -> Entry:
        """Give a committed stream the attributes that changed since it began."""
        try:
            dressed = await self._backend.set_attributes(entry.location, Kind.FILE, target.change)
            entry = dressed if same_version(dressed, entry) else entry
        except (Unsupported, NotFound) as error:  # kept by the mount; or removed by now
            log.info("%s: %s", entry.location, error)
        del self._landed[buffer]
        return entry


def _begins_with(steps: list[Step], base: Entry | None) -> int:
    """The length of `base` if these steps begin with a copy of all of it, else 0."""
    copied = 0
    for step in itertools.takewhile(lambda step: step.copy, steps):
        copied = step.end
    return copied if base is not None and copied == base.size else 0

"""Receives content: upload sessions and one-request PUTs, until they are committed.

It must not parse requests. Bytes count only once they are synced; a commit answers only once the
catalog has it. One request at a time works on a session; a later one with an offset takes over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from files_server.blobs.checksums import checksums
from files_server.blobs.local import LocalBlobs, UploadFile
from files_server.catalog import commits, sessions
from files_server.catalog.commits import Content, Outcome
from files_server.catalog.database import Mutation, Transaction
from files_server.catalog.sessions import COMPLETE, Session, Wish
from files_server.catalog.store import Catalog
from files_server.digests import Digests
from files_server.errors import BUSY, OFFSET, ApiError
from files_server.errors import COMPLETE as DONE
from files_server.receiving import Receiver, gather, settled
from files_server.settings import Settings

_OPEN_FILES = 256  # of sessions; far below the usual limit of 1,024 descriptors
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One request's body. `length` None: chunked. `offset`, `total`: Upload-Offset and -Length."""

    stream: AsyncIterator[bytes]
    length: int | None
    offset: int | None = None
    total: int | None = None
    digests: Digests = field(default_factory=Digests)
    copy_base: int = 0


class _Active:
    """A session that a request works on right now, with its open file."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Outcome | None] | None = None
        self.committing = False  # from here on the running request is not ended any more
        self.file: UploadFile | None = None


class Uploads:
    """Owns the sessions' files and who works on which. Event loop only."""

    def __init__(
        self, settings: Settings, catalog: Catalog, blobs: LocalBlobs, pool: ThreadPoolExecutor
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._blobs = blobs
        self._pool = pool
        self._active: dict[str, _Active] = {}
        self._receiver = Receiver(pool, catalog.make_room)

    async def create(self, wish: Wish, size: int | None, origin: str) -> Session:
        """Op 1. ApiError 409, 412, 413, 429."""
        self._check_size(size or 0)
        session = Session(secrets.token_urlsafe(24), wish, size, 0, sessions.OPEN, 0, None)
        limit = self._settings.max_sessions

        def insert(tx: Transaction) -> None:
            if not wish.resource_id:
                commits.check_place(tx, wish.bucket, wish.key, wish.conditions)
            row = tx.one("SELECT count(*) FROM sessions WHERE state = 0")
            if row and row[0] >= limit:
                raise ApiError(
                    429, f"There are {limit} open upload sessions.", headers={"Retry-After": "10"}
                )
            sessions.insert(tx, session)

        await self._catalog.write(insert, origin)
        return session

    def find(self, session_id: str) -> Session:
        """ApiError 404, 410."""
        return sessions.find(self._catalog.reader, session_id)

    async def cancel(self, session_id: str) -> None:
        """Give a session up; its bytes go. ApiError 404, 410."""
        active = self._active.get(session_id)
        if active:
            await _end(active)
        await self._catalog.write(lambda tx: sessions.cancel(tx, session_id))
        self._forget(session_id)
        await self._in_thread(self._blobs.remove_upload, session_id)

    async def collect(self) -> None:
        """Forget idle and long completed sessions."""
        idle, done = self._settings.session_idle_seconds, self._settings.completed_session_seconds
        busy = [name for name, active in self._active.items() if active.task is not None]
        for session_id in await self._catalog.write(
            lambda tx: sessions.collect(tx, idle, done, busy)
        ):
            self._forget(session_id)
            await self._in_thread(self._blobs.remove_upload, session_id)

    async def append(self, session_id: str, part: Part, origin: str) -> Outcome | None:
        """Op 2: the outcome once the file is complete. ApiError 400, 404, 409, 410, 412, 413."""
        active = self._active.setdefault(session_id, _Active())
        try:
            while active.task is not None:
                if part.offset is None:
                    raise ApiError(409, "Another request is sending to this session.", reason=BUSY)
                await _end(active)
            session = self.find(session_id)
        except ApiError:
            if active.task is None and active.file is None:
                self._active.pop(session_id, None)
            raise
        active.committing = False
        active.task = asyncio.create_task(self._append(active, session, part, origin))
        return await self._outcome_of(active, active.task)

    async def put(self, wish: Wish, part: Part, origin: str) -> Outcome:
        """Content and commit in one request. ApiError 400, 409, 410, 412, 413."""
        self._check_size(part.length or 0)
        keep = self._settings.superseded_seconds
        if part.length is not None and part.length <= self._settings.inline_limit:
            data = await gather(part.stream, part.length)
            part.digests.check(data)
            content = Content(len(data), checksums(data), data=data)
            commit = wish.commit(content, keep)
            return await self._catalog.write(lambda tx: commits.commit(tx, commit), origin)
        if not wish.resource_id:  # refused before it is read, like op 1; the commit checks again
            place = (wish.bucket, wish.key, wish.conditions)
            await self._catalog.write(lambda tx: commits.check_place(tx, *place), origin)
        upload = secrets.token_urlsafe(24)
        file = await self._in_thread(self._blobs.open_upload, upload)
        try:
            limit = self._settings.max_file_bytes if part.length is None else part.length
            await self._receiver.receive(file, part.stream, limit, part.length)
            await self._in_thread(part.digests.check_content, file, 0)
            await self._in_thread(part.digests.check_whole, file)
            content = await self._publish(file, upload)
            commit = wish.commit(content, keep)
            return await self._committed(
                file, upload, lambda tx: commits.commit(tx, commit), origin
            )
        finally:
            file.close()
            with suppress(OSError):
                self._blobs.remove_upload(upload)

    def close(self) -> None:
        for active in self._active.values():
            if active.file:
                active.file.close()

    async def _outcome_of(
        self, active: _Active, task: asyncio.Task[Outcome | None]
    ) -> Outcome | None:
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await _end(active)
            raise
        if task.cancelled():
            raise ApiError(409, "A later request took this upload session over.", reason=BUSY)
        return task.result()

    async def _append(
        self, active: _Active, session: Session, part: Part, origin: str
    ) -> Outcome | None:
        try:
            if session.state == COMPLETE:
                return await self._again(session, part)
            session = self._with_total(session, part)
            self._check_part(session, part)
            return await self._take(active, session, part, origin)
        finally:
            active.task = None
            if active.file is None:
                self._active.pop(session.id, None)
            elif len(self._active) > _OPEN_FILES:
                self._close_oldest()

    async def _again(self, session: Session, part: Part) -> Outcome:
        """A part for a session that is complete: only its last one, or nothing, is an answer."""
        length = part.length if part.length is not None else -1
        last = (session.size or 0) - session.last_offset
        same = length == last and part.offset in (None, session.last_offset)
        empty = length == 0 and part.offset in (None, session.offset)
        if not empty and not (same and await self._is_same(session, part)):
            raise ApiError(
                409,
                f"The upload session is complete, at {session.offset} bytes.",
                reason=DONE,
                headers={"Upload-Offset": str(session.offset)},
            )
        return session.outcome

    async def _is_same(self, session: Session, part: Part) -> bool:
        """Whether the body is what is stored. Length alone decides where that version is gone."""
        outcome, at = session.outcome, session.last_offset
        try:
            version = self._catalog.version_by_etag(outcome.node.etag, outcome.bucket, outcome.key)
        except ApiError:
            return True
        data = self._catalog.data(version.id) if version.blob is None else None
        same = True
        async for chunk in part.stream:
            if data is not None:
                stored = data[at : at + len(chunk)]
            else:
                blob = version.blob or ""
                stored = await self._in_thread(self._blobs.read, blob, at, len(chunk))
            same = same and stored == chunk
            at += len(chunk)
        return same

    def _with_total(self, session: Session, part: Part) -> Session:
        if part.total is None or session.size == part.total:
            return session
        if session.size is not None:
            raise ApiError(
                400, f"Upload-Length {part.total} is not the session's size, {session.size}."
            )
        if part.total < session.offset:
            raise ApiError(
                400, f"Upload-Length {part.total} is less than the {session.offset} bytes sent."
            )
        self._check_size(part.total)
        return replace(session, size=part.total)

    def _check_part(self, session: Session, part: Part) -> None:
        at = {"Upload-Offset": str(session.offset)}
        if part.offset is not None and part.offset != session.offset:
            raise ApiError(
                409,
                f"Upload-Offset {part.offset} is not where the upload is: {session.offset}.",
                reason=OFFSET,
                headers=at,
            )
        limit = self._settings.max_file_bytes if session.size is None else session.size
        if (part.length or 0) <= limit - session.offset:
            return
        if part.length == session.size:
            raise ApiError(
                409,
                f"{session.offset} of {session.size} bytes are here; send only the rest.",
                reason=OFFSET,
                headers=at,
            )
        raise ApiError(
            413, f"{part.length} bytes are more than the {limit - session.offset} that are left.",
            headers=at,
        )  # fmt: skip

    async def _take(
        self, active: _Active, session: Session, part: Part, origin: str
    ) -> Outcome | None:
        whole = session.offset == 0 and part.length == session.size and not part.copy_base
        small = (session.size or 0) <= self._settings.inline_limit
        if whole and small and session.size is not None and part.offset is None:
            data = await gather(part.stream, session.size)
            part.digests.check(data)
            content = Content(len(data), checksums(data), data=data)
            active.committing = True
            return await self._complete(session, content, 0, origin)
        file = active.file or await self._open(active, session)
        await self._fill(file, session, part)
        if file.length != session.size:
            return None
        active.committing = True
        content = await self._publish(file, session.id)
        keep = self._settings.superseded_seconds
        outcome = await self._committed(
            file, session.id,
            lambda tx: sessions.complete(tx, session, content, session.offset, keep), origin,
        )  # fmt: skip
        self._forget(session.id)
        if content.data is not None:
            await self._in_thread(self._blobs.remove_upload, session.id)
        return outcome

    async def _fill(self, file: UploadFile, session: Session, part: Part) -> None:
        """Append the part. All of it or nothing without an offset, else what arrived of it."""
        start, sums = file.length, file.sums.copy()
        left = (self._settings.max_file_bytes if session.size is None else session.size) - start
        keep = part.offset is not None
        record = (lambda length: self._advance(session.id, length)) if keep else None
        try:
            if part.copy_base:
                await self._copy_base(file, session, min(part.copy_base, left))
            await self._receiver.receive(file, part.stream, left, part.length, record)
            await self._in_thread(part.digests.check_content, file, start)
            if file.length == session.size:
                await self._in_thread(part.digests.check_whole, file)
        except BaseException as error:
            rejected = isinstance(error, ApiError) and error.status in (400, 413)
            if keep and not rejected:
                await self._sync(file, session.id)
            else:
                await self._in_thread(file.truncate, start, sums)
                if keep:  # some of it may be recorded already
                    await self._advance(session.id, start)
            raise
        if file.length != start or session.size is None or part.total is not None:
            await self._sync(file, session.id, part.total)

    async def _sync(self, file: UploadFile, session_id: str, size: int | None = None) -> None:
        await self._in_thread(file.sync)
        await self._advance(session_id, file.length, size)

    async def _advance(self, session_id: str, length: int, size: int | None = None) -> None:
        await self._catalog.write(lambda tx: sessions.advance(tx, session_id, length, size))

    async def _copy_base(self, file: UploadFile, session: Session, length: int) -> None:
        wish = session.wish
        version = self._catalog.version_by_etag(wish.base, wish.bucket, wish.key)
        start = file.length
        if version.size < start + length:
            raise ApiError(400, f"The base version has only {version.size} bytes.")
        if version.blob is None:
            data = self._catalog.data(version.id)
            await self._in_thread(file.append, [data[start : start + length]])
        else:
            await self._in_thread(file.copy_from, self._blobs.path(version.blob), length)

    async def _open(self, active: _Active, session: Session) -> UploadFile:
        file = await self._in_thread(self._blobs.open_upload, session.id)
        active.file = file
        await self._in_thread(file.restore, session.offset)
        return file

    async def _publish(self, file: UploadFile, blob: str) -> Content:
        """The received bytes as content that a commit can name; durable from here on."""
        if file.length <= self._settings.inline_limit:
            data = await self._in_thread(file.read)
            return Content(file.length, file.sums.value(), data=data)
        await self._in_thread(self._blobs.publish, file, blob)
        return Content(file.length, file.sums.value(), blob=blob)

    async def _committed(
        self, file: UploadFile, blob: str, mutation: Mutation[Outcome], origin: str
    ) -> Outcome:
        try:
            return await self._catalog.write(mutation, origin)
        except Exception:
            if file.length > self._settings.inline_limit:
                await self._in_thread(self._blobs.take_back, file, blob)
            raise

    async def _complete(
        self, session: Session, content: Content, last_offset: int, origin: str
    ) -> Outcome:
        keep = self._settings.superseded_seconds
        return await self._catalog.write(
            lambda tx: sessions.complete(tx, session, content, last_offset, keep), origin
        )

    def _close_oldest(self) -> None:
        """Sessions that nobody sends to just now may be many; their files are opened again."""
        idle = [name for name, active in self._active.items() if active.task is None]
        for session_id in idle[: len(self._active) - _OPEN_FILES]:
            self._forget(session_id)

    def _check_size(self, size: int) -> None:
        limit = self._settings.max_file_bytes
        if size > limit:
            raise ApiError(413, f"{size} bytes are more than a file may have here: {limit}.")

    def _forget(self, session_id: str) -> None:
        active = self._active.pop(session_id, None)
        if active and active.file:
            active.file.close()
            active.file = None

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await settled(self._pool, function, *args, **kwargs)


async def _end(active: _Active) -> None:
    """End the request that works on a session, or wait for it where it is committing."""
    task = active.task
    if task is None:
        return
    if not active.committing:
        task.cancel()
    await asyncio.wait({task})

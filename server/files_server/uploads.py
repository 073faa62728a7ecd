"""Receives content: upload sessions and one-request PUTs, until they are committed.

It must not parse requests. Bytes count only once they are synced; a commit answers only once the
catalog has it, or for a registered location (`places.py`) once its folder has it. One request at a
time works on a session; a later one with an offset takes over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from files_server import auth
from files_server.blobs.checksums import checksums
from files_server.blobs.layout import stored_form
from files_server.blobs.local import LocalBlobs
from files_server.blobs.upload import Mark, UploadFile
from files_server.borrowing import Borrowing, damage_told
from files_server.catalog import commits, keeping, sessions
from files_server.catalog.commits import Content, Outcome
from files_server.catalog.database import Mutation, Transaction
from files_server.catalog.sessions import COMPLETE, Session, Wish
from files_server.catalog.store import Catalog
from files_server.errors import BUSY, ApiError
from files_server.parts import Part, check_part, check_size, with_total
from files_server.places import Place, Places
from files_server.receiving import Receiver, gather, settled
from files_server.repeats import Repeats
from files_server.room import Room
from files_server.settings import Settings

_OPEN_FILES = 256  # of sessions; far below the usual limit of 1,024 descriptors
P = ParamSpec("P")
T = TypeVar("T")


class _Active:
    """A session that a request works on right now, with its open file."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Outcome | None] | None = None
        self.committing = False  # from here on the running request is not ended any more
        self.file: UploadFile | None = None


class Uploads:
    """Owns the sessions' files and who works on which. Event loop only."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        blobs: LocalBlobs,
        places: Places,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._blobs = blobs
        self._places = places
        self._pool = pool
        self._active: dict[str, _Active] = {}
        self._receiver = Receiver(pool, catalog.make_room)
        self._repeats = Repeats(catalog, blobs, pool)
        self._borrowing = Borrowing(catalog, blobs, pool)
        self._room = Room(catalog, blobs, pool, settings.inline_limit)

    async def create(
        self, wish: Wish, size: int | None, origin: str, repeat_key: str = "", begin: int = 0
    ) -> Session:
        """Op 1. The same `repeat_key` again is the same session: the answer was lost. `begin`: how
        long the base is, if all of it is wanted; the session begins there if that costs no copy.

        ApiError 409, 412, 413, 429, 507.
        """
        check_size(size or 0, self._settings.max_file_bytes)
        place = self._places.of(wish.bucket)
        if place:
            await self._in_thread(place.check, wish)
        session_id = self._repeats.session_id(wish.owner, repeat_key)
        wanted = begin if size is None or begin <= size else 0
        async with self._repeats.turn(session_id):
            known = repeat_key and sessions.exists(self._catalog.reader, session_id)
            asked = (session_id, wish, wanted, size)
            file = None if place or known else await self._borrowing.file(*asked)
            there, shared = (file.length, file.shared) if file else (0, (None, None))
            session = Session(session_id, wish, size, there, sessions.OPEN, 0, None, *shared)
            try:
                await self._room.check(wish, size, place, shares=file is not None)
                await self._insert(session, place, origin, repeat_key)
            except BaseException:
                await self._borrowing.drop(file, session_id)
                raise
        if file:
            self._active.setdefault(session_id, _Active()).file = file
            self._close_oldest()
        return self.find(session_id) if repeat_key else session

    async def _insert(
        self, session: Session, place: Place | None, origin: str, repeat_key: str
    ) -> None:
        wish, limit = session.wish, self._settings.max_sessions

        def insert(tx: Transaction) -> None:
            if repeat_key and sessions.is_repeated(tx, session):
                return
            if place is None and not wish.resource_id:
                commits.check_place(tx, wish.bucket, wish.key, wish.conditions)
            row = tx.one("SELECT count(*) FROM sessions WHERE state = 0")
            if row and row[0] >= limit:
                raise ApiError(
                    429, f"There are {limit} open upload sessions.", headers={"Retry-After": "10"}
                )
            sessions.insert(tx, session)

        await self._catalog.write(insert, origin)

    def find(self, session_id: str) -> Session:
        """ApiError 404, 410."""
        return sessions.find(self._catalog.reader, session_id)

    async def cancel(self, session_id: str) -> None:
        """Give a session up; its bytes go. ApiError 404, 410."""
        active = self._active.get(session_id)
        if active:
            await _end(active)
        await self._catalog.write(lambda tx: sessions.cancel(tx, session_id))
        await self._drop(session_id)

    async def collect(self) -> None:
        """Forget idle and long completed sessions."""
        idle, done = self._settings.session_idle_seconds, self._settings.completed_session_seconds
        busy = [name for name, active in self._active.items() if active.task is not None]
        gone = await self._catalog.write(lambda tx: sessions.collect(tx, idle, done, busy))
        for session_id in gone:
            await self._drop(session_id)

    async def append(self, session_id: str, part: Part, origin: str) -> Outcome | None:
        """Op 2: the outcome once the file is complete. ApiError 400, 404, 409, 410, 412, 413."""
        active = self._active.setdefault(session_id, _Active())
        try:
            while active.task is not None:
                if part.offset is None:
                    raise ApiError(409, "Another request is sending to this session.", reason=BUSY)
                await _end(active)
                # By now it may be forgotten, and another request at work on its successor.
                active = self._active.setdefault(session_id, _Active())
            session = self.find(session_id)
        except ApiError:
            if active.task is None and active.file is None:
                self._active.pop(session_id, None)
            raise
        active.committing = False
        active.task = asyncio.create_task(self._append(active, session, part, origin))
        return await self._outcome_of(active, active.task)

    async def put(self, wish: Wish, part: Part, origin: str) -> Outcome:
        """Content and commit in one request. ApiError 400, 409, 410, 412, 413, 507."""
        check_size(part.length or 0, self._settings.max_file_bytes)
        keep = keeping.asked_for(self._settings, auth.current().name)
        place = self._places.of(wish.bucket)
        if place is None and self._is_small(part.length):
            assert part.length is not None
            data = await gather(part.stream, part.length)
            part.digests.check(data)
            content = Content(len(data), checksums(data), data=data)
            commit = wish.commit(content, keep)
            return await self._catalog.write(lambda tx: commits.commit(tx, commit), origin)
        if place:  # refused before it is read, like op 1; the commit checks again
            await self._in_thread(place.check, wish)
        elif not wish.resource_id:
            at = (wish.bucket, wish.key, wish.conditions)
            await self._catalog.write(lambda tx: commits.check_place(tx, *at), origin)
        await self._room.check(wish, part.length, place)
        upload = secrets.token_urlsafe(24)
        file = await self._in_thread(self._blobs.open_upload, upload)
        try:
            limit = self._settings.max_file_bytes if part.length is None else part.length
            await self._receiver.receive(file, part.stream, limit, part.length)
            await self._in_thread(part.digests.check_content, file, 0)
            await self._in_thread(part.digests.check_whole, file)
            if place:
                return await self._land(place, file, wish, upload)
            content = await self._publish(file, upload)
            commit = wish.commit(content, keep)
            return await self._committed(
                file, upload, lambda tx: commits.commit(tx, commit), origin
            )
        finally:
            file.close()
            with suppress(OSError):
                await self._in_thread(self._blobs.remove_upload, upload)

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
            if session.state != COMPLETE and session.answer is not None:
                session = await self._settled(session)
            if session.state == COMPLETE:
                await self._repeats.check(session, part)
                return session.outcome
            limit = self._settings.max_file_bytes
            session = with_total(session, part, limit)
            check_part(session, part, limit)
            return await self._take(active, session, part, origin)
        finally:
            active.task = None
            if active.file is None:
                self._active.pop(session.id, None)
            self._close_oldest()

    async def _take(
        self, active: _Active, session: Session, part: Part, origin: str
    ) -> Outcome | None:
        place = self._places.of(session.wish.bucket)
        whole = session.offset == 0 and part.length == session.size and not part.copy_base
        direct = whole and part.offset is None and place is None and session.blocks is None
        if direct and session.size is not None and self._is_small(session.size):
            data = await gather(part.stream, session.size)
            part.digests.check(data)
            content = Content(len(data), checksums(data), data=data)
            active.committing = True
            return await self._complete(session, content, 0, origin)
        file = active.file or await self._open(active, session)
        if file.length != session.offset:  # of the last part the catalog could not be told
            await self._in_thread(file.restore, session.offset, session.blocks, session.crc32c)
        with damage_told(session.wish):
            await self._fill(file, session, part)
        if file.length != session.size:
            return None
        active.committing = True
        if place:
            outcome = await self._land(place, file, session.wish, session.id, marked=True)
            await self._remember(session, outcome)
        else:
            outcome = await self._commit(file, session, origin)
        self._forget(session.id)
        await self._in_thread(self._blobs.remove_upload, session.id)
        return outcome

    async def _fill(self, file: UploadFile, session: Session, part: Part) -> None:
        """Append the part. All of it or nothing without an offset, else what arrived of it."""
        start, mark, keep = file.length, file.mark(), part.offset is not None
        left = (self._settings.max_file_bytes if session.size is None else session.size) - start
        record = (lambda _: self._advance(session.id, file.mark())) if keep else None
        try:
            if part.copy_base:
                place = self._places.of(session.wish.bucket)
                left -= (length := min(part.copy_base, left))
                await self._borrowing.copy(file, session.wish, place, length)
            await self._receiver.receive(file, part.stream, left, part.length, record)
            await self._in_thread(part.digests.check_content, file, start)
            if file.length == session.size:
                await self._in_thread(part.digests.check_whole, file)
        except BaseException as error:
            rejected = isinstance(error, ApiError) and error.status in (400, 413)
            if keep and not rejected:
                await self._sync(file, session.id)
            else:
                if keep:  # some of what goes may be recorded, and must not be once it has gone
                    await self._advance(session.id, mark)
                await self._in_thread(file.back, mark)
            raise
        if file.length != start or session.size is None or part.total is not None:
            await self._sync(file, session.id, part.total)

    async def _sync(self, file: UploadFile, session_id: str, size: int | None = None) -> None:
        await self._in_thread(file.sync)
        await self._advance(session_id, file.mark(), size)

    async def _advance(self, session_id: str, mark: Mark, size: int | None = None) -> None:
        at = (session_id, mark.length, size, *mark.shared)
        await self._catalog.write(lambda tx: sessions.advance(tx, *at))

    async def _open(self, active: _Active, session: Session) -> UploadFile:
        at = (session.id, session.offset, session.blocks, session.crc32c)
        active.file = await self._in_thread(self._blobs.resume_upload, *at)
        return active.file

    async def _land(
        self, place: Place, file: UploadFile, wish: Wish, upload: str, *, marked: bool = False
    ) -> Outcome:
        """Commit to a registered location. `marked`: the session has to find it after a crash."""
        staged = await self._in_thread(place.stage, file, wish, upload)
        try:
            if marked:
                await self._catalog.write(lambda tx: sessions.mark(tx, upload, staged.mark))
            return await self._in_thread(staged.commit)
        finally:
            await self._in_thread(staged.drop)

    async def _remember(self, session: Session, outcome: Outcome) -> None:
        done = (session.id, outcome, session.offset)
        await self._catalog.write(lambda tx: sessions.finish(tx, *done))

    async def _settled(self, session: Session) -> Session:
        """A session whose commit to a location may have been the last that the server did."""
        place = self._places.of(session.wish.bucket)
        if place is None:
            return session
        asked = (session.wish, session.answer or "", self._blobs.upload_path(session.id))
        outcome = await self._in_thread(place.landed, *asked)
        if outcome is None:
            return session
        # The upload may be its other name; the file's version is that after it.
        await self._in_thread(self._blobs.remove_upload, session.id)
        outcome = await self._in_thread(place.landed, *asked) or outcome
        await self._remember(session, outcome)
        return self.find(session.id)

    async def _commit(self, file: UploadFile, session: Session, origin: str) -> Outcome:
        # An Idempotency-Key makes the same id again once the session is forgotten; a blob stays.
        blob = f"{session.id}.{secrets.token_hex(8)}"
        content = await self._publish(file, blob)
        keep = keeping.asked_for(self._settings, auth.current().name)
        done = (session, content, session.offset, keep)
        return await self._committed(file, blob, lambda tx: sessions.complete(tx, *done), origin)

    async def _publish(self, file: UploadFile, blob: str) -> Content:
        """The received bytes as content that a commit can name; durable from here on."""
        if file.length <= self._settings.inline_limit:
            data = await self._in_thread(file.read)
            return Content(file.length, file.sums.value(), data=data)
        await self._in_thread(self._blobs.publish, file, blob)
        return Content(file.length, file.sums.value(), None, blob, stored_form(file.blocks))

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
        keep = keeping.asked_for(self._settings, auth.current().name)
        asked = (session, content, last_offset, keep)
        return await self._catalog.write(lambda tx: sessions.complete(tx, *asked), origin)

    def _close_oldest(self) -> None:
        """Sessions that nobody sends to just now may be many; their files are opened again."""
        if (more := len(self._active) - _OPEN_FILES) > 0:
            idle = [name for name, active in self._active.items() if active.task is None]
            for session_id in idle[:more]:
                self._forget(session_id)

    def _is_small(self, length: int | None) -> bool:
        """Whether content of this length is kept in the catalog."""
        return length is not None and length <= self._settings.inline_limit

    async def _drop(self, session_id: str) -> None:
        """Forget a session that will not be committed, with its bytes."""
        file = self._active.pop(session_id, _Active()).file
        await self._in_thread(self._blobs.remove_upload, session_id, file)

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
    if not active.committing and not task.cancelling():  # twice would cut its last sync short
        task.cancel()
    await asyncio.wait({task})

"""A file's upload while it is still being written: a session of unknown length that runs ahead of
the commit.

It must not decide when to start or to commit: upload.py does. An error here is nobody's yet; the
stream is then dead, and the commit uploads everything anew.
"""

from __future__ import annotations

import logging

import trio
from crc32c import crc32c

from filesfs.backend.protocol import FilesBackend, UploadSession
from filesfs.domain import AttributeChange, Entry
from filesfs.errors import Unavailable
from filesfs.write.buffer import BaseReader, WriteBuffer
from filesfs.write.plan import plan
from filesfs.write.sending import cancel, send_steps
from filesfs.write.target import Target

log = logging.getLogger(__name__)

# A writer may be this many parts ahead of what the server has, then it waits: the rest of a fast
# writer's file would only pile up on the local disk, and its close() would take all the longer.
PARTS_AHEAD = 4
# Each write waits this long at most: one that the kernel asked for must not run into its deadline.
_ROOM_SECONDS = 1
# Bytes that are worth a way to the sending thread; a fast writer makes more while it is there.
_PUSH = 1 << 20
# A writer who pauses leaves no request open: the server takes a silent one for lost.
_PAUSE_SECONDS = 2
_RESUMES = 6  # without coming any further, the last after 3 s


class Stream:
    """One buffer's running session.

    `_sent` bytes from 0 on are the server's; the buffer watches over those taken, and
    `buffer.intact` tells whether they still hold. One user of the session at a time: the feeder
    until `_idle`, then `finish`.
    """

    def __init__(
        self, backend: FilesBackend, buffer: WriteBuffer, target: Target, part_bytes: int
    ) -> None:
        self._backend = backend
        self._buffer = buffer
        self._target = target
        self._part_bytes = part_bytes
        self._session: UploadSession | None = None
        self._sent = 0
        self._crc = 0  # crc32c of what is sent
        self._recovered = -1  # where it went on last
        self._vain = 0  # times in a row that it did not come further
        self._scope = trio.CancelScope()
        self._finishing = False
        self._idle = trio.Event()
        self._news: trio.Event | None = None  # while somebody waits
        self._wanted = part_bytes  # bytes ahead that the feeder waits for

    # -- the feeder -------------------------------------------------------------------------------
    async def run(self) -> None:
        """Send part after part until `finish` or `void`. Never raises: `finish` then finds no
        session.
        """
        fed = False
        try:
            with self._scope:
                await self._feed()
                fed = True
        except Exception as error:  # nobody waits for it here, and the daemon must live
            log.info("%s: upload ahead of close failed: %s", self._target.location, error)
        finally:
            await self._leave(fed)

    async def _feed(self) -> None:
        target = self._target
        self._session = await self._backend.open_upload(
            target.location,
            target.mime_type,
            target.change,
            size=None,
            only_new=target.only_new,
            if_match=target.if_match,
            resource_id=target.resource_id,
        )
        if self._session.pushes:
            await self._feed_chunks(self._session)
        else:
            await self._feed_parts(self._session)

    async def _feed_parts(self, session: UploadSession) -> None:
        """A request for each part."""
        while not self._finishing:
            if self._ahead < self._part_bytes:
                await self._wait()
                continue
            taken = self._buffer.take(self._sent, self._part_bytes)
            await session.send(b"".join(taken))
            self._sent += self._part_bytes
            self.tell()

    async def _feed_chunks(self, session: UploadSession) -> None:
        """One request for as long as the writer writes."""
        self._wanted = min(_PUSH, self._part_bytes)
        settled = True
        while not self._finishing or self._ahead >= self._wanted:
            try:
                if self._ahead >= self._wanted:
                    settled = False
                    await self._push(session)
                elif settled:
                    await self._wait()
                else:
                    settled = await self._wait_a_while(session)
            except Unavailable as error:
                await self._resume(session, error)
        while not settled:
            try:
                await session.settle()
                settled = True
            except Unavailable as error:
                await self._resume(session, error)
                while self._ahead >= self._wanted:
                    await self._push(session)

    async def _push(self, session: UploadSession) -> None:
        # Whole pieces: the page that is just being written would have to be copied.
        length = min(self._ahead, self._part_bytes) // self._wanted * self._wanted
        pieces = self._buffer.take(self._sent, length)
        self._crc = await session.push(pieces, self._crc)
        self._sent += length
        self.tell()

    async def _wait_a_while(self, session: UploadSession) -> bool:
        """Whether the writer paused, and nothing is under way any more."""
        with trio.move_on_after(_PAUSE_SECONDS):
            await self._wait()
            return False
        await session.settle()
        return True

    async def _resume(self, session: UploadSession, error: Unavailable) -> None:
        """The connection broke, or the server was started anew: go on where it is."""
        log.info("%s: upload ahead of close goes on: %s", self._target.location, error)
        sent = await session.recover()
        self._vain = self._vain + 1 if sent <= self._recovered else 0
        self._recovered = sent
        if self._vain > _RESUMES:
            raise error
        await trio.sleep(0.05 * 2**self._vain - 0.05)
        crc = at = 0
        while at < sent:
            length = min(sent - at, self._part_bytes)
            for piece in self._buffer.take(at, length):
                crc = crc32c(piece, crc)
            at += length
            await trio.lowlevel.checkpoint()
        self._sent, self._crc = sent, crc

    async def _leave(self, fed: bool) -> None:
        session = self._session
        if not fed:
            self._session = None
        self._idle.set()
        self.tell()
        if not fed and session is not None:
            await cancel(session)

    @property
    def _ahead(self) -> int:
        return self._buffer.run - self._sent

    # -- the writers' side ------------------------------------------------------------------------
    def tell(self) -> None:
        """Something changed: more bytes, or room for more."""
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _wait(self) -> None:
        if self._news is None:
            self._news = trio.Event()
        await self._news.wait()

    def wrote(self) -> None:
        """More bytes are there; wakes the feeder once they are enough."""
        if self._news is not None and self._ahead >= self._wanted:
            self.tell()

    @property
    def is_behind(self) -> bool:
        """The writer is far ahead of a stream that is alive."""
        most = PARTS_AHEAD * self._part_bytes
        written = self._buffer.size - self._sent  # at least what is ahead, and at hand
        return written > most and self._ahead > most and not self._idle.is_set()

    async def room(self) -> None:
        """Wait a while if it is behind."""
        with trio.move_on_after(_ROOM_SECONDS):
            while self.is_behind:
                await self._wait()

    def drop(self) -> None:
        """Give it up, without waiting."""
        self._scope.cancel()

    async def void(self) -> None:
        """Give it up, and return when nothing of it runs any more."""
        self.drop()
        await self._idle.wait()
        session, self._session = self._session, None
        if session is not None:
            await cancel(session)

    # -- the commit's side ------------------------------------------------------------------------
    @property
    def change(self) -> AttributeChange:
        """The attributes that it commits with."""
        return self._target.change

    def serves(self, target: Target) -> bool:
        """What this session makes of the sent bytes is, or can be turned into, what `target` asks
        for.
        """
        return (
            self._buffer.intact
            and _what(self._target) == _what(target)
            and may_follow(self._target.change, target.change)
        )

    @property
    def is_outgrown(self) -> bool:
        """Far more is left than was written in a row, as behind a truncate: in a session whose
        length it knows the server can refuse that before it is sent."""
        buffer = self._buffer
        return buffer.size - buffer.run > buffer.run + PARTS_AHEAD * self._part_bytes

    async def finish(self, base: BaseReader) -> Entry | None:
        """Send the rest and commit. None: it cannot serve any more; its session is given up.

        Raises what the session raises.
        """
        self._finishing = True
        self.tell()
        try:
            await self._idle.wait()
            if self._session is None or not self._buffer.intact:
                await self.void()
                return None
            segments = self._buffer.layout(self._sent, self._buffer.size)
            rest = plan(segments, self._part_bytes, copy=False)
            crc = self._crc if self._session.pushes else None
            return await send_steps(self._session, rest, self._buffer, base, crc)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.void()
            raise


def _what(target: Target) -> tuple[object, ...]:
    place = target.resource_id or target.location
    return place, target.mime_type, target.only_new, target.if_match


_FIELDS = ("mode", "uid", "gid", "modified_ns", "accessed_ns", "mime_type", "xattrs")


def may_follow(began: AttributeChange, now: AttributeChange) -> bool:
    """A file committed with `began` may get `now` a moment later: nobody sees more of it in
    between.

    A session's attributes are those of its beginning. Times may lag behind for a moment; a file
    that is to be 0600 must never be 0644 before.
    """
    if any(getattr(began, name) is not None and getattr(now, name) is None for name in _FIELDS):
        return False
    if _guards(began) != _guards(now):
        return False
    private = began.mode is not None and not began.mode & 0o7077
    if (began.uid, began.gid) != (now.uid, now.gid) and not private:
        return False
    if began.mode == now.mode:
        return True
    return began.mode is not None and now.mode is not None and not began.mode & ~now.mode


def _guards(change: AttributeChange) -> dict[str, bytes | None]:
    """The extended attributes that say who may do what: access control lists and the like."""
    xattrs = change.xattrs or {}
    return {name: value for name, value in xattrs.items() if not name.startswith("user.")}

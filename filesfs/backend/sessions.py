"""A running upload session over HTTP: parts in order, taken up again after a broken connection.

It must not decide how large parts are or what an upload is for. On a server without extensions
parts are plain appended POSTs, all or nothing, and the size is known from the start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from filesfs.backend import parse
from filesfs.backend.answers import Answer
from filesfs.backend.bulk import Outgoing
from filesfs.backend.connection import Buffer
from filesfs.backend.digests import digest_item, digest_of
from filesfs.backend.paths import with_query
from filesfs.backend.requester import Request, Requester
from filesfs.backend.retry import Tries, repeat
from filesfs.domain import Entry
from filesfs.errors import (
    Conflict,
    FilesfsError,
    Gone,
    InvalidRequest,
    NotFound,
    Unavailable,
    Unsupported,
)

log = logging.getLogger(__name__)

_CANCEL_TRIES = 4
_CANCEL_PAUSE = 0.1  # seconds
# A server that copies for real: each request stays well inside a stall limit.
COPY_AT_MOST = 256 << 20
_CONTENT = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the server takes beyond plain appended parts."""

    resume: bool = False  # Upload-Offset, HEAD on a session
    digests: bool = False
    cancel: bool = False
    copy_base: bool = False
    full_entries: bool = False


class HttpSession:
    """An upload session. One user at a time; parts go in order."""

    def __init__(
        self,
        requester: Requester,
        url: str,
        size: int | None,
        abilities: Abilities,
        offset: int = 0,
        *,
        shares: bool = False,
    ) -> None:
        """`shares`: the server has the new version share the base's file, and copies nothing."""
        self._requester = requester
        self._url = url
        self._size = size  # None: the last part says it
        self._abilities = abilities
        self._offset = offset  # bytes that the server has accepted
        self._shares = shares
        self._unsure = False  # a part's answer was lost: `_offset` may be too small
        self._entry: Entry | None = None
        self._progress = 0.0  # trio time at which the server last took something
        self._outgoing: Outgoing | None = None  # while bytes are pushed
        self._pushed = 0  # bytes, since the running request began

    @property
    def offset(self) -> int:
        return self._offset

    async def send(
        self, data: bytes | memoryview, *, final: bool = False, crc: int | None = None
    ) -> Entry | None:
        """Append `data`. See UploadSession; stalls count, not the total time."""
        end = self._offset + len(data)
        self._check_end(end, final=final)
        if not data and not final:
            return None
        start, view = self._offset, memoryview(data)
        self._progress = trio.current_time()
        tries = Tries()

        async def attempt() -> None:
            if self._unsure:
                await self._find_offset(start, end)
            if self._entry is None and (final or self._offset < end):
                await self._post(view[self._offset - start :], end if final else None, crc)

        with session_loss():
            await repeat(self._requester.policy, attempt, tries, lambda: self._progress)
        return self._committed() if final else None

    @property
    def pushes(self) -> bool:
        return self._abilities.resume and self._requester.sends_in_chunks(self._url)

    async def push(self, pieces: Sequence[bytes | memoryview], crc: int) -> int:
        """One chunk of a request that stays open. See UploadSession."""
        self._pushed += sum(map(len, pieces))
        with session_loss(), self._broken_off():
            if self._outgoing is None:
                self._outgoing = await self._requester.begin(self._request(_CONTENT, b""))
            with self._requester.sending(self._outgoing):
                return await self._outgoing.send(pieces, crc)

    async def settle(self) -> None:
        """End the request that pushes. See UploadSession."""
        if self._outgoing is None:
            return
        with session_loss(), self._broken_off():
            await self._requester.finish(self._outgoing)
        self._outgoing = None
        self._offset, self._pushed = self._offset + self._pushed, 0

    async def recover(self) -> int:
        """Ask for the offset. See UploadSession."""
        start, end = self._offset, self._offset + self._pushed
        self._progress = trio.current_time()
        with session_loss():
            await repeat(
                self._requester.policy,
                lambda: self._find_offset(start, end),
                None,
                lambda: self._progress,
            )
        self._pushed = 0
        return self._offset

    @contextmanager
    def _broken_off(self) -> Iterator[None]:
        """If this raises, the request that pushes is at its end, and nobody knows where."""
        try:
            with _elsewhere():
                yield
        except BaseException:
            self._unsure = True
            if self._outgoing is not None:
                self._outgoing.abandon()
                self._outgoing = None
            raise

    async def copy_base(self, length: int) -> None:
        """Take `length` bytes at the offset from the base version. See UploadSession."""
        if not self._abilities.copy_base:
            raise Unsupported("This server does not begin uploads from a version that exists.")
        most = length if self._shares else COPY_AT_MOST
        while length:
            await self._copy(min(length, most))
            length -= min(length, most)

    async def _copy(self, length: int) -> None:
        start, end = self._offset, self._offset + length
        self._progress = trio.current_time()

        async def attempt() -> None:
            if self._unsure:
                await self._find_offset(start, end)
            if self._offset < end:
                left = str(end - self._offset)
                await self._ask({"Files-Copy-Base": left}, b"", end)

        with session_loss():
            await repeat(self._requester.policy, attempt, None, lambda: self._progress)

    async def cancel(self) -> None:
        """Give the session up; never raises. A server without cancel collects it by itself."""
        if self._outgoing is not None:
            self._outgoing.abandon()
            self._outgoing = None
        if not self._abilities.cancel or self._entry is not None:
            return
        try:
            with trio.move_on_after(5):
                await self._delete()
        except FilesfsError as error:
            log.debug("An upload session could not be cancelled: %s", error)

    async def _delete(self) -> None:
        """A few tries: a lost request should leave no session, a lost server not hold us up."""
        for _ in range(_CANCEL_TRIES - 1):
            try:
                await self._requester.once_url(Request("DELETE", self._url))
                return
            except Unavailable:
                await trio.sleep(_CANCEL_PAUSE)
        await self._requester.once_url(Request("DELETE", self._url))

    # -- inner ------------------------------------------------------------------------------------
    def _check_end(self, end: int, *, final: bool) -> None:
        if self._size is not None and (end > self._size or (final and end != self._size)):
            raise InvalidRequest(f"The session is for {self._size} bytes; these end at {end}.")

    def _committed(self) -> Entry:
        if self._entry is None:
            raise Unavailable("The server took the last part, but did not complete the upload.")
        return self._entry

    async def _post(self, data: memoryview, total: int | None, crc: int | None) -> None:
        headers = dict(_CONTENT)
        if self._abilities.digests and crc is not None:
            headers["Repr-Digest"] = digest_item(crc)
        if self._abilities.digests and data:
            headers["Content-Digest"] = digest_of(data)
        if total is not None and self._size is None:
            headers["Upload-Length"] = str(total)
        await self._ask(headers, data, self._offset + len(data))

    def _request(self, headers: Mapping[str, str], data: Buffer) -> Request:
        extra = {"Upload-Offset": str(self._offset)} if self._abilities.resume else {}
        url = with_query(self._url, "view=full") if self._abilities.full_entries else self._url
        return Request("POST", url, {**headers, **extra}, data, bulk=len(data) > 0)

    async def _ask(self, headers: Mapping[str, str], data: Buffer, end: int) -> None:
        try:
            with _elsewhere():
                answer = await self._requester.once_url(self._request(headers, data))
        except (Conflict, Unavailable, trio.Cancelled):
            self._unsure = True
            raise
        self._offset, self._progress = end, trio.current_time()
        self._take(answer)

    def _take(self, answer: Answer) -> None:
        body = answer.json() if answer.body else None
        if isinstance(body, dict) and "key" in body:
            self._entry = parse.file_entry(answer.body)

    async def _find_offset(self, start: int, end: int) -> None:
        """Ask how far the session is. Gone when that is outside of the part being sent."""
        offset = await self._ask_offset()
        if not start <= offset <= end:
            raise Gone(f"The session is at {offset}, outside of {start} to {end}.")
        if offset > self._offset:
            self._progress = trio.current_time()
        self._offset, self._unsure = offset, False

    async def _ask_offset(self) -> int:
        if self._abilities.resume:
            answer = await self._requester.once_url(Request("HEAD", self._url))
            offset = answer.number("upload-offset")
            if offset is not None:
                return offset
        body = (await self._requester.once_url(Request("GET", self._url))).json()
        if not isinstance(body, dict) or not isinstance(body.get("offset"), int):
            raise Unavailable(f"The session's answer holds no offset: {parse.shape(body)}")
        return int(body["offset"])


@contextmanager
def _elsewhere() -> Iterator[None]:
    """A session that is at another offset than we think: Unavailable, so that it is asked."""
    try:
        yield
    except Conflict as error:
        if error.reason not in ("offset", "busy", "complete", ""):
            raise
        raise Unavailable(f"The session is elsewhere: {error}", sent=False) from error


class session_loss:  # noqa: N801  # reads as a statement
    """A session that is not found is gone: the caller starts again."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFound):
            raise Gone(f"The upload session is no more: {error}", 404) from error

"""Answers with content: whole, by range, by version; conditional; checksums along with ranges.

It must not look names up. A version never changes, so what is sent is always one version's bytes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import struct
from collections.abc import Callable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache

from crc32c import crc32c
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from files_server import digests
from files_server.blobs.checked import CheckedRanges, DamagedError
from files_server.blobs.checksums import BLOCK, checksums
from files_server.blobs.local import LocalBlobs
from files_server.catalog.store import Catalog, Version
from files_server.errors import ApiError
from files_server.exchange import Answer, RawHeaders
from files_server.ranges import matches, parse_range

log = logging.getLogger(__name__)

CHUNK = 2 << 20  # bytes in one message: fewer cost more in hand-over than in copying
# Longer ranges go unread from disk to socket; a client that wants them checked aligns them.
_VERIFIED = 16 << 20
_PATHSEND = "http.response.pathsend"  # the server sends the file itself, without Python


class ContentAnswers:
    """Makes the answers to GET and HEAD with alt=media."""

    def __init__(self, catalog: Catalog, blobs: LocalBlobs) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._ranges = CheckedRanges()

    async def answer(
        self, method: str, key: str, version: Version, asked: Mapping[str, str]
    ) -> Response:
        """200, 206 or 304. ApiError 410, 412, 416."""
        headers = _headers(key, version)
        if "if-match" in asked and not matches(asked["if-match"], version.etag):
            raise ApiError(412, f"The file is at version {version.etag} (If-Match).")
        if _unchanged(version, asked):
            return Answer(304, _encoded(headers))
        part = _part(version, asked)
        start, end = part or (0, version.size)
        if part:
            headers["content-range"] = f"bytes {start}-{end - 1}/{version.size}"
        headers |= _sums(version, start, end)
        if "sha-256" in asked.get("want-repr-digest", ""):
            headers["repr-digest"] = digests.sha_item(await self._sha(version))
        headers["content-length"] = str(end - start)
        status = 206 if part else 200
        if method == "HEAD" or start == end:
            return Answer(status, _encoded(headers))  # without the body that its length tells of
        if version.blob is None:
            whole = self._catalog.data(version.id)
            if version.crc32c and checksums(whole) != version.crc32c:
                raise _damaged(key, version, 0, version.size)
            if not _has_sums(headers):
                headers["content-digest"] = digests.crc_item(crc32c(whole[start:end]))
            return Answer(status, _encoded(headers), whole[start:end])
        path = os.fspath(self._blobs.path(version.blob))
        if version.crc32c and end - start <= _VERIFIED and _is_to_check(status, headers, asked):
            data = await self._checked(path, key, version, (start, end), asked)
            if not _has_sums(headers):
                headers["content-digest"] = digests.crc_item(crc32c(data))
            return Answer(status, _encoded(headers), data)
        return BlobAnswer(path, start, end, status, headers, lambda: self._missing(key, version))

    async def _checked(
        self,
        path: str,
        key: str,
        version: Version,
        part: tuple[int, int],
        asked: Mapping[str, str],
    ) -> bytes:
        try:
            return await self._ranges.read(path, version.crc32c, *part, afresh=_doubts(asked))
        except FileNotFoundError:
            raise self._missing(key, version) from None
        except DamagedError as error:
            raise _damaged(key, version, error.first, error.last) from None

    def _missing(self, key: str, version: Version) -> ApiError:
        """Why a blob is not there, or not all of it: a version's row goes before its blob does."""
        if self._catalog.version(version.id) is None:
            return ApiError(410, "This version went while it was asked for. Read again.")
        return _damaged(key, version, 0, version.size)

    async def _sha(self, version: Version) -> bytes:
        if version.blob is None:
            return hashlib.sha256(self._catalog.data(version.id)).digest()
        path = self._blobs.path(version.blob)

        def compute() -> bytes:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()

        return await asyncio.to_thread(compute)


class BlobAnswer(Response):
    """A blob, or a range of it. Opened before the status is sent, so that one that is gone or cut
    short is what `missing` says, and not a broken body."""

    def __init__(
        self,
        path: str,
        start: int,
        end: int,
        status: int,
        headers: dict[str, str],
        missing: Callable[[], ApiError],
    ) -> None:
        super().__init__(None, status)
        self._missing = missing
        self._path, self._start, self._end = path, start, end
        self.raw_headers = _encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._missing() from None
        reading = _Reading(descriptor)
        try:
            if os.fstat(descriptor).st_size < self._end:
                raise self._missing()
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if self.status_code == 200 and _PATHSEND in scope.get("extensions", {}):
                await send({"type": _PATHSEND, "path": self._path})
                return
            await self._send_range(reading, send)
        finally:
            reading.close()

    async def _send_range(self, reading: _Reading, send: Send) -> None:
        at = self._start
        reading.begin(at, self._end)
        while at < self._end:
            data = await reading.next()
            if not data:
                raise OSError(f"{self._path} was cut short while it was sent")
            at += len(data)
            reading.begin(at, self._end)  # while these are sent
            await send({"type": "http.response.body", "body": data, "more_body": at < self._end})


class _Reading:
    """One file, read in threads, a chunk ahead. Owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._running: asyncio.Future[bytes] | None = None

    def begin(self, start: int, end: int) -> None:
        """Read what comes next, if anything does."""
        if start < end:
            loop, length = asyncio.get_running_loop(), min(CHUNK, end - start)
            self._running = loop.run_in_executor(None, os.pread, self._descriptor, length, start)

    async def next(self) -> bytes:
        """What was begun."""
        assert self._running is not None
        await asyncio.wait({self._running})
        running, self._running = self._running, None
        return running.result()

    def close(self) -> None:
        """Once no thread reads any more: the number may be another file's afterwards."""
        if self._running is None:
            os.close(self._descriptor)
        else:
            self._running.add_done_callback(self._closed)

    def _closed(self, running: asyncio.Future[bytes]) -> None:
        os.close(self._descriptor)
        if not running.cancelled():
            running.exception()


def _encoded(headers: Mapping[str, str]) -> RawHeaders:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _headers(key: str, version: Version) -> dict[str, str]:
    name = key.rpartition("/")[2]
    return {
        "content-type": _header_type(version.mime_type),
        "etag": version.etag,
        "last-modified": _date(max(0, version.modified_ns) // 1_000_000_000),
        "accept-ranges": "bytes",
        "content-disposition": f'attachment; filename="{name}"',
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-cache",
    }


@lru_cache(256)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _header_type(mime_type: str) -> str:
    """What can stand in a header; a mime type is kept verbatim, whatever it is."""
    good = mime_type.isascii() and mime_type.isprintable() and "/" in mime_type
    return mime_type.strip() if good else "application/octet-stream"


def _unchanged(version: Version, asked: Mapping[str, str]) -> bool:
    if "if-none-match" in asked:
        return matches(asked["if-none-match"], version.etag, weak=True)
    if "if-modified-since" in asked:
        try:
            since = parsedate_to_datetime(asked["if-modified-since"]).timestamp()
        except (TypeError, ValueError, OverflowError):
            return False
        return version.modified_ns // 1_000_000_000 <= since
    return False


def _part(version: Version, asked: Mapping[str, str]) -> tuple[int, int] | None:
    if "range" not in asked or asked.get("if-range", version.etag) != version.etag:
        return None
    return parse_range(asked["range"], version.size)


def _has_sums(headers: Mapping[str, str]) -> bool:
    return "content-digest" in headers or "files-block-digests" in headers


def _is_to_check(status: int, headers: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """The client cannot check the range against whole blocks, or has found it wrong and asks."""
    return _doubts(asked) or (status == 206 and not _has_sums(headers))


def _doubts(asked: Mapping[str, str]) -> bool:
    return "crc32c" in asked.get("want-content-digest", "")


def _damaged(key: str, version: Version, first: int, last: int) -> ApiError:
    where = f"blob {version.blob}" if version.blob else "its content in the catalog"
    log.error("%r is damaged on disk: bytes %d-%d of %s", key, first, last - 1, where)
    return ApiError(
        500,
        f"The stored bytes {first}-{last - 1} of {key!r} are damaged; restore the file from a"
        " backup (filesfs fsck --digests names all that are).",
        reason="damaged",
    )


def _sums(version: Version, start: int, end: int) -> dict[str, str]:
    """The stored crc32c of each block that [start, end) covers wholly, if it begins at one."""
    if start % BLOCK or start == end or (end % BLOCK and end != version.size):
        return {}
    first, last = start // BLOCK, (end + BLOCK - 1) // BLOCK
    sums = version.crc32c[4 * first : 4 * last]
    if len(sums) == 4:
        return {"content-digest": digests.crc_item(struct.unpack(">I", sums)[0])}
    if last - first > 4096:  # such a header would be too long for most clients
        return {}
    return {"files-block-digests": base64.b64encode(sums).decode()}

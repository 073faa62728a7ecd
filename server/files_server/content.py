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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache

from crc32c import crc32c
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from files_server import digests
from files_server.blobs.checked import CheckedRanges, DamagedError, stamp_of
from files_server.blobs.checksums import BLOCK, checksums
from files_server.blobs.layout import Layout
from files_server.blobs.local import LocalBlobs
from files_server.blobs.pieces import AHEAD, Pieces, Stored, tell_ahead
from files_server.catalog.store import Catalog, Version
from files_server.errors import ApiError
from files_server.exchange import Answer, RawHeaders
from files_server.ranges import matches, parse_range

log = logging.getLogger(__name__)

CHUNK = 2 << 20  # bytes that are read in one go
# Bytes in one message of a long answer: the HTTP server holds several for a slow client. What is no
# longer than _VERIFIED goes as it is read: cutting costs as much again as reading.
_MESSAGE = 128 << 10
_VERIFIED = 16 << 20  # bytes of a range that are checked before the header
_HELD = 1 << 20  # of which so many are held meanwhile, for each client that takes its time
_SENDFILE = "http.response.zerocopysend"  # the kernel sends the bytes, without Python


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
            whole = self._catalog.data(version.id) if version.data is None else version.data
            if version.crc32c and checksums(whole) != version.crc32c:
                raise _damaged(key, version, 0, version.size)
            if not _has_sums(headers):
                headers["content-digest"] = digests.crc_item(crc32c(whole[start:end]))
            return Answer(status, _encoded(headers), whole[start:end])
        return await self._blob_answer(key, version, (start, end), status, headers, asked)

    async def _blob_answer(
        self,
        key: str,
        version: Version,
        part: tuple[int, int],
        status: int,
        headers: dict[str, str],
        asked: Mapping[str, str],
    ) -> Response:
        path = os.fspath(self._blobs.path(version.blob or ""))
        layout = Layout(version.blocks)
        expected = Stored(version.size, version.crc32c, layout)
        unread = Stored(version.size, b"", layout)
        stored = expected
        trouble = _Trouble(self._catalog, key, version)
        with trouble.told():
            if not version.crc32c or not _is_to_check(headers, asked):
                stored = unread
            elif part[1] - part[0] <= _HELD and (status == 206 or _doubts(asked)):
                data = await self._ranges.read(path, expected, *part, afresh=_doubts(asked))
                if not _has_sums(headers):
                    headers["content-digest"] = digests.crc_item(crc32c(data))
                return Answer(status, _encoded(headers), data)
            elif part[1] - part[0] <= _VERIFIED and (status == 206 or _doubts(asked)):
                found = await self._ranges.check(path, expected, *part)
                if not _has_sums(headers):
                    headers["content-digest"] = digests.crc_item(found)
                stored = unread
            elif status == 200 and not _doubts(asked):
                stored = unread if await self._ranges.is_right(path, expected) else expected
        return BlobAnswer(path, part, status, headers, stored, trouble, self._ranges)

    async def _sha(self, version: Version) -> bytes:
        if version.blob is None:
            return hashlib.sha256(self._catalog.data(version.id)).digest()
        path = self._blobs.path(version.blob)

        def compute() -> bytes:
            found, layout = hashlib.sha256(), Layout(version.blocks)
            with path.open("rb") as file:
                for start in range(0, version.size, CHUNK):
                    end = min(start + CHUNK, version.size)
                    found.update(layout.read(file.fileno(), start, end))
            return found.digest()

        return await asyncio.to_thread(compute)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What is told of a version's blob that is not what it should be."""

    catalog: Catalog
    key: str
    version: Version

    @contextmanager
    def told(self) -> Iterator[None]:
        """As ApiError. A version's row goes before its blob does."""
        try:
            yield
        except FileNotFoundError:
            if self.catalog.version(self.version.id) is None:
                raise ApiError(
                    410, "This version went while it was asked for. Read again."
                ) from None
            raise _damaged(self.key, self.version, 0, self.version.size) from None
        except DamagedError as error:
            raise _damaged(self.key, self.version, error.first, error.last) from None


class BlobAnswer(Response):
    """A blob, or a range of it. What is wrong with its first piece is told before the status is
    sent; behind that the answer breaks off ahead of what is damaged. `stored`: what it is to be
    held against; without sums it goes unread."""

    def __init__(
        self,
        path: str,
        part: tuple[int, int],
        status: int,
        headers: dict[str, str],
        stored: Stored,
        trouble: _Trouble,
        ranges: CheckedRanges,
    ) -> None:
        super().__init__(None, status)
        self._path, self._part, self._stored = path, part, stored
        self._trouble, self._ranges = trouble, ranges
        self.raw_headers = _encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._trouble.told():
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            pieces = Pieces(descriptor, *self._part, self._stored)
            try:
                found = os.fstat(descriptor)
                if found.st_size < self._stored.layout.end(*self._part):
                    raise FileNotFoundError(self._path)
                if not self._stored.sums and _SENDFILE in scope.get("extensions", {}):
                    await self._send_unread(descriptor, send)
                    return
                await self._send(pieces, send)
            finally:
                pieces.close()
        if self._stored.sums:
            self._ranges.note(self._path, stamp_of(found), *self._part)

    async def _send_unread(self, descriptor: int, send: Send) -> None:
        at, end = self._part
        if self._stored.layout.blocks is not None and end - at >= BLOCK:  # its reader goes on
            asked = (descriptor, self._stored, at, min(end, at + AHEAD) + AHEAD // 2)
            await asyncio.to_thread(tell_ahead, *asked)
        await send(self._head())
        try:
            for offset, length in self._stored.layout.runs(at, end):
                at += length
                run = {"file": descriptor, "offset": offset, "count": length}
                await send({"type": _SENDFILE, **run, "more_body": at < end})
        except EOFError:
            raise DamagedError(*self._part) from None

    def _head(self) -> Message:
        kind, status = "http.response.start", self.status_code
        return {"type": kind, "status": status, "headers": self.raw_headers}

    async def _send(self, pieces: Pieces, send: Send) -> None:
        at, end = self._part
        length = CHUNK if end - at <= _VERIFIED else _MESSAGE
        data = await pieces.next()
        await send(self._head())
        while data:
            for first in range(0, len(data), length):
                body = data[first : first + length]
                at += len(body)
                await send({"type": "http.response.body", "body": body, "more_body": at < end})
            data = await pieces.next()


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


def _is_to_check(headers: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """The client does not check the content: it cannot, having no sums of whole blocks, or does not
    know them. One that has found it wrong asks."""
    return _doubts(asked) or not _has_sums(headers) or "files-origin" not in asked


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

"""What comes again: op 1 by its key, and a part although its session is complete (its last one, or
nothing, is answered).

It must not change anything.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from files_server.blobs.layout import Layout
from files_server.blobs.local import LocalBlobs
from files_server.catalog.sessions import Session
from files_server.catalog.store import Catalog
from files_server.errors import COMPLETE, ApiError
from files_server.parts import Part
from files_server.receiving import settled


class Repeats:
    """Knows sessions by their keys, and compares bodies with what is stored."""

    def __init__(self, catalog: Catalog, blobs: LocalBlobs, pool: ThreadPoolExecutor) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._pool = pool
        self._secret = secrets.token_bytes(32)
        self._making: dict[str, asyncio.Future[None]] = {}

    def session_id(self, owner: str, repeat_key: str) -> str:
        """A new one, or of an Idempotency-Key always the same one. Whoever does not have the secret
        learns nothing of the id from the key."""
        if not repeat_key:
            return secrets.token_urlsafe(24)
        digest = hmac.digest(self._secret, f"{owner}\n{repeat_key}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest[:24]).decode()

    @asynccontextmanager
    async def turn(self, session_id: str) -> AsyncIterator[None]:
        """While a session is made, the same request again waits: both would begin its one file."""
        while other := self._making.get(session_id):
            await asyncio.wait({other})
        made = self._making[session_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._making[session_id]
            made.set_result(None)

    async def check(self, session: Session, part: Part) -> None:
        """ApiError 409 for anything but the last part of this complete session, or an empty one.
        Those are answered like the commit: once it is confirmed by who has leases."""
        length = part.length if part.length is not None else -1
        last = (session.size or 0) - session.last_offset
        same = length == last and part.offset in (None, session.last_offset)
        empty = length == 0 and part.offset in (None, session.offset)
        if not empty and not (same and await self._is_same(session, part)):
            raise ApiError(
                409,
                f"The upload session is complete, at {session.offset} bytes.",
                reason=COMPLETE,
                headers={"Upload-Offset": str(session.offset)},
            )
        await self._catalog.heard(session.outcome.number)

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
                place = (blob, Layout(version.blocks), at, len(chunk))
                stored = await settled(self._pool, self._blobs.read, *place)
            same = same and stored == chunk
            at += len(chunk)
        return same

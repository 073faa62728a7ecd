"""Takes a request's body: into memory where it is small, into an upload's file where it is not.

It must not know sessions or the catalog. Disk work runs in threads, and is waited for even when
the request is ended: nobody else may touch the file before.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from starlette.requests import ClientDisconnect

from files_server.blobs.local import UploadFile
from files_server.errors import ApiError

P = ParamSpec("P")
T = TypeVar("T")
_FLUSH = 1 << 20  # bytes handed to a thread at a time: fewer cost more in hand-over than in I/O
_SYNC = 32 << 20  # bytes between two syncs, so that the last one is short


async def settled(
    pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run in a thread; when cancelled, end only after the thread is done with it."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(pool, lambda: function(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise


async def gather(stream: AsyncIterator[bytes], length: int) -> bytes:
    """Exactly `length` bytes. ClientDisconnect when the body ends short, ApiError 413 when long."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > length:
            raise ApiError(413, f"The body is longer than the {length} bytes announced.")
    if size != length:
        raise ClientDisconnect
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Receiver:
    """Writes bodies to disk. `make_room` frees disk space, and says whether it could."""

    def __init__(self, pool: ThreadPoolExecutor, make_room: Callable[[], Awaitable[bool]]) -> None:
        self._pool = pool
        self._make_room = make_room

    async def receive(
        self,
        file: UploadFile,
        stream: AsyncIterator[bytes],
        limit: int,
        length: int | None,
        record: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Append the body, at most `limit` bytes; `record` learns of lengths that are synced.

        ClientDisconnect when it ends short of `length`, ApiError 413 past `limit`, 507. What had
        arrived by then is in the file; the caller decides about it.
        """
        waiting: list[bytes] = []
        size = total = unsynced = 0
        async for chunk in self._until_broken(stream, file, waiting):
            total += len(chunk)
            if total > limit:
                raise ApiError(413, f"The body is longer than the {limit} bytes that are left.")
            waiting.append(chunk)
            size += len(chunk)
            if size >= _FLUSH:
                await self._append(file, waiting)
                unsynced, size = unsynced + size, 0
                if unsynced >= _SYNC:
                    unsynced = 0
                    await settled(self._pool, file.sync)
                    if record:
                        await record(file.length)
        await self._append(file, waiting)
        if length is not None and total != length:
            raise ClientDisconnect

    async def _until_broken(
        self, stream: AsyncIterator[bytes], file: UploadFile, waiting: list[bytes]
    ) -> AsyncIterator[bytes]:
        """The body; where it breaks off, what waits is written first, so that it can count."""
        try:
            async for chunk in stream:
                yield chunk
        except (ClientDisconnect, asyncio.CancelledError):
            await self._append(file, waiting)
            raise

    async def _append(self, file: UploadFile, waiting: list[bytes]) -> None:
        if not waiting:
            return
        start, sums = file.length, file.sums.copy()
        try:
            await settled(self._pool, file.append, waiting)
        except OSError as error:
            await settled(self._pool, file.truncate, start, sums)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not await self._make_room():
                raise full_disk() from error
            await self._again(file, waiting)
        waiting.clear()

    async def _again(self, file: UploadFile, waiting: list[bytes]) -> None:
        start, sums = file.length, file.sums.copy()
        try:
            await settled(self._pool, file.append, waiting)
        except OSError as error:
            await settled(self._pool, file.truncate, start, sums)
            raise full_disk() from error


def full_disk() -> ApiError:
    """507: what was accepted before stays."""
    return ApiError(507, "The server's disk is full. What it had accepted before is still there.")

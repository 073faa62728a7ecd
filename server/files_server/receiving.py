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

from files_server.blobs.slots import Slot, Slots
from files_server.blobs.upload import UploadFile
from files_server.errors import ApiError
from files_server.meters import meters

P = ParamSpec("P")
T = TypeVar("T")
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
    meters.received += size
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Receiver:
    """Writes bodies to disk. `make_room` frees disk space, and says whether it could."""

    def __init__(self, pool: ThreadPoolExecutor, make_room: Callable[[], Awaitable[bool]]) -> None:
        self._pool = pool
        self._make_room = make_room
        self._slots = Slots()

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
        writing = _Writing(self, file, record)
        total = 0
        try:
            async for chunk in stream:
                total += len(chunk)
                meters.received += len(chunk)
                if total > limit:
                    raise ApiError(413, f"The body is longer than the {limit} bytes that are left.")
                await writing.add(chunk)
        except (ClientDisconnect, asyncio.CancelledError):
            await writing.flush()
            raise
        else:
            await writing.flush()
        finally:
            await writing.end()
        if length is not None and total != length:
            raise ClientDisconnect

    async def append(self, file: UploadFile, view: memoryview) -> None:
        """Write at the end of the file; where the disk is full, once more after making room."""
        mark = file.mark()
        try:
            await settled(self._pool, file.write, view)
        except OSError as error:
            await settled(self._pool, file.back, mark)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not await self._make_room():
                raise full_disk() from error
            await self._again(file, view)

    async def _again(self, file: UploadFile, view: memoryview) -> None:
        mark = file.mark()
        try:
            await settled(self._pool, file.write, view)
        except OSError as error:
            await settled(self._pool, file.back, mark)
            raise full_disk() from error

    async def sync(self, file: UploadFile) -> None:
        await settled(self._pool, file.sync)

    def borrow(self) -> Slot:
        return self._slots.borrow()

    def give_back(self, slot: Slot) -> None:
        self._slots.give_back(slot)


class _Writing:
    """One body on its way to disk: while a slot is written, the next one fills.

    Invariant: `_running` alone touches the file until it is done, and it is waited for even when
    the request is ended.
    """

    def __init__(
        self,
        receiver: Receiver,
        file: UploadFile,
        record: Callable[[int], Awaitable[None]] | None,
    ) -> None:
        self._receiver = receiver
        self._file = file
        self._record = record
        self._slot = receiver.borrow()
        self._slot.begin(file.length)
        self._next = file.length  # where the slot that fills will begin
        self._running: asyncio.Task[None] | None = None
        self._unsynced = 0

    async def add(self, chunk: bytes) -> None:
        rest = self._slot.take(memoryview(chunk))
        while rest or self._slot.full:
            await self._hand_over()
            rest = self._slot.take(rest)

    async def flush(self) -> None:
        """Everything that was added is in the file, or the error that kept it out is raised."""
        if self._slot.view:
            await self._hand_over()
        await self._settle()

    async def end(self) -> None:
        """Nothing touches the file any more. Errors are told by `flush` and `add`."""
        if self._running is not None:
            await asyncio.wait({self._running})
            if not self._running.cancelled():
                self._running.exception()
        self._receiver.give_back(self._slot)

    async def _hand_over(self) -> None:
        await self._settle()
        slot = self._slot
        self._next += len(slot.view)
        self._running = asyncio.create_task(self._write(slot))
        self._slot = self._receiver.borrow()
        self._slot.begin(self._next)

    async def _settle(self) -> None:
        if self._running is not None:
            await asyncio.wait({self._running})
            task, self._running = self._running, None
            task.result()

    async def _write(self, slot: Slot) -> None:
        self._unsynced += len(slot.view)
        try:
            await self._receiver.append(self._file, slot.view)
        finally:
            self._receiver.give_back(slot)
        if self._unsynced >= _SYNC:
            self._unsynced = 0
            await self._receiver.sync(self._file)
            if self._record:
                await self._record(self._file.length)


def full_disk() -> ApiError:
    """507: what was accepted before stays."""
    return ApiError(507, "The server's disk is full. What it had accepted before is still there.")

"""Sends a buffer's content to the server as one new version.

It must not change what the buffer holds: the caller rebases it once it has taken the new entry
over, without an `await` between the two. Whatever goes wrong, every dirty byte is still in the
buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from filesfs.backend.protocol import FilesBackend, UploadSession
from filesfs.domain import AttributeChange, Entry, ETag, Location, ResourceId
from filesfs.errors import Corrupted, Gone
from filesfs.wire import Extension
from filesfs.write.buffer import BaseReader, WriteBuffer
from filesfs.write.plan import Step, plan

# Giving a session up is a courtesy to the server, which collects it after a day anyway.
CANCEL_SECONDS = 5
ATTEMPTS = 3  # a session that the server lost is started again this often


@dataclass(frozen=True, slots=True)
class Target:
    """Where a version goes. `resource_id`: replace this resource wherever it is now."""

    location: Location
    mime_type: str
    change: AttributeChange
    base: Entry | None  # the version that the clean parts come from; None: a new file
    resource_id: ResourceId | None
    only_new: bool = False
    if_match: ETag | None = None


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

    async def commit(self, buffer: WriteBuffer, target: Target, base: BaseReader) -> Entry:
        """Upload the whole content and return the new entry; then the caller rebases the buffer.

        Compare `buffer.generation` from before: if it moved, writes came meanwhile, the buffer
        must stay dirty, and another commit is due. Raises what the backend and `base` raise:
        PreconditionFailed, Gone when the resource has no name left, Stale when the base is no
        more, Unavailable, NoSpace, ...
        """
        if buffer.size <= self._put_limit:
            return await self._put(buffer, target, base)
        for _ in range(ATTEMPTS - 1):
            session = await self._open(buffer, target)
            try:
                return await self._fill(session, buffer, target, base)
            except (
                Gone
            ):  # the session is lost, not the resource: that one shows when the next opens
                continue
        return await self._fill(await self._open(buffer, target), buffer, target, base)

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

    def _copies(self, target: Target) -> bool:
        known = target.base is not None and target.base.etag is not None
        return known and Extension.RANGES_UPLOAD in self._backend.extensions

    async def _open(self, buffer: WriteBuffer, target: Target) -> UploadSession:
        etag = target.base.etag if target.base is not None and self._copies(target) else None
        return await self._backend.open_upload(
            target.location,
            target.mime_type,
            target.change,
            size=buffer.size,
            only_new=target.only_new,
            if_match=target.if_match,
            resource_id=target.resource_id,
            base=etag if buffer.base_end else None,
        )

    async def _fill(
        self, session: UploadSession, buffer: WriteBuffer, target: Target, base: BaseReader
    ) -> Entry:
        segments = buffer.layout(0, buffer.size)
        steps = plan(segments, self._part_bytes, copy=self._copies(target))
        try:
            return await send_steps(session, steps, buffer, base)
        except BaseException:
            await cancel(session)
            raise


async def send_steps(
    session: UploadSession, steps: list[Step], buffer: WriteBuffer, base: BaseReader
) -> Entry:
    """Do the steps in order and complete the session with the last one."""
    entry: Entry | None = None
    for number, step in enumerate(steps, start=1):
        if step.copy:
            await session.copy_base(step.length)
        else:
            data = await buffer.read_padded(step.start, step.length, base)
            entry = await session.send(data, final=number == len(steps))
    if not steps or steps[-1].copy:
        entry = await session.send(b"", final=True)
    if entry is None:
        raise Corrupted("the server took the last part of an upload and did not name the new file")
    return entry


async def cancel(session: UploadSession) -> None:
    """Give a session up, also while being cancelled."""
    with trio.move_on_after(CANCEL_SECONDS, shield=True):
        await session.cancel()

"""Puts a buffer's bytes into an upload session, step by step.

It must not open sessions or handle their errors: a commit and a stream do, each in its own way.
"""

from __future__ import annotations

import trio
from crc32c import crc32c

from filesfs.backend.protocol import UploadSession
from filesfs.domain import Entry
from filesfs.errors import Corrupted
from filesfs.write.buffer import BaseReader, WriteBuffer
from filesfs.write.plan import Step

# Giving a session up is a courtesy to the server, which collects it after a day anyway.
_CANCEL_SECONDS = 5


async def send_steps(
    session: UploadSession,
    steps: list[Step],
    buffer: WriteBuffer,
    base: BaseReader,
    crc: int | None = None,
) -> Entry:
    """Do the steps in order and complete the session with the last one.

    `crc`: the crc32c of everything before the steps; then the whole is compared, none being copies.
    """
    entry: Entry | None = None
    for number, step in enumerate(steps, start=1):
        if step.copy:
            await session.copy_base(step.length)
        else:
            data = await buffer.read_padded(step.start, step.length, base)
            crc = None if crc is None else crc32c(data, crc)
            final = number == len(steps)
            entry = await session.send(data, final=final, crc=crc if final else None)
    if not steps or steps[-1].copy:
        entry = await session.send(b"", final=True, crc=crc)
    if entry is None:
        raise Corrupted("the server took the last part of an upload and did not name the new file")
    return entry


async def cancel(session: UploadSession) -> None:
    """Give a session up, also while being cancelled."""
    with trio.move_on_after(_CANCEL_SECONDS, shield=True):
        await session.cancel()

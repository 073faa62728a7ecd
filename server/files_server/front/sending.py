"""Sends a file's bytes from the page cache to a socket, in the kernel (sendfile).

A thread does it, since the file may have to come from the disk, for as long as the client takes it
fast; what is little and at hand is copied. The event loop waits for a client that does not take it,
so that many slow ones cost no thread.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from concurrent.futures import ThreadPoolExecutor

_THREADS = 8
_TURN = 64 << 20  # bytes that a thread sends before it looks whether the request was ended
_PATIENCE_MS = 50  # that a thread waits for the client; a fast one makes room much sooner


class Sender:
    """Owner of the threads. `idle` seconds that a client may take nothing."""

    def __init__(self, idle: float) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="sendfile")
        self._idle = idle

    async def send(
        self, client: socket.socket, head: bytes, file: int, start: int, end: int
    ) -> None:
        """`head`, then bytes [start, end) of a descriptor, to a non-blocking socket that nobody
        else writes to.

        Both may be closed once it returns or raises, also when it is cancelled. EOFError where the
        file is shorter, TimeoutError, ConnectionError.
        """
        loop = asyncio.get_running_loop()
        while head or start < end:
            turn = min(end, start + _TURN)
            running = loop.run_in_executor(self._pool, _send, client, head, file, start, turn)
            try:
                head, start = await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait({running})
                raise
            if start < turn:
                await self._writable(client)

    async def _writable(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        some = asyncio.Event()
        loop.add_writer(client, some.set)
        try:
            async with asyncio.timeout(self._idle):
                await some.wait()
        finally:
            loop.remove_writer(client)

    def close(self) -> None:
        """Once no `send` runs."""
        self._pool.shutdown()


def at_hand(file: int, start: int, end: int) -> bytearray | None:
    """Bytes [start, end) of a descriptor, if all of them are in the page cache."""
    data = bytearray(end - start)
    try:
        count = os.preadv(file, [data], start, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or a file system that cannot tell
        return None
    return data if count == len(data) else None


def _send(client: socket.socket, head: bytes, file: int, start: int, end: int) -> tuple[bytes, int]:
    """What is left of the head, and how far it came: to `end`, or to where the client takes no more
    for now."""
    room = select.poll()
    room.register(client, select.POLLOUT)
    while head or start < end:
        try:
            if head:
                head = head[client.send(head, socket.MSG_MORE) :]
                continue
            sent = os.sendfile(client.fileno(), file, start, end - start)
        except BlockingIOError:
            if not room.poll(_PATIENCE_MS):
                break
            continue
        if not sent:
            raise EOFError(start)
        start += sent
    return head, start

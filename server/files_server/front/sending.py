"""Sends a file's bytes from the page cache to a socket, in the kernel (sendfile).

A thread does it, since the file may have to come from the disk, for as long as the client takes it
fast; what is little and at hand is copied. The event loop waits for a client that does not, be it
that it takes a little all the time, so that many slow ones cost no thread.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

_THREADS = 8
_TURN = 64 << 20  # bytes that a thread sends before it looks whether the request was ended
_PATIENCE = 0.05  # seconds that a thread waits for the client in all; a fast one needs a third
_FAST = 0.002  # seconds within which a client made room, to be waited for by a thread again


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
        loop, patience = asyncio.get_running_loop(), _PATIENCE
        while head or start < end:
            turn = min(end, start + _TURN)
            running = loop.run_in_executor(
                self._pool, _send, client, head, file, start, turn, patience
            )
            try:
                head, start = await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait({running})
                raise
            if start < turn:
                asked = loop.time()
                await self._writable(client)
                patience = _PATIENCE if loop.time() - asked < _FAST else 0.0

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


def _send(
    client: socket.socket, head: bytes, file: int, start: int, end: int, patience: float
) -> tuple[bytes, int]:
    """What is left of the head, and how far it came: to `end`, or to where the client takes no more
    after `patience` seconds of waiting for it, all waits together."""
    room = select.poll()
    room.register(client, select.POLLOUT)
    while head or start < end:
        try:
            if head:
                head = head[client.send(head, socket.MSG_MORE) :]
                continue
            sent = os.sendfile(client.fileno(), file, start, end - start)
        except BlockingIOError:
            asked = time.monotonic()
            if patience <= 0 or not room.poll(patience * 1000):
                break
            patience -= time.monotonic() - asked
            continue
        if not sent:
            raise EOFError(start)
        start += sent
    return head, start

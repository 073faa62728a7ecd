"""Accepts connections on a socket that is bound, as many as are allowed, and ends them.

It must not know requests; the application decides who is answered what.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from email.utils import formatdate

from files_server.asgi import App
from files_server.front.connection import Connection
from files_server.front.sending import Sender

_LOOK_SECONDS = 1.0  # between two looks at what every connection has done
_NO_ROOM_SECONDS = 1.0  # until it accepts again after it had no descriptor left
_FAREWELL_SECONDS = 5.0  # for a client to say that it knows of TLS's end
# Of a Unix socket, whose default lets 200 KiB through at a time, and wakes a thread for each. What
# lies in it of a file are pages of the page cache.
_SEND_BUFFER = 1 << 20
_AT_ONCE = 64  # connections that are accepted in one turn
log = logging.getLogger(__name__)


class Front:
    """Serves from `start` to `stop`. At most `most` connections at a time; further ones wait in the
    kernel's queue."""

    def __init__(
        self,
        app: App,
        listening: socket.socket,
        *,
        most: int,
        header_seconds: float,
        idle_seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.app = app
        self.header_seconds, self.idle_seconds = header_seconds, idle_seconds
        self.sender = Sender(idle_seconds)
        self.date = b""
        self.stopping = False
        self._listening = listening
        self._most = most
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._beginning: set[asyncio.Task[None]] = set()  # accepted, no connection yet
        self._accepts = False
        self._all_gone = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._look()
        self._accept_or_wait()

    async def stop(self, seconds: float) -> None:
        """Accept no more, close what is idle, and the rest once it is; after so long, anyway."""
        self.stopping = True
        self._accept_or_wait()
        for connection in tuple(self._connections):
            connection.stop()
        try:
            async with asyncio.timeout(seconds):
                while self._connections or self._beginning:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        self.sender.close()

    # -- what a connection calls ------------------------------------------------------------------
    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._accept_or_wait()

    # -- accepting --------------------------------------------------------------------------------
    def _accept_or_wait(self) -> None:
        taken = len(self._connections) + len(self._beginning)
        if not taken:
            self._all_gone.set()
        accepts = not self.stopping and taken < self._most
        if accepts == self._accepts:
            return
        self._accepts = accepts
        if accepts:
            self._loop.add_reader(self._listening, self._accept)
        else:
            self._loop.remove_reader(self._listening)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._accepts:
                return
            try:
                client, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor left, as a rule
                log.error("cannot accept a connection: %s (see ulimit -n)", error.strerror)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_NO_ROOM_SECONDS, self._try_again)
                return
            client.setblocking(False)
            if client.family == socket.AF_UNIX:  # TCP finds its own size
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            task = self._loop.create_task(self._begin(client))
            self._beginning.add(task)
            task.add_done_callback(self._begun)
            self._accept_or_wait()

    def _try_again(self) -> None:
        if self._accepts:
            self._loop.add_reader(self._listening, self._accept)

    async def _begin(self, client: socket.socket) -> None:
        is_tls = self._tls is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self, is_tls=is_tls),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=self.header_seconds if is_tls else None,
                ssl_shutdown_timeout=_FAREWELL_SECONDS if is_tls else None,
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are some
            log.debug("a connection came to nothing: %s", error)
            client.close()

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        self._accept_or_wait()
        if not task.cancelled():
            task.result()

    def _look(self) -> None:
        """Once a second: what o'clock it is, and who has done nothing for too long."""
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.look(now)

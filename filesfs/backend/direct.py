"""A connected socket as a trio stream that costs no task switch where none is needed.

trio's own stream yields to the scheduler at every call, and tries to receive before the peer can
have answered. It must not know HTTP, and is as cancellable as trio's wherever it waits.
"""

from __future__ import annotations

import select
import socket

import trio

from filesfs.backend.lone import MOST_MS


class DirectStream(trio.abc.Stream):
    """Owns the socket, which must be connected. One sender and one receiver at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        self._both: select.poll | None = None  # for the kernel's requests as well

    @classmethod
    def taken_from(cls, stream: trio.SocketStream) -> DirectStream:
        """The stream's connection; the stream itself is of no use afterwards."""
        trio_socket = stream.socket
        family, kind = trio_socket.family, trio_socket.type
        return cls(socket.socket(family, kind, fileno=trio_socket.detach()))

    @property
    def family(self) -> int:
        return self._socket.family

    def set_no_delay(self) -> None:
        """Small requests leave at once; a Unix socket has no such option."""
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def has_news(self) -> bool:
        """Whether bytes, or the connection's end, are there to be received now."""
        return self._socket.fileno() < 0 or bool(self._poll.poll(0))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    def send_now(self, data: bytes) -> int:
        """How much of it has left without waiting; a broken connection shows at the next call."""
        try:
            return self._socket.send(data)
        except OSError:
            return 0

    def receive_soon(self, kernel: int) -> bytes:
        """What comes while there is nothing to be read from `kernel`, for MOST_MS at most; else
        b"". The thread sleeps, and no other task runs. A broken connection shows at the next call.
        """
        if self._both is None:
            self._both = select.poll()
            self._both.register(self._socket, select.POLLIN)
            self._both.register(kernel, select.POLLIN)
        self._both.poll(MOST_MS)
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What comes next; waits first, as an answer is never there when its request has left."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes or 65536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def receive_into(self, view: memoryview) -> int:
        """As much of what comes next as fits; does not wait if something is there."""
        while True:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()

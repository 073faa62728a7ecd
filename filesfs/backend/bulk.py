"""Large content over blocking sockets in worker threads: ranges go from the kernel into place, and
bodies that are still coming into being go out piece by piece.

It must not be used over TLS; the figures that it exists for are in docs/decisions, 0003 and 0034.
Errors are httpx's, as in `connection.py`.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import crc32c
import httpx
import trio

from filesfs.backend.connection import Buffer, HeadParser, RawAnswer, check_length
from filesfs.backend.landing import Lander, Landing, Slots
from filesfs.backend.pool import Address

WORTH_IT = 1024 * 1024  # bytes; below, the way to a thread and back costs more than it saves
_PEEK = 64 * 1024
_SEND_BUFFER = 1024 * 1024  # of a Unix socket, whose default lets 200 KiB through at a time
_MOST_PIECES = 1000  # of one sendmsg; Linux takes 1,024
# A page that was written in small blocks, which is summed in 3 us. crc32c by itself lets go of the
# interpreter for that, and the event loop is then woken to get it back, 16 times a MiB.
_SUMMED_AT_ONCE = 64 * 1024
_KEEPS, _LETS_GO = 0, 1  # crc32c's gil_release_mode

T = TypeVar("T")


class BulkPool:
    """Owner of the blocking connections; at most `limit` run at a time, each in a thread."""

    def __init__(self, address: Address, limit: int) -> None:
        self._address = address
        self._limiter = trio.CapacityLimiter(limit)
        self._senders = trio.CapacityLimiter(limit)  # none of them holds a read up
        self._idle: list[_BlockingConnection] = []
        self._slots = Slots()

    async def get(self, head: bytes, stall: float, landing: Landing | None = None) -> RawAnswer:
        """One GET. A kept-alive connection that proves dead is replaced. httpx.TransportError.

        `landing` may be told of blocks although an error is raised afterwards.
        """
        lander = Lander(landing, self._slots) if landing is not None else None
        while True:
            connection = self._take(stall)
            was_used = connection.used
            try:
                answer = await trio.to_thread.run_sync(
                    connection.get, head, lander, abandon_on_cancel=True, limiter=self._limiter
                )
            except trio.Cancelled:
                connection.abandon()
                raise
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                if was_used and not connection.answered:
                    continue
                raise
            if connection.reusable:
                self._idle.append(connection)
            return answer

    async def begin(self, head: bytes, stall: float) -> Outgoing:
        """Send the head of a request whose body is to follow in chunks. httpx.TransportError."""
        outgoing = Outgoing(self._take(stall), self._senders, self._idle)
        await outgoing.begin(head)
        return outgoing

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self, stall: float) -> _BlockingConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                connection.limit(stall)  # it may have served requests that wait for longer, or less
                return connection
            connection.close()
        return _BlockingConnection(self._address, stall)


class Outgoing:
    """A request whose body comes into being while it is sent (Transfer-Encoding: chunked).

    Whatever raises here has closed the connection. `answer` is what the server said before the body
    was at its end, if it did.
    """

    def __init__(
        self,
        connection: _BlockingConnection,
        limiter: trio.CapacityLimiter,
        idle: list[_BlockingConnection],
    ) -> None:
        self._connection = connection
        self._limiter = limiter
        self._idle = idle
        self._in_use = False  # by a thread, which then closes it

    @property
    def answer(self) -> RawAnswer | None:
        return self._connection.early

    async def begin(self, head: bytes) -> None:
        await self._in_thread(lambda: self._connection.send([head]))

    async def send(self, pieces: Sequence[Buffer], crc: int) -> int:
        """One chunk; `crc` continued over it. Returns once the kernel has all of it."""
        return await self._in_thread(lambda: self._connection.send_chunk(pieces, crc))

    async def finish(self) -> RawAnswer:
        """End the body, receive the answer."""
        answer = await self._in_thread(self._connection.end_chunks)
        if self._connection.reusable:
            self._idle.append(self._connection)
        return answer

    def abandon(self) -> None:
        """Break it off in the middle."""
        self._connection.abandon()
        if not self._in_use:
            self._connection.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._in_use = True
        try:
            result = await trio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=self._limiter
            )
        except trio.Cancelled:
            self._connection.abandon()
            raise
        self._in_use = False
        return result


class _BlockingConnection:
    """A connection that one thread at a time uses. Closes itself on any trouble."""

    def __init__(self, address: Address, stall: float) -> None:
        self._address = address
        self._stall = stall
        self._socket: socket.socket | None = None  # connected in the thread, at the first request
        self._abandoned = False
        self.used = False
        self.answered = False
        self.reusable = True
        self.early: RawAnswer | None = None

    def get(self, head: bytes, lander: Lander | None) -> RawAnswer:
        """Send the head, receive the answer, its body by `lander` if it suits. Blocks."""
        try:
            sock = self._connected()
            self._send_all(sock, [head])
            answer = self._answer(sock, lander)
        except BaseException:
            self.close()
            raise
        if self._abandoned or not self.reusable:
            self.close()
        self.used = True
        return answer

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Send bytes of a request. Blocks. If the server has answered instead, see `early`."""
        try:
            self._send_all(self._connected(), pieces)
        except BaseException as error:
            if isinstance(error, httpx.WriteError) and self._socket is not None:
                with suppress(httpx.HTTPError):
                    self.early = self._answer(self._socket)
            self.close()
            raise
        if self._abandoned:
            self.close()

    def send_chunk(self, pieces: Sequence[Buffer], crc: int) -> int:
        """One chunk of a body; `crc` (crc32c) continued over it. Blocks."""
        for piece in pieces:
            mode = _KEEPS if len(piece) <= _SUMMED_AT_ONCE else _LETS_GO
            crc = crc32c.crc32c(piece, crc, gil_release_mode=mode)
        self.send([b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"])
        return crc

    def end_chunks(self) -> RawAnswer:
        """End the body and receive the answer. Blocks."""
        self.send([b"0\r\n\r\n"])
        assert self._socket is not None
        try:
            answer = self._answer(self._socket)
        except BaseException:
            self.close()
            raise
        if self._abandoned or not self.reusable:
            self.close()
        self.used = True
        return answer

    def abandon(self) -> None:
        """Nobody waits for the answer any more: wake the thread, which then closes."""
        self._abandoned, self.reusable = True, False
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def limit(self, stall: float) -> None:
        """The next request waits for so many seconds while nothing moves."""
        self._stall = stall
        if self._socket is not None:
            _limit(self._socket, stall)

    def is_stale(self) -> bool:
        if self._socket is None:
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.reusable = False
        if self._socket is not None:
            self._socket.close()

    # -- in the thread ----------------------------------------------------------------------------
    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        try:
            self._socket = self._connect()
        except OSError as error:
            raise httpx.ConnectError(f"Cannot connect to {self._address}: {error}") from error
        # A timeout of Python's own makes the socket non-blocking, and then MSG_WAITALL is void.
        self._socket.settimeout(None)
        _limit(self._socket, self._stall)
        return self._socket

    def _connect(self) -> socket.socket:
        if self._address.unix_socket is not None:
            sock = socket.socket(socket.AF_UNIX)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            _limit(
                sock, self._stall
            )  # of connect too, which waits while the server's queue is full
            try:
                sock.connect(str(self._address.unix_socket))
            except OSError:
                sock.close()
                raise
            return sock
        where = (self._address.host, self._address.port)
        sock = socket.create_connection(where, self._stall)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _send_all(self, sock: socket.socket, pieces: Sequence[Buffer]) -> None:
        self.answered = False
        rest = [memoryview(piece) for piece in pieces]
        try:
            while rest:
                sent = sock.sendmsg(rest[:_MOST_PIECES])
                while rest and sent >= len(rest[0]):
                    sent -= len(rest.pop(0))
                if sent:
                    rest[0] = rest[0][sent:]
        except BlockingIOError:
            raise httpx.WriteTimeout(f"Nothing moved for {self._stall:g} s.") from None
        except OSError as error:
            raise httpx.WriteError(f"The connection broke while sending: {error}") from error

    def _answer(self, sock: socket.socket, lander: Lander | None = None) -> RawAnswer:
        parser = HeadParser()
        while not parser.head_done:
            parser.feed(self._head_bytes(sock))
        self.reusable = self.reusable and parser.keep_alive
        if parser.length is not None and not parser.chunked:
            check_length(parser.length)
            if lander is not None and not parser.parts:
                sums = lander.sums(parser.status, parser.headers, parser.length)
                if sums is not None:
                    landed = lander.land(sums, lambda view: self._fill(sock, view))
                    self.reusable = self.reusable and landed == parser.length
                    return RawAnswer(parser.status, parser.headers, b"", landed)
            left = parser.length - sum(map(len, parser.parts))
            content = self._exactly(sock, parser.parts, left)
        else:
            content = self._until_done(sock, parser)
        return RawAnswer(parser.status, parser.headers, content)

    def _head_bytes(self, sock: socket.socket) -> bytes:
        """What belongs to the head, and nothing of the body, which goes straight into place."""
        seen = self._receive(sock, _PEEK, socket.MSG_PEEK)
        end = seen.find(b"\r\n\r\n")
        return self._receive(sock, len(seen) if end < 0 else end + 4)

    def _exactly(self, sock: socket.socket, parts: list[bytes], left: int) -> bytes:
        while left > 0:
            # One receive makes one `bytes` of the right size; the kernel fills it, without the GIL.
            parts.append(self._receive(sock, left, socket.MSG_WAITALL))
            left -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fill(self, sock: socket.socket, rest: memoryview) -> None:
        while rest:
            try:
                count = sock.recv_into(rest, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                raise self._stalled() from None
            except OSError as error:
                raise httpx.ReadError(f"The connection broke: {error}") from error
            if not count:
                raise httpx.RemoteProtocolError("The server closed the connection too early.")
            rest = rest[count:]

    def _stalled(self) -> httpx.ReadTimeout:
        return httpx.ReadTimeout(f"Nothing moved for {self._stall:g} s.")

    def _until_done(self, sock: socket.socket, parser: HeadParser) -> bytes:
        length = 0
        try:
            while not parser.done:
                data = self._receive(sock, _PEEK)
                length += len(data)
                check_length(length)
                parser.feed(data)
        except httpx.RemoteProtocolError:
            if parser.chunked:
                raise
            self.reusable = False  # the body ends where the connection does
        return b"".join(parser.parts)

    def _receive(self, sock: socket.socket, most: int, flags: int = 0) -> bytes:
        try:
            data = sock.recv(most, flags)
        except BlockingIOError:
            raise self._stalled() from None
        except OSError as error:
            raise httpx.ReadError(f"The connection broke: {error}") from error
        if not data:
            raise httpx.RemoteProtocolError("The server closed the connection too early.")
        self.answered = True
        return data


def _limit(sock: socket.socket, stall: float) -> None:
    seconds = int(stall)
    limit = struct.pack("ll", seconds, int((stall - seconds) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

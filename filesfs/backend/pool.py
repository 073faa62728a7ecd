"""Connections to one server, kept alive between requests, at most so many at a time.

It must not retry but for one case: a kept-alive connection that the server closed before it
answered anything, for a request that is safe to send twice.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio

from filesfs.backend.connection import Buffer, Connection, Headers, RawAnswer
from filesfs.backend.direct import DirectStream
from filesfs.backend.lone import Lone

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where connections go."""

    host: str
    port: int
    unix_socket: Path | None = None
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return str(self.unix_socket) if self.unix_socket else f"{self.host}:{self.port}"


class Pool:
    """Owner of the connections to `address`; no more than `limit` run at a time."""

    def __init__(self, address: Address, limit: int, lone: Lone) -> None:
        self._address = address
        self._lone = lone
        self._limiter = trio.Semaphore(limit)
        self._idle: list[Connection] = []  # the last one used is at the end, and used first

    async def request(
        self,
        method: str,
        head: bytes,
        body: Buffer | Sequence[Buffer],
        stall: float,
    ) -> RawAnswer:
        """One request and its whole answer. Raises httpx.TransportError."""
        try:
            self._limiter.acquire_nowait()  # mostly there is room, and a switch of tasks to save
        except trio.WouldBlock:
            await self._limiter.acquire()
        try:
            return await self._request(method, head, body, stall)
        finally:
            self._limiter.release()

    async def _request(
        self, method: str, head: bytes, body: Buffer | Sequence[Buffer], stall: float
    ) -> RawAnswer:
        while True:
            connection = await self._take(stall)
            try:
                answer = await connection.request(method, head, body, stall)
            except BaseException as error:
                await _discard(connection)
                if _was_stale(connection, error) and method in IDEMPOTENT:
                    continue
                raise
            if connection.reusable:
                self._idle.append(connection)
            else:
                await _discard(connection)
            return answer

    @asynccontextmanager
    async def stream(
        self, head: bytes, stall: float
    ) -> AsyncIterator[tuple[int, Headers, AsyncIterator[bytes]]]:
        """A request whose answer comes in pieces, on a connection of its own, outside the limit."""
        connection = await self._connect(stall)
        try:
            parser, pieces = await connection.stream(head, b"", stall)
            async with aclosing(pieces):
                yield parser.status, parser.headers, pieces
        finally:
            await _discard(connection)

    async def aclose(self) -> None:
        while self._idle:
            await _discard(self._idle.pop())

    async def _take(self, stall: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            await _discard(connection)
        return await self._connect(stall)

    async def _connect(self, stall: float) -> Connection:
        with trio.move_on_after(stall):
            try:
                return await self._open()
            except (OSError, trio.BrokenResourceError) as error:
                cause = error.__cause__ or error
                raise httpx.ConnectError(f"Cannot connect to {self._address}: {cause}") from error
        raise httpx.ConnectTimeout(f"Cannot connect to {self._address} within {stall:g} s.")

    async def _open(self) -> Connection:
        direct = DirectStream.taken_from(await self._open_socket())
        direct.set_no_delay()
        if self._address.tls is None:
            return Connection(direct, direct, self._lone)
        tls = trio.SSLStream(
            direct, self._address.tls, server_hostname=self._address.host, https_compatible=True
        )
        try:
            await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(direct)
            raise
        return Connection(tls, direct, self._lone)

    async def _open_socket(self) -> trio.SocketStream:
        if self._address.unix_socket is not None:
            return await trio.open_unix_socket(str(self._address.unix_socket))
        return await trio.open_tcp_stream(self._address.host, self._address.port)


def _was_stale(connection: Connection, error: BaseException) -> bool:
    broken = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
    return broken and connection.used and not connection.answered


async def _discard(connection: Connection) -> None:
    with trio.CancelScope(shield=True):  # closing must not be cut, or the socket leaks
        await connection.aclose()

"""httpx's transport over our connection pool: httpx's extension point, without httpcore below.

It must not decide anything about requests. `docs/decisions/0003-transport.md` says why it exists.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import httpx

from filesfs.backend.pool import Address, Pool
from filesfs.backend.settings import BackendSettings


class TrioTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests through a Pool. The extension `pieces` asks for an answer as it comes.

    The extension `target` (bytes) is sent in place of the URL's path, byte for byte.
    """

    def __init__(self, pool: Pool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        head = _head(request)
        stall = request.extensions.get("timeout", {}).get("read") or self._timeout
        if request.extensions.get("pieces"):
            context = self._pool.stream(head, stall)
            status, headers, pieces = await context.__aenter__()
            return httpx.Response(status, headers=headers, stream=_Pieces(context, pieces))
        body = await request.aread()
        answer = await self._pool.request(request.method, head, body, stall)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=httpx.ByteStream(answer.body)
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Pieces(httpx.AsyncByteStream):
    """An answer's body as it comes; closing it closes the connection."""

    def __init__(
        self, context: AbstractAsyncContextManager[object], pieces: AsyncIterator[bytes]
    ) -> None:
        self._context = context
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._context.__aexit__(None, None, None)


def _head(request: httpx.Request) -> bytes:
    target: bytes = request.extensions.get("target", request.url.raw_path)
    lines = [request.method.encode(), b" ", target, b" HTTP/1.1\r\n"]
    for name, value in request.headers.raw:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def tls_context(settings: BackendSettings) -> ssl.SSLContext | None:
    """The TLS settings for an https server, None for http."""
    if not settings.is_tls:
        return None
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.client_cert is not None:
        context.load_cert_chain(settings.client_cert, settings.client_key)
    return context


def address_of(settings: BackendSettings) -> Address:
    """Where the settings' server listens."""
    return Address(settings.host, settings.port, settings.unix_socket, tls_context(settings))

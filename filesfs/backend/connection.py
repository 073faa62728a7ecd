"""One HTTP/1.1 connection over a trio stream: sends a request, receives the answer.

It must not retry, and must not know what a request means. Whoever gets an exception from it closes
it. Errors are httpx's: WriteError and ReadError for a broken connection, RemoteProtocolError for
bytes that are no HTTP, ReadTimeout when nothing moves any more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import httptools
import httpx
import trio

from filesfs.backend.direct import DirectStream
from filesfs.backend.lone import Lone

Buffer = bytes | bytearray | memoryview
Headers = dict[str, str]  # names in lower case

_HEAD_READ = 64 * 1024
_HEAD_MOST = 1024 * 1024  # bytes; nobody says so much ahead of a body
# Bytes of an answer that is taken in whole: a server that sends without end must not fill the
# memory. A listing of 4,000,000 files of a plain server is as long.
BODY_MOST = 1 << 30
_BODY_PIECE = 64 * 1024 * 1024  # memory made ahead of what comes: a length alone costs nothing
# Each piece sent puts the deadline off; at 1 MiB the cost of pieces is not measurable.
_SEND_PIECE = 1024 * 1024
_JOIN_BELOW = 64 * 1024  # head and small body leave in one packet, as one segment


@dataclass(slots=True)
class RawAnswer:
    """An answer as it came."""

    status: int
    headers: Headers
    body: bytes
    landed: int | None = None  # bytes that have arrived as a Landing says; then there is no body


class HeadParser:
    """httptools' callbacks for one answer. The body up to where the head ends is in `parts`."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = {}
        self.parts: list[bytes] = []
        self.head_done = False
        self.done = False
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = False
        self._parser = httptools.HttpResponseParser(self)
        self._fed = 0  # bytes while the head is not done

    def feed(self, data: Buffer) -> None:
        self._fed += 0 if self.head_done else len(data)
        if self._fed > _HEAD_MOST:
            raise httpx.RemoteProtocolError("The head of the answer has no end.")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise httpx.RemoteProtocolError(f"The answer is no HTTP: {error}") from error

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # 100 Continue and the like: the answer is still to come
            self.headers = {}
            return
        self.head_done = True
        self.keep_alive = self._parser.should_keep_alive()
        length = self.headers.get("content-length")
        self.length = int(length) if length is not None else None
        self.chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.done = self.head_done


class Connection:
    """A connection that answers one request at a time. Owns its stream."""

    def __init__(self, stream: trio.abc.Stream, direct: DirectStream, lone: Lone) -> None:
        self._stream = stream
        self._direct = direct  # the same, or what is below TLS
        self._lone = lone
        self._plain = stream is direct
        self.used = False  # an answer came over it before
        self.reusable = True
        self._got_any = False  # a byte of the present answer came

    @property
    def answered(self) -> bool:
        return self._got_any

    def is_stale(self) -> bool:
        """Whether the server closed it (or said something unasked) while it was idle."""
        return self._direct.has_news()

    async def request(
        self, method: str, head: bytes, body: Buffer | Sequence[Buffer], stall: float
    ) -> RawAnswer:
        """Send and receive whole. `stall`: seconds without any progress until ReadTimeout."""
        parser, began = HeadParser(), perf_counter_ns()
        self._got_any = False
        message = _joined(head, body)
        if message is not None:
            head, body = self._at_once(message, parser), b""
        if parser.done:
            self._lone.answered(began)
            return self._whole(parser, b"".join(parser.parts))
        with trio.CancelScope(deadline=trio.current_time() + stall) as scope:
            await self._exchange(head, body, parser, stall, scope)
            if message is not None:
                self._lone.answered(began)
            return self._whole(parser, await self._body(method, parser, stall, scope))
        raise httpx.ReadTimeout(f"Nothing moved for {stall:g} s.")

    def _whole(self, parser: HeadParser, content: bytes) -> RawAnswer:
        self.used = True
        self.reusable = self.reusable and parser.keep_alive
        return RawAnswer(parser.status, parser.headers, content)

    def _at_once(self, message: bytes, parser: HeadParser) -> bytes:
        """Send, and take the answer in, if it can be done without the scheduler. What is left to be
        sent; what is left to be received, `parser` knows.
        """
        kernel = self._lone.kernel
        if kernel is None or not (self._plain and self._lone.take_turn()):
            return message
        rest = message[self._direct.send_now(message) :]
        data = b"" if rest else self._direct.receive_soon(kernel)
        if data:
            self._got_any = True
            parser.feed(data)
        return rest

    async def stream(
        self, head: bytes, body: Buffer, stall: float
    ) -> tuple[HeadParser, AsyncGenerator[bytes, None]]:
        """Send, receive the head, and hand the body out as it comes. Not reusable afterwards."""
        parser = HeadParser()
        self._got_any = False
        with trio.CancelScope(deadline=trio.current_time() + stall) as scope:
            await self._exchange(head, body, parser, stall, scope)
            self.reusable = False
            return parser, self._pieces(parser)
        raise httpx.ReadTimeout(f"Nothing moved for {stall:g} s.")

    async def aclose(self) -> None:
        self.reusable = False
        await trio.aclose_forcefully(self._stream)

    # -- sending ----------------------------------------------------------------------------------
    async def _exchange(
        self,
        head: bytes,
        body: Buffer | Sequence[Buffer],
        parser: HeadParser,
        stall: float,
        scope: trio.CancelScope,
    ) -> None:
        broken: httpx.WriteError | None = None
        try:
            await self._send(head, body, stall, scope)
        except httpx.WriteError as error:
            # The server may have answered before the whole body was sent (413, 409), and closed.
            self.reusable, broken = False, error
        try:
            await self._receive_head(parser)
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise broken or error from error

    async def _send(
        self, head: bytes, body: Buffer | Sequence[Buffer], stall: float, scope: trio.CancelScope
    ) -> None:
        try:
            await self._stream.send_all(head)
            for each in _pieces(body):
                view = memoryview(each)
                for start in range(0, len(view), _SEND_PIECE):
                    await self._stream.send_all(view[start : start + _SEND_PIECE])
                    scope.deadline = trio.current_time() + stall
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.WriteError(f"The connection broke while sending: {error}") from error

    # -- receiving --------------------------------------------------------------------------------
    async def _receive(self, limit: int = _HEAD_READ) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(limit))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(f"The connection broke: {error}") from error
        if data:
            self._got_any = True
        return data

    async def _receive_head(self, parser: HeadParser) -> None:
        while not parser.head_done:
            data = await self._receive()
            if not data:
                raise httpx.RemoteProtocolError("The server closed the connection, no answer.")
            parser.feed(data)

    async def _body(
        self, method: str, parser: HeadParser, stall: float, scope: trio.CancelScope
    ) -> bytes:
        if method == "HEAD" or parser.status in (204, 304):
            return b""
        if parser.length is not None and not parser.chunked:
            check_length(parser.length)
            return await self._known_length(parser, parser.length, stall, scope)
        length = 0
        while not parser.done:
            scope.deadline = trio.current_time() + stall
            data = await self._receive()
            if not data:
                return self._ended_by_close(parser)
            length += len(data)
            check_length(length)
            parser.feed(data)
        return b"".join(parser.parts)

    def _ended_by_close(self, parser: HeadParser) -> bytes:
        self.reusable = False
        if parser.chunked:
            raise httpx.RemoteProtocolError("The server closed the connection within the body.")
        return b"".join(parser.parts)

    async def _known_length(
        self, parser: HeadParser, length: int, stall: float, scope: trio.CancelScope
    ) -> bytes:
        if parser.done:
            return parser.parts[0] if len(parser.parts) == 1 else b"".join(parser.parts)
        content = bytearray(min(length, _BODY_PIECE))
        filled = 0
        for part in parser.parts:
            content[filled : filled + len(part)] = part
            filled += len(part)
        view = memoryview(content)
        while filled < length:
            scope.deadline = trio.current_time() + stall
            if filled == len(content):
                view.release()
                content += bytes(min(length - filled, filled))
                view = memoryview(content)
            got = await self._receive_into(view[filled:])
            if not got:
                raise httpx.RemoteProtocolError(
                    f"The server closed the connection, {filled} of {length} bytes came."
                )
            filled += got
        view.release()
        return content  # type: ignore[return-value]  # a copy into bytes would cost as the socket

    async def _receive_into(self, view: memoryview) -> int:
        if not self._plain:
            data = await self._receive(min(len(view), 1 << 18))
            view[: len(data)] = data
            return len(data)
        try:
            return await self._direct.receive_into(view)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(f"The connection broke: {error}") from error

    async def _pieces(self, parser: HeadParser) -> AsyncGenerator[bytes, None]:
        while True:
            for part in parser.parts:
                yield part
            parser.parts.clear()
            if parser.done:
                return
            data = await self._receive()
            if not data:
                return
            parser.feed(data)


def _pieces(body: Buffer | Sequence[Buffer]) -> Sequence[Buffer]:
    return (body,) if isinstance(body, bytes | bytearray | memoryview) else body


def _joined(head: bytes, body: Buffer | Sequence[Buffer]) -> bytes | None:
    """All of a small request."""
    if not body:
        return head
    bodies = _pieces(body)
    return b"".join((head, *bodies)) if sum(map(len, bodies)) <= _JOIN_BELOW else None


def check_length(length: int) -> None:
    """httpx.RemoteProtocolError for a body that is not to be taken in."""
    if length > BODY_MOST:
        raise httpx.RemoteProtocolError(f"An answer of {length} bytes or more is too long.")

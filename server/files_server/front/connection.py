"""One client's connection: requests one after the other, and what a client may do at any time.

It must not know what is asked for. A client that is slow, goes away, says the next thing too early
or says nothing holds up nobody else, and no more memory than a few hundred KiB.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from typing import Any, Protocol
from urllib.parse import unquote

from files_server.asgi import CONNECTION, App
from files_server.front import answers, heads
from files_server.front.exchange import SENDFILE, ClientGone, Exchange
from files_server.front.heads import Head, Refused
from files_server.front.incoming import Incoming
from files_server.front.sending import Sender, at_hand

_MOST_AHEAD = 64 << 10  # bytes of next requests that are read while one is answered
_SMALL = 256 << 10  # bytes of a file that are copied here: a change of thread costs more
_HIGH_WATER = 256 << 10  # bytes that are written and not taken, above which an answer waits
_LINGER_SECONDS = 5.0  # for a client to take an answer that came before it had sent everything
_END = b"\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")  # RFC 9112, 2.2: some clients send one too many
_BEGIN = 2048  # bytes that tell whether it is HTTP; looking at more each time would cost the more


class Owner(Protocol):
    """What a connection needs of the server."""

    app: App
    date: bytes
    sender: Sender
    header_seconds: float
    idle_seconds: float  # that a client may take nothing of an answer
    stopping: bool

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Event loop only. Between requests `_exchange` is None; `_ahead` is a head's begin then."""

    def __init__(self, owner: Owner, *, is_tls: bool) -> None:
        self._owner = owner
        self._is_tls = is_tls
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None  # None: the client is gone
        self._scope: dict[str, Any] = {}
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._ahead = bytearray()  # what came and is not the running request's
        self._searched = 0  # bytes of it that do not end a head
        self._since = 0.0  # when the client was last told to begin, or began
        self._held = self._body_held = False  # nothing is read
        self._busy = False  # the body has parts that were read and not looked at
        self._ending = False  # the client has sent all that it will
        self._lingering_until = 0.0  # what comes is dropped, so that the answer arrives
        self._writable: asyncio.Future[None] | None = None  # while too much is written
        self._unsent, self._unsent_since = 0, 0.0

    @property
    def date(self) -> bytes:
        return self._owner.date

    # -- what the transport calls -----------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._since = self._loop.time()
        peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "scheme": "https" if self._is_tls else "http",
            "root_path": "",
            CONNECTION: object(),
            "client": peer[:2] if isinstance(peer, tuple) else None,
            "server": own[:2] if isinstance(own, tuple) else (own, None),
            "extensions": {} if self._is_tls else {SENDFILE: {}},
        }
        self._owner.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._exchange is not None:
            self._exchange.incoming.end()
        self.resume_writing()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering_until:
            return
        if self._exchange is not None:
            self._feed(self._exchange.incoming, data)
        elif not self._ahead and data.endswith(_END) and _is_head(data):
            self._request(data)
        else:
            self._ahead += data
            self._next()

    def eof_received(self) -> bool:
        """A client may have said all and wait for the answer."""
        self._ending = True
        if self._exchange is not None and not self._busy:
            self._exchange.incoming.end()
        return self._exchange is not None and not self._is_tls

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # -- requests ---------------------------------------------------------------------------------
    def _next(self) -> None:
        """Begin with the next request, if its head is there."""
        empty = _EMPTY_LINES.match(self._ahead)
        if empty is not None:
            del self._ahead[: empty.end()]
        end = self._ahead.find(_END, max(0, self._searched - 3))
        if end >= 0:
            head = bytes(self._ahead[: end + 4])
            del self._ahead[: end + 4]
            self._searched = 0
            self._request(head)
            return
        if not self._searched and self._ahead.strip(b"\r\n"):
            self._since = self._loop.time()
        is_begin, self._searched = self._searched <= _BEGIN, len(self._ahead)
        if self._searched > heads.MOST_BYTES:
            self._refuse(heads.too_long())
        elif is_begin and not heads.may_begin(self._ahead):
            self._refuse(Refused(400, "This is not the begin of an HTTP request."))

    def _request(self, data: bytes) -> None:
        try:
            head = heads.parse(data)
        except heads.Refused as refused:
            self._refuse(refused)
            return
        exchange = self._exchange = Exchange(self, head)
        if not exchange.incoming.complete:
            body, self._ahead = bytes(self._ahead), bytearray()
            self._feed(exchange.incoming, body)
        self._read()
        self._task = self._loop.create_task(exchange.run(self._owner.app, self._told(head)))

    def _feed(self, body: Incoming, data: bytes) -> None:
        """Of the running request; a part at a time, where it takes long."""
        self._ahead += body.feed(data)
        was_busy, self._busy = self._busy, body.busy
        if self._busy and not was_busy:
            self._loop.call_soon(self._feed_more, body)
        if self._ending and not self._busy:
            body.end()
        if self._busy != was_busy or len(self._ahead) > _MOST_AHEAD:
            self._read()

    def _feed_more(self, body: Incoming) -> None:
        if self._exchange is not None and self._exchange.incoming is body:
            self._busy = False
            self._feed(body, b"")
            self._read()

    def _told(self, head: Head) -> dict[str, Any]:
        path = head.raw_path.decode("latin-1")
        return {
            **self._scope,
            "http_version": "1.1" if head.is_1_1 else "1.0",
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
        }

    def finished(self, reusable: bool) -> None:
        """The answer is complete. Not `reusable`: what the client sends is no next request."""
        has_all = self._exchange is None or self._exchange.incoming.complete
        self._exchange = self._task = None
        if self._transport is None:
            return
        self._body_held = self._busy = False
        self._read()
        if not reusable or self._owner.stopping:
            self._close(lingering=not has_all or bool(self._ahead))
        else:
            self._since = self._loop.time()
            if self._ahead:
                self._next()
            if self._ending and self._exchange is None:
                self._close(lingering=False)

    def broken_off(self) -> None:
        """The answer will not be complete: the client is to notice."""
        self._exchange = self._task = None
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, refused: Refused) -> None:
        self._transport.write(answers.refusal(refused.status, str(refused)))
        self._close(lingering=True)

    # -- reading, writing, ending -----------------------------------------------------------------
    def hold(self, held: bool) -> None:
        """Read no more of the body for now, or go on."""
        self._body_held = held
        self._read()

    def _read(self) -> None:
        """Or not, where more has come than is wanted."""
        ahead = self._exchange is not None and len(self._ahead) > _MOST_AHEAD
        held = self._body_held or self._busy or ahead
        if held != self._held and self._transport is not None:
            self._held = held
            if held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def write(self, data: bytes | bytearray) -> None:
        """Send soon. Raises ClientGone."""
        self._connected().write(data)

    def _connected(self) -> Any:
        if self._transport is None or self._transport.is_closing():
            raise ClientGone("it closed the connection")
        return self._transport

    async def drained(self) -> None:
        """Once the client has taken most of what was written. Raises ClientGone."""
        if self._writable is not None:
            await self._writable
            self._connected()

    async def send_file(self, head: bytes, file: int, start: int, end: int) -> None:
        """As sending.Sender does, behind `head` and all that was written."""
        if end - start <= _SMALL and (data := at_hand(file, start, end)):
            self.write(head)
            self.write(data)
            await self.drained()
            return
        await self._written()
        own = self._connected().get_extra_info("socket")
        # A descriptor of its own: the transport may close its one while a thread sends.
        with socket.socket(own.family, own.type, own.proto, os.dup(own.fileno())) as client:
            try:
                await self._owner.sender.send(client, head, file, start, end)
            except (ConnectionError, TimeoutError) as error:
                raise ClientGone(str(error)) from error

    async def _written(self) -> None:
        """Once the kernel has all that was written."""
        transport = self._connected()
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)
            await self.drained()
            transport.set_write_buffer_limits(high=_HIGH_WATER)

    def _close(self, *, lingering: bool) -> None:
        """Once what was written is sent. `lingering`: the client may be sending still, and would
        lose the answer if what it sends met a closed socket."""
        self._ahead.clear()
        if not lingering or self._ending:
            self._transport.close()
            return
        self._lingering_until = self._loop.time() + _LINGER_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def stop(self) -> None:
        """Close, once no request runs."""
        if self._exchange is None and self._transport is not None and not self._lingering_until:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def look(self, now: float) -> None:
        """Now and then: end who has done nothing for too long."""
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        if unsent:
            if now - self._unsent_since > self._owner.idle_seconds:
                self.abort()
        elif self._lingering_until:
            if now > self._lingering_until:
                self.abort()
        elif self._exchange is None and now - self._since > self._owner.header_seconds:
            if self._ahead:
                limit = self._owner.header_seconds
                self._refuse(Refused(408, f"The head took longer than {limit:g} seconds."))
            else:
                self._transport.close()


def _is_head(data: bytes) -> bool:
    """One head, whose end `data` ends with: nothing before it, nothing behind it."""
    return data.find(_END) == len(data) - 4 and not data.startswith(b"\r")

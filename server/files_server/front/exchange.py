"""One request and its answer: what the application's `receive` and `send` do.

It must not know sockets, nor what comes after it; `Connection` does.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Protocol

from files_server.asgi import App, BrokenOff, Message, Scope
from files_server.front import answers
from files_server.front.heads import Head
from files_server.front.incoming import Incoming

_TOGETHER = 64 << 10  # bytes of a body that are copied behind the head; 16 MiB would take 5 ms
SENDFILE = "http.response.zerocopysend"  # ASGI's extension: a part of an open file
log = logging.getLogger(__name__)


class ClientGone(ConnectionError):
    """Nobody takes the answer any more."""


class Line(Protocol):
    """What an exchange needs of its connection."""

    @property
    def date(self) -> bytes:
        """A whole header line."""

    def write(self, data: bytes) -> None:
        """Send soon. Raises ClientGone."""

    async def drained(self) -> None:
        """Once the client has taken most of what was written. Raises ClientGone."""

    async def send_file(self, head: bytes, file: int, start: int, end: int) -> None:
        """A part of an open file, behind `head` and all that was written. Raises ClientGone,
        OSError, and EOFError where the file is shorter."""

    def hold(self, held: bool) -> None:
        """Read no more of the client for now, or go on."""

    def finished(self, reusable: bool) -> None:
        """The answer is complete. Not `reusable`: what the client sends is no next request."""

    def broken_off(self) -> None:
        """The answer will not be complete: the client is to notice."""


class Exchange:
    """Owned by its connection; the task that runs it is the only one to change it."""

    def __init__(self, line: Line, head: Head) -> None:
        self._line, self._head = line, head
        self.incoming = Incoming(head.length, line.hold, self._ask if head.expects else None)
        self._keeps = head.keep_alive
        self._start: answers.AnswerHead | None = None  # until it is sent
        self._begun = self._complete = False
        self._left: int | None = None  # bytes of the body that are to come; None: in chunks, or any
        self._chunked = self._silent = False

    async def run(self, app: App, scope: Scope) -> None:
        """The request, from begin to end. What the application raises is logged, and ends it."""
        try:
            await app(scope, self.incoming.receive, self.send)
        except (BrokenOff, ClientGone) as error:
            log.debug("%s: %s", self._head.method, error)
        except Exception:
            log.exception("%s failed", self._head.method)
            if not self._begun:
                self._fail()
        finally:
            self._end()

    def _end(self) -> None:
        self.incoming.end()
        if self._complete:
            self._line.finished(self._keeps and self.incoming.complete)
        else:
            self._line.broken_off()

    def _fail(self) -> None:
        self._keeps = False
        with suppress(ClientGone):
            detail, to_head = "The server failed; its log says why.", self._head.method == "HEAD"
            self._line.write(answers.refusal(500, detail, to_head=to_head))
            self._complete = True

    def _ask(self) -> None:
        if not self._begun:
            with suppress(ClientGone):  # `receive` tells it
                self._line.write(answers.CONTINUE)

    async def send(self, message: Message) -> None:
        """ASGI's, for start, body and zerocopysend. Raises ClientGone, RuntimeError for what makes
        no answer; what reading a file raises."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._begun or self._start is not None:
                raise RuntimeError("an answer begins once")
            self._start = answers.AnswerHead(message["status"], message["headers"])
            return
        if self._complete or (self._start is None and not self._begun):
            raise RuntimeError(f"{kind} is no part of an answer here")
        more: bool = message.get("more_body", False)
        if kind == "http.response.body":
            await self._send_body(message.get("body", b""), more)
        elif kind == SENDFILE:
            await self._send_file(message["file"], message["offset"], message["count"], more)
        else:
            raise RuntimeError(f"{kind} is not known here")

    async def _send_body(self, body: bytes, more: bool) -> None:
        head = b"" if self._begun else self._begin(None if more else len(body))
        body = self._framed(body)
        if self._chunked and not more:
            body += answers.LAST_CHUNK
        self._complete = not more and not self._left
        if head and len(body) <= _TOGETHER:
            head, body = head + body, b""
        for part in filter(None, (head, body)):
            self._line.write(part)
        await self._line.drained()

    def _framed(self, body: bytes) -> bytes:
        if self._silent:
            return b""
        if self._left is not None:
            body = body[: self._left]  # more than was announced would be the next answer
            self._left -= len(body)
            return body
        return answers.chunk(body) if self._chunked and body else body

    async def _send_file(self, file: int, offset: int, count: int, more: bool) -> None:
        head = b"" if self._begun else self._begin(None if more else count)
        if self._silent or self._left is None or count > self._left:
            raise RuntimeError("a file is sent with its length announced, and not for HEAD")
        self._left -= count
        await self._line.send_file(head, file, offset, offset + count)
        self._complete = not more and not self._left

    def _begin(self, length: int | None) -> bytes:
        """The head's bytes; `length` of the body where it is known and the application has not
        announced it."""
        start, self._start = self._start, None
        assert start is not None
        self._silent = self._head.method == "HEAD" or not start.has_body
        self._left = 0 if self._silent else start.length
        if start.length is None and start.has_body:
            if length is not None:
                start.add(b"content-length: %d\r\n" % length)
                self._left = 0 if self._silent else length
            elif self._head.is_1_1:
                start.add(b"transfer-encoding: chunked\r\n")
                self._chunked = not self._silent
            else:
                self._keeps = False  # the end of the connection is the body's
        self._keeps = self._keeps and not start.closes and self.incoming.complete
        if not self._keeps and not start.closes:
            start.add(b"connection: close\r\n")
        elif self._keeps and not self._head.is_1_1:
            start.add(b"connection: keep-alive\r\n")
        start.add(self._line.date)
        head = start.encode()
        self._begun = True
        return head

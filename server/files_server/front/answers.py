"""The bytes of an answer: its head, and how its body is framed. No I/O.

It must not decide what is answered, but for requests that are refused before anybody sees them.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from files_server.errors import error_body, title_of

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
RawHeaders = Iterable[tuple[bytes, bytes]]
_LINES = {
    status: f"HTTP/1.1 {status} {title_of(status)}\r\n".encode() for status in map(int, HTTPStatus)
}


class HeadError(ValueError):
    """The application's answer cannot be sent as it is."""


class AnswerHead:
    """What an answer's headers mean for its body and its connection.

    `length` of the body in bytes; None: in chunks, or up to the end of the connection.
    """

    __slots__ = ("_fields", "_status", "closes", "length")

    def __init__(self, status: int, headers: RawHeaders) -> None:
        self._status = status
        self._fields = []
        self.length: int | None = None
        self.closes = False
        for name, value in headers:
            self._fields.append(b"%b: %b\r\n" % (name, value))
            if len(name) == 14 and name.lower() == b"content-length":
                self.length = int(value)
            elif len(name) == 10 and name.lower() == b"connection":
                self.closes = self.closes or value.lower() == b"close"

    @property
    def has_body(self) -> bool:
        """A body may follow, if it was no HEAD."""
        return self._status >= 200 and self._status not in (204, 304)

    def add(self, field: bytes) -> None:
        """A whole line more."""
        self._fields.append(field)

    def encode(self) -> bytes:
        """Raises HeadError where a header would begin another line."""
        line = _LINES.get(self._status) or b"HTTP/1.1 %d \r\n" % self._status
        head = b"".join((line, *self._fields, b"\r\n"))
        if not head.count(b"\n") == head.count(b"\r") == len(self._fields) + 2:
            raise HeadError("a header has more than one line")
        return head


def chunk(data: bytes) -> bytes:
    """One chunk; `data` is not empty, since that would be the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def refusal(status: int, detail: str, *, to_head: bool = False) -> bytes:
    """A whole answer, behind which the connection is closed. `to_head`: the request was a HEAD."""
    body = error_body(status, detail)
    head = AnswerHead(
        status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    )
    head.add(b"connection: close\r\n")
    return head.encode() + (b"" if to_head else body)

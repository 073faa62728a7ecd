"""The head of one request: from its bytes to what the application is told, and how a body follows.

It must not read a body, nor mend anything: what two parsers could read in two ways is refused,
since a proxy in front of us may be the other one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

MOST_BYTES = 256 << 10  # of a head: a key and a destination of 16 KiB each, escaped, and attributes
MOST_TARGET = 64 << 10  # of its request target
MOST_FIELDS = 100
_LINE = re.compile(rb"[A-Z-]+ ([^ \r\n]+) HTTP/1\.([01])\r\n")
_HTTP_LINE = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/\d\.\d\r\n")
_BEGIN = re.compile(rb"[A-Z-]{0,32}(?:\Z| [^ \r\n]*(?:\Z| [^ \r\n]*(?:\Z|\r(?:\Z|\n))))|\r\Z")
_AUTHORITY = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
_CONTROLS = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"})


class Refused(Exception):
    """No request that we understand. `status` is 4xx or 5xx, the message a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Head(NamedTuple):
    """`raw_path` is as it came, still escaped. `length` of the body in bytes; None: chunked."""

    method: str
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]  # names in lower case
    is_1_1: bool
    keep_alive: bool
    length: int | None
    expects: bool


class _Fields:
    """What httptools calls while it reads a head."""

    def __init__(self) -> None:
        self.target = b""
        self.all: list[tuple[bytes, bytes]] = []
        self.controls: dict[bytes, bytes] = {}

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.all) == MOST_FIELDS:  # said at once: tens of thousands would take 20 ms
            raise Refused(431, f"The request has more than {MOST_FIELDS} headers.")
        name = name.lower()
        self.all.append((name, value.rstrip(b" \t")))
        if name in _CONTROLS:
            value = value.strip().lower()
            if name in self.controls:
                if name != b"connection":
                    raise Refused(400, f"The header {name.decode()} comes twice.")
                value = self.controls[name] + b"," + value
            self.controls[name] = value


def parse(data: bytes) -> Head:
    """`data` ends with the empty line behind the head. Raises Refused."""
    if len(data) > MOST_BYTES:
        raise too_long()
    line = _LINE.match(data)
    if line is None:
        raise _bad_line(data)
    fields = _Fields()
    parser = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # what it would rather speak is left alone, as HTTP allows
    except httptools.HttpParserCallbackError as error:
        raise error.__context__ or error from None  # Refused, by _Fields
    except httptools.HttpParserInvalidMethodError:
        raise Refused(501, "The method is not known here.") from None
    except httptools.HttpParserError as error:
        raise Refused(400, f"The head of the request is not HTTP: {error}.") from None
    is_1_1, controls = line[2] == b"1", fields.controls
    if is_1_1 and b"host" not in controls:
        raise Refused(400, "The request has no Host header.")
    raw_path, _, query = _origin_form(fields.target).partition(b"?")
    connection = controls.get(b"connection", b"")
    keep_alive = b"close" not in connection and (is_1_1 or b"keep-alive" in connection)
    expects = is_1_1 and controls.get(b"expect") == b"100-continue"
    length = _length(controls, is_1_1=is_1_1)
    method = parser.get_method().decode()
    return Head(method, raw_path, query, fields.all, is_1_1, keep_alive, length, expects)


def too_long() -> Refused:
    """For a head that has more than MOST_BYTES."""
    return Refused(431, f"The head of the request is longer than {MOST_BYTES} bytes.")


def may_begin(data: bytes | bytearray) -> bool:
    """Whether more bytes could make a head of these: else its client waits for nothing."""
    return _BEGIN.match(data) is not None


def _bad_line(data: bytes) -> Refused:
    if _HTTP_LINE.match(data):
        return Refused(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here, methods in capitals.")
    return Refused(400, "The first line of the request is not HTTP.")


def _origin_form(target: bytes) -> bytes:
    if len(target) > MOST_TARGET:
        raise Refused(414, f"The target has {len(target)} bytes; {MOST_TARGET} are allowed.")
    if b"#" in target:
        raise Refused(400, "The target has a fragment; a # of a name is written %23.")
    if target.startswith(b"/") or target == b"*":
        return target
    authority = _AUTHORITY.match(target)
    if authority is None:
        raise Refused(400, "The target is neither a path nor a URL of http or https.")
    rest = target[authority.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def _length(controls: dict[bytes, bytes], *, is_1_1: bool) -> int | None:
    coding = controls.get(b"transfer-encoding")
    if coding is None:
        return int(controls.get(b"content-length", b"0"))
    if not is_1_1 or b"content-length" in controls:
        raise Refused(400, "Transfer-Encoding is for HTTP/1.1, and without Content-Length.")
    if coding != b"chunked":
        raise Refused(501, "Of transfer encodings only chunked is known here.")
    return None

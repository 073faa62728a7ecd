"""Where a request's body ends: by its length, or chunk by chunk. No I/O.

It must not gather: what comes in goes out, but for a line that is not complete, and for what is
behind very many lines: a body in chunks of 1 byte would hold up everybody else for a second.
"""

from __future__ import annotations

import re

_MOST_LINE = 1024  # bytes of a chunk's size with its extensions, or of a trailer
_MOST_TRAILERS = 100
_MOST_LINES = 1000  # that are read in one go; a millisecond
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class BodyError(Exception):
    """It is not what chunks look like."""


class Sized:
    """A body of `length` bytes."""

    busy = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` is the body's, and what comes behind it."""
        self._left -= len(data)
        if self._left > 0:
            return data, b""
        self.done = True
        end = len(data) + self._left
        return data[:end], data[end:]


class Chunked:
    """A body in chunks (RFC 9112, 7.1). Extensions and trailers are read and dropped. `busy`: it
    has not looked at all that it was given; `feed` it again, be it with nothing."""

    def __init__(self) -> None:
        self._held = b""  # the begin of a line, or all that is left while it is busy
        self._left = 0  # bytes of the chunk that are to come
        self._in_chunk = self._in_trailers = False
        self._trailers = 0
        self.done = self.busy = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` is the body's, and what comes behind it. Raises BodyError."""
        data, at, found, lines = self._held + data, 0, [], 0
        self.busy = False
        while not self.done:
            if self._left:
                part = data[at : at + self._left]
                found.append(part)
                at += len(part)
                self._left -= len(part)
                if self._left:
                    break
            if lines == _MOST_LINES:
                self.busy = True
                break
            lines += 1
            end = data.find(b"\r\n", at, at + _MOST_LINE)
            if end < 0:
                if len(data) - at >= _MOST_LINE or b"\n" in data[at:]:
                    raise BodyError("a line has no end, or another one than CR LF")
                break
            self._line(data[at:end])
            at = end + 2
        self._held = b"" if self.done else data[at:]
        return b"".join(found), data[at:] if self.done else b""

    def _line(self, line: bytes) -> None:
        if self._in_chunk:
            if line:
                raise BodyError("a chunk is longer than it says")
            self._in_chunk = False
        elif self._in_trailers:
            self._trailers += 1
            self.done = not line
            if line and (self._trailers > _MOST_TRAILERS or not _TRAILER.fullmatch(line)):
                raise BodyError("a trailer is no header")
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise BodyError("a chunk has no size")
            self._left = int(size[1], 16)
            self._in_chunk, self._in_trailers = self._left > 0, self._left == 0

"""Request targets, built by hand: what is checked here goes on the wire as it stands.

It must not use a URL library: those collapse `.` and `..` segments and re-encode.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from filesfs.domain import Kind, Location
from filesfs.errors import InvalidRequest

_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_KEY = re.compile(r"[A-Za-z0-9_\-/.]{1,16384}\Z")
_BAD_SEGMENT = re.compile(r"(?:^|/)(?:\.{0,2})(?:/|\Z)")  # empty, "." or ".."


def check(location: Location) -> Location:
    """The location, or InvalidRequest when its names cannot exist on any server."""
    if location.bucket and not _BUCKET.match(location.bucket):
        raise InvalidRequest(
            f"The bucket name {location.bucket!r} is not 1 to 255 characters of A-Z a-z 0-9 _ -."
        )
    if location.key and (not _KEY.match(location.key) or _BAD_SEGMENT.search(location.key)):
        raise InvalidRequest(
            f"The key {location.key[:200]!r} has other characters than A-Z a-z 0-9 _ - / . or a"
            f" segment that is empty, '.' or '..', or is longer than 16,384 bytes."
        )
    return location


class Targets:
    """Builds targets under one prefix (`/v1`, `/some/path/v1`)."""

    def __init__(self, prefix: str) -> None:
        self._files = f"{prefix}/files"

    def files(self, query: str = "") -> str:
        return f"{self._files}?{query}" if query else self._files

    def of(self, location: Location, query: str = "", kind: Kind = Kind.FILE) -> str:
        """The target of a location; a directory's ends with a slash."""
        check(location)
        slash = "/" if kind is Kind.DIRECTORY and location.key else ""
        path = f"{self._files}/{location.bucket}"
        if location.key:
            path = f"{path}/{location.key}{slash}"
        return f"{path}?{query}" if query else path


def target_of(url: str) -> str:
    """Path and query of a URL that a server handed out, verbatim."""
    parts = urlsplit(url)
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def with_query(target: str, query: str) -> str:
    """The target with one more query parameter."""
    return f"{target}{'&' if '?' in target else '?'}{query}"


def quoted(value: str) -> str:
    """A query value."""
    return quote(value, safe="")

"""Range, If-Range and entity-tag headers (RFC 9110), as pure functions.

They must not read content or know where it comes from.
"""

from __future__ import annotations

import re

from files_server.errors import ApiError

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*\Z", re.IGNORECASE)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """(first, end) of a single byte range, end exclusive; None: answer with the whole.

    Several ranges and units other than bytes are ignored, as the RFC allows. Raises ApiError 416
    when the range begins at or behind the end.
    """
    match = _RANGE.match(header)
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise ApiError(
            416,
            f"The range {header!r} lies outside of the {size} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def matches(header: str, etag: str | None, *, weak: bool = False) -> bool:
    """Whether an If-Match or If-None-Match list names `etag` (None: there is no such file)."""
    if etag is None:
        return False
    for item in header.split(","):
        tag = item.strip()
        if tag == "*" or tag == etag or (weak and tag.removeprefix("W/") == etag):
            return True
    return False

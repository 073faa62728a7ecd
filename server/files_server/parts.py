"""One request's part of an upload: what it says of itself, held against its session.

It must not read the body or touch files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from files_server.catalog.sessions import Session
from files_server.digests import Digests
from files_server.errors import OFFSET, ApiError


@dataclass(frozen=True, slots=True)
class Part:
    """One request's body. `length` None: chunked. `offset`, `total`: Upload-Offset and -Length."""

    stream: AsyncIterator[bytes]
    length: int | None
    offset: int | None = None
    total: int | None = None
    digests: Digests = field(default_factory=Digests)
    copy_base: int = 0


def with_total(session: Session, part: Part, limit: int) -> Session:
    """The session with the length that this part fixes, if it does. ApiError 400, 413."""
    if part.total is None or session.size == part.total:
        return session
    if session.size is not None:
        raise ApiError(
            400, f"Upload-Length {part.total} is not the session's size, {session.size}."
        )
    if part.total < session.offset:
        raise ApiError(
            400, f"Upload-Length {part.total} is less than the {session.offset} bytes sent."
        )
    check_size(part.total, limit)
    return replace(session, size=part.total)


def check_part(session: Session, part: Part, limit: int) -> None:
    """That the part goes on where the session is, and fits into it. ApiError 409, 413."""
    at = {"Upload-Offset": str(session.offset)}
    if part.offset is not None and part.offset != session.offset:
        raise ApiError(
            409,
            f"Upload-Offset {part.offset} is not where the upload is: {session.offset}.",
            reason=OFFSET,
            headers=at,
        )
    left = (limit if session.size is None else session.size) - session.offset
    if (part.length or 0) <= left:
        return
    if part.length == session.size:
        raise ApiError(
            409,
            f"{session.offset} of {session.size} bytes are here; send only the rest.",
            reason=OFFSET,
            headers=at,
        )
    raise ApiError(413, f"{part.length} bytes are more than the {left} that are left.", headers=at)


def check_size(size: int, limit: int) -> None:
    """ApiError 413 for more than a file may have."""
    if size > limit:
        raise ApiError(413, f"{size} bytes are more than a file may have here: {limit}.")

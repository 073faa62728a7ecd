"""What handlers take out of a request: target, headers, JSON bodies, parts; and JSON answers.

It must not act on any of it.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from files_server import auth, digests, exchange
from files_server.catalog.commits import Conditions, Outcome
from files_server.changes import CURSOR
from files_server.digests import Digests
from files_server.errors import ApiError, shown
from files_server.leases import Client
from files_server.names import Target
from files_server.parts import Part
from files_server.routes import registered
from files_server.services import Services

_as_json = json.JSONEncoder(separators=(",", ":")).encode
_ORIGIN = re.compile(r"[A-Za-z0-9_-]{0,64}\Z")


def services_of(request: Request) -> Services:
    found = request.scope.get("files.services") or request.app.state.services
    return cast("Services", found)


def target_of(request: Request) -> Target:
    """What the path addresses. Raises the path's own problem."""
    target = cast("Target", request.scope["files.target"])
    if target.problem:
        raise target.problem
    return target


async def registered_answer(request: Request, target: Target) -> Response | None:
    """The answer where a registered location is meant, else None."""
    registrations = request.app.state.registered.registrations
    if registrations.get(target.bucket) is None and not target.is_uri:
        return None
    return await registered.answer(request, target, request.app.state.registered)


def refuse_registered(request: Request, bucket: str) -> None:
    """ApiError 501 for a destination in a registered location."""
    found = request.app.state.registered.registrations.get(bucket)
    if found and found.read_only:
        raise ApiError(403, f"The bucket {shown(bucket)} is registered read-only.")
    if found:
        raise ApiError(501, f"The bucket {shown(bucket)} is a registered location: not there.")


def registered_buckets(request: Request, *, full: bool) -> list[dict[str, Any]]:
    """What op 4 shows of registered locations."""
    bodies: list[dict[str, Any]] = []
    for alias, found in registered.listed(request.app.state.registered.registrations):
        body: dict[str, Any] = {"name": alias}
        if full:
            ns = found.created_at * 1_000_000_000
            body |= {"created_at": found.created_at, "etag": f'"registered-{alias}"'}
            body |= {"modified_ns": ns, "changed_ns": ns, "accessed_ns": ns}
            body |= {"mode": None, "uid": None, "gid": None, "nlink": 2}
            body |= {"resource_id": f"registered.{alias}", "xattrs": {}}
            body["read_only"] = found.read_only
        bodies.append(body)
    return bodies


def is_full(request: Request) -> bool:
    """?view=full. ApiError 400 for another view."""
    view = request.query_params.get("view", "basic")
    if view not in ("basic", "full"):
        raise ApiError(400, f"view {shown(view)} is neither 'basic' nor 'full'.")
    return view == "full"


def is_media(request: Request) -> bool:
    """?alt=media. ApiError 400 for another representation."""
    alt = request.query_params.get("alt", "json")
    if alt not in ("json", "media"):
        raise ApiError(400, f"alt {shown(alt)} is neither 'json' nor 'media'.")
    return alt == "media"


def origin_of(request: Request) -> str:
    """Files-Origin. ApiError 400."""
    origin = request.headers.get("files-origin", "")
    if not _ORIGIN.match(origin):
        raise ApiError(400, f"Files-Origin {shown(origin)} is not up to 64 of A-Z a-z 0-9 _ -.")
    return origin


def flag(request: Request, name: str) -> bool:
    """A header that is on when it is given and neither 0 nor F."""
    return request.headers.get(name, "0").upper() not in ("", "0", "F")


def number(request: Request, name: str) -> int | None:
    """A header that is a count of bytes; None without it. ApiError 400."""
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ApiError(400, f"{name} {shown(text)} is not a number of bytes.")
    return int(text)


def repeated_since(request: Request) -> int | None:
    """Files-Repeat: the number of a change. An earlier try of this request may have been done after
    it; then it is not to be done again. None: this is the first try, or that was another catalog.
    ApiError 400.
    """
    return number_of_cursor(request, "Files-Repeat")


def number_of_cursor(request: Request, name: str) -> int | None:
    """A header that is the feed's cursor, as the number of a change. None without it, and for that
    of another catalog. ApiError 400."""
    cursor = request.headers.get(name)
    if cursor is None:
        return None
    match = CURSOR.match(cursor)
    if match is None:
        raise ApiError(400, f"{name} {shown(cursor)} is not EPOCH-NUMBER.")
    same = match.group(1) == services_of(request).catalog.epoch
    return int(match.group(2)) if same else None


def client_of(request: Request) -> Client:
    """Who asks: what leases are granted to. ApiError 400."""
    return auth.current().name, origin_of(request)


def lease_of(request: Request, target: Target, rid: str) -> str:
    """The Files-Lease of an answer that was read from the catalog just now, "" for none. For before
    anything is awaited. ApiError 400."""
    if "files-lease" not in request.headers:
        return ""
    asked = request.headers["files-lease"]
    if asked != "1":
        raise ApiError(400, f"Files-Lease {shown(asked)} is not 1, which asks for a lease.")
    client, leases = client_of(request), services_of(request).leases
    return leases.grant(client, target.bucket, target.key, rid)


def conditions_of(request: Request) -> Conditions:
    headers = request.headers
    return Conditions(headers.get("if-match", ""), headers.get("if-none-match", ""))


def part_of(request: Request) -> Part:
    """The body of an upload. ApiError 400 for malformed headers."""
    headers = request.headers
    found = Digests()
    if "content-digest" in headers or "repr-digest" in headers:
        found = Digests(
            digests.parse(headers.get("content-digest", ""), "Content-Digest"),
            digests.parse(headers.get("repr-digest", ""), "Repr-Digest"),
        )
    length = number(request, "Content-Length")
    if length is None and "transfer-encoding" not in headers:
        length = 0
    return Part(
        request.stream(), length, number(request, "Upload-Offset"),
        number(request, "Upload-Length"), found, number(request, "Files-Copy-Base") or 0,
    )  # fmt: skip


def answer(
    request: Request, body: Any, *, etag: str = "", number: int = 0, changed_ns: int = 0
) -> Response:
    """200 with a JSON value, the feed's cursor, and the ETag where there is one; of a change that
    no entry tells of, also with which time it stamped what it touched.
    """
    text = "null" if body is None else _as_json(body)
    response = text_answer(request, text, etag=etag, number=number)
    if changed_ns:
        response.raw_headers.append((b"files-changed", str(changed_ns).encode()))
    return response


def text_answer(request: Request, text: str, *, etag: str = "", number: int = 0) -> Response:
    """The same with JSON that is written already."""
    response = exchange.json_answer(text)
    cursor = services_of(request).catalog.cursor_at(number)
    response.raw_headers.append((b"files-cursor", cursor.encode()))
    if etag:
        response.raw_headers.append((b"etag", etag.encode()))
    return response


def outcome_answer(request: Request, outcome: Outcome) -> Response:
    """The entry that a change left, full where the client asked for it."""
    entries = services_of(request).entries
    text = entries.file(outcome.bucket, outcome.key, outcome.node, full=is_full(request))
    return text_answer(request, text, etag=outcome.node.etag, number=outcome.number)

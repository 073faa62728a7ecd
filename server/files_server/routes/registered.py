"""Ops 8 and 9, and every request about a registered bucket. Answers None for what is not its own.

It must not decide who may ask (`access.py` has), nor open files (`located.py` does).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from files_server.access import require
from files_server.auth import Right
from files_server.catalog.commits import Conditions
from files_server.errors import ApiError, not_found, shown
from files_server.names import Kind, Target, check_bucket, check_key
from files_server.ranges import matches, parse_range
from files_server.registration import locations
from files_server.registration.located import CHUNK, LocatedBucket
from files_server.registration.locations import Found, Location, OpenFile
from files_server.registration.receiving import check_of
from files_server.registration.table import (
    Registered,
    Registrations,
    Writer,
    alias_of,
)
from files_server.routes.bodies import attributes_of, body_of
from filesfs.wire import AttributesPatch


@dataclass(frozen=True, slots=True)
class Context:
    """What the handlers work with."""

    registrations: Registrations
    writer: Writer
    base_url: str


async def answer(request: Request, target: Target, context: Context) -> Response | None:
    """The answer to a request about a URI or a registered bucket; None: it is not about one."""
    if target.kind not in (Kind.BUCKET, Kind.KEY) or target.problem:
        return None
    registered = context.registrations.get(target.bucket)
    if registered is None and not target.is_uri:
        return None
    if request.method == "PUT" and request.query_params.get("alt") != "media":
        return await _register(request, target, context)
    if registered is None:
        check_bucket(target.bucket)  # a URI is no bucket name, but in ops 8 and 9
        return None
    if target.kind is Kind.BUCKET:
        _check_choices(request)
        return await _bucket(request, target, registered, context)
    check_key(target.key, directory=True)
    if request.method == "PUT" and not target.key.endswith("/"):
        return None  # content goes one way, wherever it ends
    _check_choices(request)
    return await _key(request, target, registered, context)


def _check_choices(request: Request) -> None:
    """ApiError 400 for a view or a representation that there is not."""
    for name, choices in (("view", ("basic", "full")), ("alt", ("json", "media"))):
        given = request.query_params.get(name, choices[0])
        if given not in choices:
            raise ApiError(400, f"{name} {shown(given)} is neither {' nor '.join(choices)}.")


async def _register(request: Request, target: Target, context: Context) -> Response:
    """Op 8 and op 9, by URI or by an alias that exists."""
    key = target.key
    if target.kind is Kind.KEY:
        check_key(key)
    registrations = context.registrations
    if target.is_uri:
        path = await asyncio.to_thread(registrations.resolve, target.bucket)
    else:
        registered = registrations.get(target.bucket)
        assert registered is not None, "answer() passes on only what it found"
        path = registered.location.path
    query = request.query_params
    name = query.get("name")
    row = registrations.known(path, key)
    alias = target.bucket if not target.is_uri else alias_of(target.bucket, name)
    if row is None or (name is not None and row.bucket != alias) or "mode" in query:
        location = Location(path)
        if row is None:
            location = await asyncio.to_thread(_located, target, path, key)
        if row is not None and name is None:
            alias = row.bucket
        require(Right.REGISTER, alias)
        row = await registrations.register(
            context.writer, location, alias, key, _mode(query.get("mode"))
        )
    require(Right.REGISTER, row.bucket)
    body: dict[str, Any] = {"bucket": target.bucket}
    if key:
        body["key"] = key
    status = await asyncio.to_thread(row.status)
    return _json({**body, "created_at": row.created_at, "status": status})


def _located(target: Target, path: Path, key: str) -> Location:
    """The location to register, which is there now. ApiError 400, 404."""
    try:
        found = locations.find(Location(path), key)
    except ApiError as error:
        if error.status != 503:
            raise
        if path.is_file():
            raise ApiError(400, f"{shown(target.bucket)} is a file, not a directory.") from None
        raise ApiError(404, f"There is nothing to register at {shown(target.bucket)}.") from None
    if key and found.is_directory:
        raise ApiError(400, f"{shown(key)} is a directory, not a file.")
    return Location(path, locations.mountpoint_of(path))


def _mode(given: str | None) -> bool | None:
    if given not in (None, "ro", "rw"):
        raise ApiError(400, f"The mode {shown(given or '')} is neither ro nor rw.")
    return None if given is None else given == "rw"


async def _bucket(
    request: Request, target: Target, registered: Registered, context: Context
) -> Response:
    if request.method in ("GET", "HEAD"):
        return await _list(request, target, registered, context)
    if request.method == "DELETE":
        await context.registrations.forget(context.writer, target.bucket)
        return _json(None)
    raise _unsupported(request.method)


async def _list(
    request: Request, target: Target, registered: Registered, context: Context
) -> Response:
    query = request.query_params
    full = query.get("view") == "full"
    shallow = query.get("delimiter") == "/"
    if query.get("delimiter", "/") != "/":
        raise ApiError(400, f"The delimiter {shown(query['delimiter'])} is not '/'.")
    limit = _limit(query.get("limit"))
    located = LocatedBucket(target.bucket, registered, context.base_url)
    prefix, after = query.get("prefix", ""), query.get("after", "")
    marked = full or shallow

    def collect() -> list[Found]:
        """One entry more than asked for tells whether there is more."""
        found = located.children(prefix) if shallow else located.walk(prefix)
        shown_ones = (f for f in found if _behind(f, after) and (marked or not f.is_directory))
        return list(islice(shown_ones, None if limit is None else limit + 1))

    entries = await asyncio.to_thread(collect)
    more = limit is not None and len(entries) > limit
    entries = entries[:limit]
    body: dict[str, Any] = {"data": []}
    common: list[Any] = []
    for found in entries:
        entry = located.entry(found, full=full)
        if shallow and found.is_directory:
            common.append(entry if full else entry["key"])
        else:
            body["data"].append(entry)
    if {"prefix", "delimiter", "limit", "after"} & set(query):
        body |= {"common_prefixes": common, "has_more": more}
    return _json(body)


def _behind(found: Found, after: str) -> bool:
    key = found.key + "/" if found.is_directory else found.key
    return not after or (key > after and not (found.is_directory and after.startswith(key)))


def _limit(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) > 0):
        raise ApiError(400, f"The limit {shown(given)} is no number from 1 on.")
    return int(given)


async def _key(
    request: Request, target: Target, registered: Registered, context: Context
) -> Response:
    located = LocatedBucket(target.bucket, registered, context.base_url)
    key, query = target.key, request.query_params
    full = query.get("view") == "full"
    match request.method:
        case "GET" | "HEAD" if query.get("alt") == "media":
            return await _content(request, located, key)
        case "GET" | "HEAD":
            found = await asyncio.to_thread(located.find, key)
            if found.is_directory and not full:
                raise not_found(target.bucket, key)
            return _json(located.entry(found, full=full), {"ETag": found.etag})
        case "PUT" | "PATCH":
            found = await _change(request, located, key)
            return _json(located.entry(found, full=full), {"ETag": found.etag})
        case "DELETE":
            if key in registered.files:
                await context.registrations.forget(context.writer, target.bucket, key)
            else:
                check = check_of(_conditions(request), key)
                await asyncio.to_thread(located.remove, key, check)
            return _json(None)
    raise _unsupported(request.method)


async def _change(request: Request, located: LocatedBucket, key: str) -> Found:
    """PATCH, or PUT of a directory."""
    check = check_of(_conditions(request), key)
    if request.method == "PATCH":
        patch = await body_of(request, AttributesPatch)
        return await asyncio.to_thread(located.set_attributes, key, patch, check)
    async for chunk in request.stream():
        if chunk:
            raise ApiError(400, f"The directory {shown(key)} takes no content.")
    attributes = attributes_of(request)
    return await asyncio.to_thread(located.make_directory, key, check, attributes)


def _conditions(request: Request) -> Conditions:
    return Conditions(request.headers.get("if-match", ""), request.headers.get("if-none-match", ""))


async def _content(request: Request, located: LocatedBucket, key: str) -> Response:
    opened = await asyncio.to_thread(located.open, key)
    return _content_answer(request, opened)


def _content_answer(request: Request, opened: OpenFile) -> Response:
    found = opened.found
    headers = {
        "ETag": found.etag,
        "Accept-Ranges": "bytes",
        "Content-Type": found.mime_type,
        "Last-Modified": formatdate(found.modified_ns // 1_000_000_000, usegmt=True),
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": "attachment",
        "Cache-Control": "no-cache",
    }
    asked = request.headers
    if asked.get("if-match") and not matches(asked["if-match"], found.etag):
        raise ApiError(412, f"The file is now the version {found.etag}.")
    if request.query_params.get("version", found.etag).strip('"') != found.etag.strip('"'):
        raise ApiError(410, "That version is no more: older ones of a location are not kept.")
    if matches(asked.get("if-none-match", ""), found.etag, weak=True):
        return Response(status_code=304, headers=headers)
    start, end, status = 0, found.size, 200
    if "range" in asked and asked.get("if-range", found.etag) == found.etag:
        part = parse_range(asked["range"], found.size)
        if part is not None:
            start, end, status = *part, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_parts(opened, start, end), status, headers)


async def _parts(opened: OpenFile, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes, of this version alone: a change in between breaks the answer off."""
    while start < end:
        data = await asyncio.to_thread(opened.read, start, min(CHUNK, end - start))
        if not data:
            raise ApiError(410, "The file has shrunk while it was read.")
        start += len(data)
        yield data


def listed(registrations: Registrations) -> Iterator[tuple[str, Registered]]:
    """For op 4: the registered buckets by name."""
    for alias in registrations.aliases():
        registered = registrations.get(alias)
        if registered is not None:
            yield alias, registered


def _unsupported(method: str) -> ApiError:
    return ApiError(501, f"{method} is not supported in a registered location.")


def _json(body: object, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), media_type="application/json", headers=headers)

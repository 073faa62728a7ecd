"""`/v1/files/{bucket}`: listing (op 5), registration (op 8), attributes, removal."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from files_server.catalog import attributes, listing, moves, nodes, tree
from files_server.catalog.database import Transaction
from files_server.catalog.following import Followed, following
from files_server.catalog.nodes import Node
from files_server.entries import Body
from files_server.errors import ApiError, not_found, shown
from files_server.names import check_bucket
from files_server.routes import asking, bodies, deleted
from files_server.routes.describing import described
from files_server.services import Services
from filesfs.wire import (
    AttributesPatch,
    BucketResponse,
    ListFilesResponse,
    Operation,
    RegisterBucketResponse,
)

router = APIRouter()
_ON_LOOP = 500  # entries that are looked at without a thread: a few milliseconds
_ROWS_ON_LOOP = 1_000  # they take a third of the time
_MOST = 10_000  # entries in one answer, where the client pages


class _TooMany(Exception):
    """More entries have to be looked at than there is time for on the event loop."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    bucket: str
    prefix: str
    after: str
    limit: int | None
    delimited: bool
    full: bool
    paged: bool  # asked with any of the listing parameters: common_prefixes and has_more show
    rows: bool  # a page of a directory, each entry as an array
    walk: int  # and the listings that a walk comes to next, within so many entries in all
    levels: int  # of directories above, behind which it goes on


@router.get("/v1/files/{bucket}", **described("list_files_in_bucket", ListFilesResponse))
@router.head("/v1/files/{bucket}", include_in_schema=False)
async def list_files(request: Request) -> Response:
    target = asking.target_of(request)
    if request.query_params.get("deleted"):
        return deleted.files(request, target.bucket)
    if located := await asking.registered_answer(request, target):
        return located
    services, wanted = asking.services_of(request), _wanted(request, check_bucket(target.bucket))
    number = services.catalog.latest  # before it is read: what comes later may be missing
    node = nodes.find(services.catalog.at_hand, wanted.bucket)
    if node is None:
        raise not_found(wanted.bucket)
    text = None
    with suppress(_TooMany):
        text = _listed(services.catalog.at_hand, services, wanted, _ON_LOOP)
    if text is None:  # not in an except clause: it would keep its statement open
        text = await asyncio.to_thread(_in_snapshot, services, wanted)
    response = asking.text_answer(request, text, etag=node.etag, number=number)
    if wanted.rows:
        # One without a walk may stand in for one with it, but not the reverse.
        vary = b"Files-Rows, Files-Walk, Files-Walk-Levels" if wanted.walk else b"Files-Rows"
        response.raw_headers += [(b"files-rows", b"1"), (b"vary", vary)]
    return response


@router.put("/v1/files/{bucket}", **described("register_bucket", RegisterBucketResponse))
async def register(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    bucket = check_bucket(target.bucket)

    def make(tx: Transaction) -> tuple[Node, int]:
        node_id, fresh = tree.make_bucket(tx, bucket)
        return nodes.by_id(tx.connection, node_id), tx.events[-1][0] if fresh else 0

    services = asking.services_of(request)
    node, number = await services.catalog.write(make, asking.origin_of(request))
    body: Body = {"bucket": bucket, "created_at": node.created_at, "status": "available"}
    return asking.answer(request, body, etag=node.etag, number=number)


@router.patch(
    "/v1/files/{bucket}", **described("set_bucket_attributes", BucketResponse, AttributesPatch)
)
async def patch(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    bucket = check_bucket(target.bucket)
    change = await bodies.body_of(request, AttributesPatch)

    def apply(tx: Transaction) -> tuple[Node, int]:
        node = moves.must_find(tx, (bucket, ""))
        number = 0
        changed = attributes.apply(tx, node, change)
        if changed is not node:
            number = tree.record(tx, Operation.BUCKET, [(bucket, "")], node.rid, node.etag)
        return changed, number

    services = asking.services_of(request)
    node, number = await services.catalog.write(apply, asking.origin_of(request))
    body = services.entries.bucket(node, full=asking.is_full(request))
    return asking.answer(request, body, etag=node.etag, number=number)


@router.delete("/v1/files/{bucket}", **described("remove_bucket"))
async def remove(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    bucket = check_bucket(target.bucket)
    services = asking.services_of(request)
    number = await services.catalog.remove(
        lambda tx: moves.delete_bucket(tx, bucket), asking.origin_of(request)
    )
    return asking.answer(request, None, number=number)


@router.api_route("/v1/files/{bucket}", methods=["MOVE", "BIND"], include_in_schema=False)
async def move(request: Request) -> Response:
    asking.target_of(request)
    raise ApiError(501, "A bucket itself cannot be moved or linked; its files can.")


def _wanted(request: Request, bucket: str) -> _Wanted:
    query = request.query_params
    delimiter, limit = query.get("delimiter", ""), query.get("limit")
    if delimiter not in ("", "/"):
        raise ApiError(400, f"delimiter {shown(delimiter)} is not '/'.")
    if limit is not None and not (limit.isascii() and limit.isdigit() and 0 < len(limit) < 10):
        raise ApiError(400, f"limit {shown(limit)} is not a number from 1 to {_MOST}.")
    if limit is not None and int(limit) < 1:
        raise ApiError(400, f"limit {limit} is less than 1.")
    prefix, full = query.get("prefix", ""), asking.is_full(request)
    paged = any(name in query for name in ("prefix", "delimiter", "limit", "after"))
    is_page = full and delimiter == "/" and limit is not None and prefix[-1:] in ("", "/")
    return _Wanted(
        bucket, prefix, query.get("after", ""), min(int(limit), _MOST) if limit else None,
        delimiter == "/", full, paged,
        is_page and listing.HAS_ROWS and asking.flag(request, "Files-Rows"),
        min(asking.number(request, "Files-Walk") or 0, _ROWS_ON_LOOP),
        asking.number(request, "Files-Walk-Levels") or 0,
    )  # fmt: skip


def _in_snapshot(services: Services, wanted: _Wanted) -> str:
    with services.catalog.snapshot() as connection:
        return _listed(connection, services, wanted, None)


def _listed(
    connection: sqlite3.Connection, services: Services, wanted: _Wanted, most: int | None
) -> str:
    """The answer's text. _TooMany where more than `most` entries have to be looked at for it."""
    limit = wanted.limit
    if wanted.rows and limit is not None:
        looked_at = limit if most is None else min(limit, _ROWS_ON_LOOP)
        made = listing.rows(connection, wanted.bucket, wanted.prefix, wanted.after, looked_at + 1)
        if looked_at < limit and len(made) > looked_at:
            raise _TooMany
        more = len(made) > limit
        walk = None if more or not wanted.walk else _walk(connection, wanted, len(made))
        return services.entries.rows(made[:limit], more=more, walk=walk)
    rows = _shown(_first(most, _rows(connection, wanted)), wanted)
    taken = list(islice(rows, None if limit is None else limit + 1))
    more = limit is not None and len(taken) > limit
    files: list[str] = []
    prefixes: list[str] = []
    for key, node in taken[:limit]:
        folder = node.is_directory and wanted.delimited
        if folder and not wanted.full:
            prefixes.append(f'"{key}"')
            continue
        entry = services.entries.file(wanted.bucket, key, node, full=wanted.full)
        (prefixes if folder else files).append(entry)
    text = f'{{"data":[{",".join(files)}]'
    if wanted.paged:
        text += f',"common_prefixes":[{",".join(prefixes)}],"has_more":{str(more).lower()}'
    return text + "}"


def _walk(
    connection: sqlite3.Connection, wanted: _Wanted, listed: int
) -> Iterator[Followed] | None:
    """What comes after a directory of so many entries that is listed whole."""
    if wanted.after or listed >= wanted.walk:
        return None
    directory, most = wanted.prefix.removesuffix("/"), wanted.walk - listed
    return following(connection, wanted.bucket, directory, wanted.levels, most)


def _rows(connection: sqlite3.Connection, wanted: _Wanted) -> Iterator[tuple[str, Node]]:
    list_them = listing.children if wanted.delimited else listing.walk
    return list_them(connection, wanted.bucket, wanted.prefix, wanted.after)


def _first(most: int | None, rows: Iterator[tuple[str, Node]]) -> Iterator[tuple[str, Node]]:
    """All of them, but _TooMany when there are more than `most`."""
    for number, row in enumerate(rows):
        if number == most:
            raise _TooMany
        yield row


def _shown(rows: Iterator[tuple[str, Node]], wanted: _Wanted) -> Iterator[tuple[str, Node]]:
    """Without a delimiter directories show only where they are explicit, and only in full view."""
    for key, node in rows:
        if not node.is_directory or wanted.delimited or (wanted.full and node.explicit):
            yield key, node

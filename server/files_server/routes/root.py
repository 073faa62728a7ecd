"""`/v1/files` itself: op 1's and op 4's address, the extensions, usage, the change feed."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from files_server import auth
from files_server.auth import Right
from files_server.catalog import listing
from files_server.catalog.totals import Totals, totals
from files_server.changes import Listener
from files_server.routes import asking, deleted, leasing, sessions
from files_server.routes.describing import described
from files_server.running import ENDLESS
from filesfs.wire import (
    Extension,
    FileUploadResponse,
    ListBucketsResponse,
    UploadRequest,
    UsageResponse,
)

router = APIRouter()
_EXTENSIONS = ", ".join(
    each for each in Extension if each is not Extension.CONTENTS or listing.HAS_ROWS
)


@router.post("/v1/files", **described("create_upload_session", FileUploadResponse, UploadRequest))
async def create_session(request: Request) -> Response:
    if request.query_params.get("leases"):
        return await leasing.renew(request)
    return await sessions.create(request)


@router.delete("/v1/files", include_in_schema=False)
async def delete(request: Request) -> Response:
    return await leasing.release(request)


@router.get("/v1/files", **described("list_all_buckets", ListBucketsResponse | UsageResponse))
@router.head("/v1/files", include_in_schema=False)
async def read(request: Request) -> Response:
    query = request.query_params
    if query.get("changes"):
        return _changes(request)
    if query.get("deleted"):
        return await deleted.buckets(request)
    if query.get("usage"):
        return await _usage(request)
    return _buckets(request)


@router.options("/v1/files", include_in_schema=False)
async def options(request: Request) -> Response:
    response = asking.answer(request, None)
    response.headers["Files-Extensions"] = _EXTENSIONS
    response.headers["Allow"] = "DELETE, GET, HEAD, OPTIONS, POST"
    return response


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """Whether the catalog can be read."""
    asking.services_of(request).catalog.reader.execute("SELECT 1 FROM meta").fetchone()
    return asking.answer(request, {"status": "ok"})


def _buckets(request: Request) -> Response:
    services = asking.services_of(request)
    full, grant = asking.is_full(request), auth.current()
    data: list[dict[str, Any]] = [
        services.entries.bucket(node, full=full)
        for node in listing.buckets(services.catalog.at_hand)
    ]
    known = {body["name"] for body in data}
    data += [
        body for body in asking.registered_buckets(request, full=full) if body["name"] not in known
    ]
    visible = [body for body in data if grant.allows(Right.READ, body["name"])]
    return asking.answer(request, {"data": sorted(visible, key=lambda body: body["name"])})


async def _usage(request: Request) -> Response:
    services = asking.services_of(request)

    def sums() -> Totals:  # over all files, which takes a while
        with services.catalog.snapshot() as connection:
            return totals(connection)

    space = await asyncio.to_thread(services.blobs.space)
    found = await asyncio.to_thread(sums)
    body = {
        "total_bytes": space.total, "free_bytes": space.free, "used_bytes": found.used_bytes,
        "files": found.files, "kept_bytes": found.kept_bytes, "reserved_bytes": space.reserved,
    }  # fmt: skip
    return asking.answer(request, body)


def _changes(request: Request) -> Response:
    services, grant = asking.services_of(request), auth.current()
    after = services.changes.start(services.catalog, request.headers.get("last-event-id"))
    client = asking.client_of(request)
    listener = Listener(
        lambda bucket: grant.allows(Right.READ, bucket),
        client[1] if request.query_params.get("own") == "0" else "",
        client,
        private=grant is not auth.EVERYBODY,
    )
    stream = services.changes.stream(services.catalog, after, listener)
    headers = {"Cache-Control": "no-store", "Files-Cursor": services.catalog.cursor_at(after)}
    request.scope[ENDLESS] = True
    return StreamingResponse(stream, 200, headers, "text/event-stream")

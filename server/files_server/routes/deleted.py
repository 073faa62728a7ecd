"""What was deleted or replaced and is kept: listings, undelete, and giving it up early.

`GET /v1/files?deleted=1`, `GET /v1/files/{bucket}?deleted=1`, `POST /v1/files/{bucket}/{key}` with
`?undelete=ETAG` or `?purge=ETAG`. Whoever may delete in a bucket may see what was deleted there;
bringing it back takes the right to write, too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from files_server import auth
from files_server.access import require
from files_server.auth import Right
from files_server.catalog import keeping, undelete
from files_server.catalog.undelete import Deleted, DeletedBucket
from files_server.errors import ApiError, not_found, shown
from files_server.names import check_bucket, check_key
from files_server.routes import asking
from files_server.routes.describing import described
from filesfs.wire import FileResponse

router = APIRouter()
_MOST = 1000  # entries in one answer


async def buckets(request: Request) -> Response:
    """`GET /v1/files?deleted=1`."""
    catalog, grant = asking.services_of(request).catalog, auth.current()

    def counted() -> list[DeletedBucket]:  # over all that is kept, which takes a while
        with catalog.snapshot() as connection:
            return undelete.buckets(connection)

    rows = await asyncio.to_thread(counted)
    visible = [row._asdict() for row in rows if grant.allows(Right.DELETE, row.name)]
    return asking.answer(request, {"data": visible})


def files(request: Request, bucket: str) -> Response:
    """`GET /v1/files/{bucket}?deleted=1`, with `prefix`, and `after` as `next` of the last one."""
    require(Right.DELETE, check_bucket(bucket))
    query = request.query_params
    rows = undelete.listed(
        asking.services_of(request).catalog.reader,
        bucket,
        query.get("prefix", ""),
        _after(query.get("after", "")),
    )
    data: list[dict[str, Any]] = []
    following = None
    for row in rows:
        if len(data) == _MOST:
            following = f"{data[-1]['id']}/{data[-1]['key']}"
            break
        data.append(_shown(row))
    return asking.answer(request, {"data": data, "next": following})


@router.post("/v1/files/{bucket}/{key:path}", **described("undelete_file", FileResponse))
async def change(request: Request) -> Response:
    """Bring a version back as this key, or give it up."""
    target, query = asking.target_of(request), request.query_params
    if not {"undelete", "purge"} & set(query):
        raise HTTPException(405)
    check_bucket(target.bucket)
    check_key(target.key)
    asking.refuse_registered(request, target.bucket)
    etag = query.get("undelete") or query.get("purge")
    if not etag or ("undelete" in query and "purge" in query):
        raise ApiError(400, "One of undelete=ETAG and purge=ETAG is needed.")
    services = asking.services_of(request)
    etag = etag if etag[:1] == '"' else f'"{etag}"'
    kept = undelete.find(services.catalog.reader, etag)
    require(Right.DELETE, kept.bucket)
    if "purge" in query:
        if (kept.bucket, kept.key) != (target.bucket, target.key):
            raise not_found(target.bucket, target.key)
        await services.catalog.write(lambda tx: undelete.purge(tx, etag))
        return asking.answer(request, None)
    require(Right.READ, kept.bucket)
    keep = keeping.asked_for(services.settings, auth.current().name)
    overwrite = asking.flag(request, "Overwrite")
    outcome = await services.catalog.write(
        lambda tx: undelete.restore(
            tx, etag, (target.bucket, target.key), keep, overwrite=overwrite
        ),
        asking.origin_of(request),
    )
    return asking.outcome_answer(request, outcome)


def _shown(row: Deleted) -> dict[str, Any]:
    return {
        "id": row.version_id,
        "bucket": row.bucket,
        "key": row.key,
        "mime_type": row.mime_type,
        "bytes": row.size,
        "etag": row.etag,
        "modified_ns": row.modified_ns,
        "deleted_at": row.deleted_at,
        "expires_at": row.expires_at,
        "replaced": bool(row.replaced),
        "deleted_by": row.deleted_by,
    }


def _after(given: str) -> tuple[str, int]:
    if not given:
        return "", 0
    number, _, key = given.partition("/")
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise ApiError(400, f"after {shown(given)} is not what an answer gave as next.")
    return key, int(number)

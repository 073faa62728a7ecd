"""Upload sessions: ops 1 to 3, cancel, and HEAD for the offset."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from files_server import auth
from files_server.access import require, require_owner
from files_server.auth import Right
from files_server.catalog.sessions import COMPLETE, Session, Wish
from files_server.errors import ApiError
from files_server.names import check_bucket, check_key
from files_server.routes import asking, bodies
from files_server.routes.describing import described
from filesfs.wire import FileUploadResponse, UploadRequest

router = APIRouter()


async def create(request: Request) -> Response:
    """Op 1; called from the route of /v1/files."""
    wanted = await bodies.body_of(request, UploadRequest)
    check_bucket(wanted.bucket)
    check_key(wanted.key)
    require(Right.WRITE, wanted.bucket)
    wish = Wish(
        wanted.bucket, wanted.key, wanted.mime_type, asking.conditions_of(request),
        wanted.attributes, wanted.resource_id or "", request.headers.get("files-base", ""),
        auth.current().name,
    )  # fmt: skip
    deferred = asking.flag(request, "Upload-Defer-Length")
    if wanted.size >= 1 << 62:
        raise ApiError(413, f"{wanted.size} bytes are more than any file may have.")
    uploads = asking.services_of(request).uploads
    size = None if deferred else wanted.size
    repeat_key = request.headers.get("idempotency-key", "")
    begin = asking.number(request, "Upload-Offset") or 0
    session = await uploads.create(wish, size, asking.origin_of(request), repeat_key, begin)
    return _shown(request, session)


@router.post("/v1/files/session:{session_id}", **described("upload_content_to_session"))
async def send(request: Request) -> Response:
    target = asking.target_of(request)
    part = asking.part_of(request)
    uploads = asking.services_of(request).uploads
    _check_owner(uploads.find(target.session))
    outcome = await uploads.append(target.session, part, asking.origin_of(request))
    if outcome is None:
        response = asking.answer(request, None)
        session = uploads.find(target.session)
        response.headers["Upload-Offset"] = str(session.offset)
        return response
    response = asking.outcome_answer(request, outcome)
    response.headers["Upload-Offset"] = str(outcome.node.size)
    return response


@router.get(
    "/v1/files/session:{session_id}",
    **described("get_upload_session_info", FileUploadResponse),
)
@router.head("/v1/files/session:{session_id}", include_in_schema=False)
async def info(request: Request) -> Response:
    target = asking.target_of(request)
    services = asking.services_of(request)
    session = services.uploads.find(target.session)
    _check_owner(session)
    if session.state == COMPLETE:
        await services.catalog.heard(session.outcome.number)
    return _shown(request, session)


@router.delete("/v1/files/session:{session_id}", **described("cancel_upload_session"))
async def cancel(request: Request) -> Response:
    target = asking.target_of(request)
    uploads = asking.services_of(request).uploads
    _check_owner(uploads.find(target.session))
    await uploads.cancel(target.session)
    return asking.answer(request, None)


def _check_owner(session: Session) -> None:
    require_owner(session.wish.owner, session.wish.bucket)


def _shown(request: Request, session: Session) -> Response:
    services = asking.services_of(request)
    response = asking.answer(request, services.entries.session(session))
    response.headers["Upload-Offset"] = str(session.offset)
    if session.blocks is not None:
        response.headers["Files-Shares-Base"] = "1"
    response.headers["Upload-Limit"] = f"max-age={services.settings.session_idle_seconds}"
    response.headers["Cache-Control"] = "no-store"
    if session.size is None and session.state != COMPLETE:
        response.headers["Upload-Defer-Length"] = "1"
    return response

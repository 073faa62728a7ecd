"""The application: raw paths to targets, the one error shape, the routes, the lifespan.

It must not hold policy: tokens and limits are layers around it (`edge.py`), the rest is below.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from files_server import services
from files_server.errors import ApiError, error_body
from files_server.names import Kind, parse_path
from files_server.receiving import full_disk
from files_server.registration.table import Registrations
from files_server.routes import buckets, documentation, files, root, sessions
from files_server.routes.registered import Context
from files_server.settings import Settings

_ALLOWED = {
    Kind.ROOT: "GET, HEAD, OPTIONS, POST",
    Kind.SESSION: "DELETE, GET, HEAD, POST",
    Kind.BUCKET: "DELETE, GET, HEAD, PATCH, PUT",
    Kind.KEY: "BIND, DELETE, GET, HEAD, MOVE, PATCH, PUT",
}
_log = logging.getLogger("files_server")


def create_app(settings: Settings) -> FastAPI:
    """The application for one data folder, which it opens when its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with services.opened(settings) as opened:
            registrations = Registrations(settings.file_roots)
            registrations.load(opened.catalog.reader)
            app.state.services = opened
            app.state.registered = Context(
                registrations, opened.catalog, settings.base_url, settings.max_file_bytes
            )
            yield

    app = FastAPI(
        title="Files API",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for part in (root, sessions, buckets, files, documentation):  # sessions come before {bucket}
        app.include_router(part.router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(Exception, _crash)
    app.add_middleware(RawPaths)
    documentation.install(app)
    return app


class RawPaths:
    """Parses the raw path, before anything decodes it, and routes by what it addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            target = parse_path(scope.get("raw_path") or scope["path"].encode())
            if target is not None:
                scope["files.target"] = target
                scope["path"] = target.kind.value
        await self._app(scope, receive, send)


def _answer(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return Response(error_body(status, detail), status, headers, "application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _answer(error.status, error.detail, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.scope.get("raw_path", b"").decode("latin-1")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        target = request.scope.get("files.target")
        headers["Allow"] = _ALLOWED[target.kind] if target else headers.get("Allow", "GET")
        detail = f"{method} is not allowed on {path}; allowed: {headers['Allow']}."
    elif error.status_code == 404:
        detail = f"There is nothing at {path}; the API is under /v1/files."
    else:
        detail = str(error.detail)
    return _answer(error.status_code, detail, headers)


async def _disconnected(request: Request, error: Exception) -> Response:
    return _answer(400, "The body ended before its announced length.")  # nobody is listening


async def _os_error(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = full_disk()
        return _answer(full.status, full.detail)
    return await _crash(request, error)


async def _crash(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(500, "The server failed at this request; its log says why.")

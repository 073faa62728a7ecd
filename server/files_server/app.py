"""The application: raw paths to targets, the one error shape, the routes, the lifespan.

It must not hold policy: tokens and limits are layers around it (`edge.py`), the rest is below.
"""

from __future__ import annotations

import errno
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from files_server import exchange, services
from files_server.asgi import CONNECTION, BrokenOff
from files_server.errors import ApiError, error_body
from files_server.names import Kind, parse_path
from files_server.receiving import full_disk
from files_server.routes import (
    buckets,
    contents,
    deleted,
    documentation,
    files,
    measuring,
    root,
    sessions,
)
from files_server.routes.registered import Context
from files_server.settings import Settings

_ALLOWED = {
    Kind.ROOT: "DELETE, GET, HEAD, OPTIONS, POST",
    Kind.SESSION: "DELETE, GET, HEAD, POST",
    Kind.BUCKET: "DELETE, GET, HEAD, PATCH, PUT",
    Kind.KEY: "BIND, DELETE, GET, HEAD, MOVE, PATCH, PUT",
}
_PARTS = (
    root,
    sessions,
    buckets,
    contents,
    files,
    deleted,
    measuring,
    documentation,
)  # sessions come before {bucket}
Handler = Callable[[Request], Awaitable[Response]]
_log = logging.getLogger("files_server")


def create_app(settings: Settings) -> FastAPI:
    """The application for one data folder, which it opens when its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with services.opened(settings) as opened:
            app.state.services = opened
            app.state.registered = Context(opened.registrations, opened.catalog, settings.base_url)
            gc.freeze()  # what is there stays; looking at all of it again takes 60 ms
            yield

    app = FastAPI(
        title="Files API",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for part in _PARTS:
        app.include_router(part.router)
    for kind, handler in _ERRORS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _crash)
    return app


class RawPaths:
    """Parses the raw path, before anything decodes it, and routes by what it addresses.

    What (target, method) name a handler is called right here, in front of FastAPI: its layers and
    its matching take several times as long as the handler. FastAPI still describes the routes, and
    answers what is no file's path.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._handlers = dict(_handlers())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            target = parse_path(scope.get("raw_path") or scope["path"].encode())
            if target is not None:
                scope["files.target"] = target
                scope["files.services"] = self._app.state.services
                scope["path"] = target.kind.value
                handler = self._handlers.get((target.kind, scope["method"]), _not_allowed)
                scope["app"] = self._app
                await self._counted(target.kind, handler, scope, receive, send)
                return
            if b"%" in scope.get("raw_path", b""):  # it would be decoded to what nobody checked
                scope["app"] = self._app
                await _handle(_nothing_there, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _counted(
        self, kind: Kind, handler: Handler, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """The catalog is to know whether a request is alone."""
        if kind is Kind.ROOT:  # a feed of changes lasts, and is in nobody's way
            await _handle(handler, scope, receive, send)
            return
        catalog = self._app.state.services.catalog
        catalog.enter(scope.get(CONNECTION))
        try:
            await _handle(handler, scope, receive, send)
        finally:
            catalog.leave()


async def _not_allowed(request: Request) -> Response:
    raise HTTPException(405)


async def _nothing_there(request: Request) -> Response:
    raise HTTPException(404)


async def _handle(handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
    request = exchange.Request(scope, receive, send)
    try:
        response = await handler(request)
    except Exception as error:
        response = await _error_answer(request, error)
    if isinstance(response, exchange.Answer):
        await response(scope, receive, send)
    else:
        await _stream(request, response, scope, receive, send)


async def _stream(
    request: Request, response: Response, scope: Scope, receive: Receive, send: Send
) -> None:
    """An answer that may still fail, with the error object as long as nothing of it was sent."""
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await response(scope, receive, watched)
    except Exception as error:
        if started and isinstance(error, ApiError):
            raise BrokenOff(error.detail) from error
        if started:
            raise
        await (await _error_answer(request, error))(scope, receive, send)


def _handlers() -> Iterator[tuple[tuple[Kind, str], Handler]]:
    names = {
        "/v1/files": Kind.ROOT,
        "/v1/files/session:{session_id}": Kind.SESSION,
        "/v1/files/{bucket}": Kind.BUCKET,
        "/v1/files/{bucket}/{key:path}": Kind.KEY,
    }
    for part in _PARTS:
        for route in part.router.routes:
            if isinstance(route, APIRoute) and route.path in names:
                for method in route.methods or ():
                    yield (names[route.path], method), route.endpoint


async def _error_answer(request: Request, error: Exception) -> Response:
    for kind, handler in _ERRORS.items():
        if isinstance(error, kind):
            return await handler(request, error)
    return await _crash(request, error)


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


_ERRORS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ApiError: _api_error,
    HTTPException: _http_error,
    ClientDisconnect: _disconnected,
    OSError: _os_error,
}

"""`/v1/files?leases=1`: a client confirms what was recalled, extends its leases, gives them back.

It must not grant any: that is a part of reading a file, in `files.py`.
"""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from files_server.errors import ApiError, shown
from files_server.leases import Client
from files_server.routes import asking

_TERM = re.compile(r"[0-9a-z-]{1,64}\Z")


async def renew(request: Request) -> Response:
    """POST: all changes up to Last-Event-ID are taken note of; what is leased lasts on."""
    services, client = asking.services_of(request), _client_of(request)
    number = asking.number_of_cursor(request, "Last-Event-ID") or 0
    granted = services.leases.renew(client, _term_of(request), number)
    response = asking.answer(request, None)
    if granted:
        response.raw_headers.append((b"files-lease", granted.encode()))
    return response


async def release(request: Request) -> Response:
    """DELETE: the client trusts in nothing any more."""
    if not request.query_params.get("leases"):
        raise HTTPException(405)
    services = asking.services_of(request)
    services.leases.release(_client_of(request), _term_of(request))
    return asking.answer(request, None)


def _client_of(request: Request) -> Client:
    client = asking.client_of(request)
    if not client[1]:
        raise ApiError(400, "A Files-Origin header is needed: that of the change feed.")
    return client


def _term_of(request: Request) -> str:
    term = request.headers.get("files-lease")
    if term is None or not _TERM.match(term):
        given = "is missing" if term is None else f"{shown(term)} is no term"
        raise ApiError(
            400, f"Files-Lease {given}: send the first word of what an answer gave as Files-Lease."
        )
    return term

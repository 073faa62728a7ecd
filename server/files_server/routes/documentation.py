"""/docs: the description of the API as one page, without scripts or anything from elsewhere.

It must not say anything that /openapi.json does not.
"""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

router = APIRouter()
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "h2{font-size:1.1em;border-top:1px solid #ccc;padding-top:.8em}code{background:#eee}"
    "td{padding:.1em 1em .1em 0;vertical-align:top}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@router.get("/docs", include_in_schema=False)
async def page(request: Request) -> Response:
    description = request.app.openapi()
    parts = [
        _operation(path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    text = (
        f"<!doctype html><meta charset=utf-8><title>Files API</title><style>{_STYLE}</style>"
        "<h1>Files API</h1><p>As a file: <a href='/openapi.json'>/openapi.json</a>. Beside these:"
        " <code>MOVE</code> and <code>BIND</code> of a key with a <code>Destination</code> header,"
        " <code>GET /v1/files?changes=1</code> for the change feed.</p>" + "".join(parts)
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(given['name'])}</code><td>{escape(given['in'])}"
        f"<td>{escape(given.get('description', ''))}"
        for given in operation.get("parameters", [])
    )
    statuses = ", ".join(operation["responses"])
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code> {escape(operation['operationId'])}</h2>"
        f"<table>{rows}</table><p>Statuses: {statuses}</p>"
    )

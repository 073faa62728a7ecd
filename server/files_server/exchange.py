"""A request as handlers see it, and the answer whose header bytes are ready. A leaf.

It must not know what is asked for. Both are Starlette's own, made cheap: its headers are searched
anew at each look, its query is parsed anew with each request, its answers encode each header.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from starlette import requests
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

RawHeaders = list[tuple[bytes, bytes]]
_SHORT_QUERY = 64  # bytes; clients send few different ones, and those again and again


class Fields(Headers):
    """Request headers, decoded once; of one that comes twice, the first."""

    def __init__(self, raw: RawHeaders) -> None:
        super().__init__(raw=raw)
        self._first: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(raw)
        }

    def __getitem__(self, key: str) -> str:
        return self._first[key.lower()]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._first

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default`."""
        return self._first.get(key.lower(), default)


class Request(requests.Request):
    """Starlette's request, with headers and query at hand."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        raw_query = scope["query_string"]
        self._fields = Fields(scope["headers"])
        self._query = (
            _query(raw_query) if len(raw_query) <= _SHORT_QUERY else QueryParams(raw_query)
        )

    @property
    def headers(self) -> Headers:
        return self._fields

    @property
    def query_params(self) -> QueryParams:
        return self._query


class Answer(Response):
    """Status, headers and a whole body, as bytes."""

    background = None  # FastAPI asks, for the routes that still go through it

    def __init__(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = self.status_code, self.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(body: str) -> Answer:
    """200 with JSON; the caller appends what headers there are beside its type and length."""
    encoded = body.encode()
    length = b"%d" % len(encoded)
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    return Answer(200, headers, encoded)


@lru_cache(256)
def _query(raw: bytes) -> QueryParams:
    return QueryParams(raw)

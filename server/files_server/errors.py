"""The error that a handler raises, and its wire form. A leaf: imports nothing of the package.

It must not decide what is wrong: the code that finds the fault writes the sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

BUSY = "busy"
OFFSET = "offset"
COMPLETE = "complete"
EXISTS = "exists"
NOT_EMPTY = "not-empty"
IS_DIRECTORY = "is-directory"
NOT_DIRECTORY = "not-directory"
ALIAS = "alias"


class ApiError(Exception):
    """An answer that is not 200. `reason` is the Files-Error of a 409."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        if reason:
            self.headers["Files-Error"] = reason


def title_of(status: int) -> str:
    """The reason phrase that stands in `title`."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def error_body(status: int, detail: str) -> bytes:
    """The JSON error object."""
    return json.dumps({"status": status, "title": title_of(status), "detail": detail}).encode()


def shown(value: str) -> str:
    """A value for an error message: quoted, and cut where it is long."""
    return repr(value if len(value) <= 120 else value[:117] + "...")


def not_found(bucket: str, key: str = "") -> ApiError:
    """404 for a name that is not there."""
    if key:
        return ApiError(404, f"There is no file {shown(key)} in the bucket {shown(bucket)}.")
    return ApiError(404, f"There is no bucket {shown(bucket)}. A first upload or PUT makes one.")

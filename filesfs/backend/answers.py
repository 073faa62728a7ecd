"""Answers, and the one table from HTTP status to the exceptions of `filesfs.errors`.

It must not send or retry anything.
"""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic_core

from filesfs import errors

_look_over = msgspec.json.Decoder(msgspec.Raw).decode

_PLAIN_ERRORS: dict[int, type[errors.RequestError]] = {
    400: errors.InvalidRequest,
    401: errors.AccessDenied,
    403: errors.AccessDenied,
    405: errors.Unsupported,
    410: errors.Gone,
    412: errors.PreconditionFailed,
    413: errors.TooLarge,
    416: errors.RangeNotSatisfiable,
    422: errors.InvalidRequest,  # what other implementations answer for 400
    501: errors.Unsupported,
    507: errors.NoSpace,
}


_DIGITS = 18  # of a count in a header


@dataclass(slots=True)
class Answer:
    """A whole answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    landed: int | None = None  # bytes that have arrived as a Landing says; then there is no body
    _value: Any = field(default=None, init=False, repr=False)  # of `json`, parsed once

    def json(self) -> Any:
        """The body as JSON; Unavailable when it is none (a proxy's page, a cut body)."""
        if self._value is None:
            try:
                self._value = pydantic_core.from_json(self.body)
            except (ValueError, RecursionError) as error:
                raise errors.Unavailable(f"The answer is no JSON: {error}") from error
        return self._value

    def require_json(self) -> None:
        """As `json`, but only looks whether it is JSON: a fifth of the cost."""
        try:
            _look_over(self.body)
            if not self.body.isascii():
                self.body.decode()
        except (ValueError, RecursionError) as error:
            raise errors.Unavailable(f"The answer is no JSON: {error}") from error

    def number(self, name: str) -> int | None:
        """A header that is a count; None where it is none, or more than there is of anything."""
        text = self.headers.get(name, "").strip()
        return int(text) if text.isdecimal() and len(text) <= _DIGITS else None

    @property
    def says_json(self) -> bool:
        return bool(self.body) and "json" in self.headers.get("content-type", "")

    @property
    def cursor(self) -> str:
        return self.headers.get("files-cursor", "")

    @property
    def lease(self) -> str:
        return self.headers.get("files-lease", "")

    @property
    def changed_ns(self) -> int:
        """When the server stamped what a removal or a move touched; 0 where it does not say."""
        told = self.headers.get("files-changed", "")
        is_time = told.isdecimal() and len(told) < 20 and int(told) < 1 << 63
        return int(told) if is_time else 0


def check(answer: Answer, *, only_error_objects: bool) -> Answer:
    """The answer if it is a success, else raises what its status stands for.

    `only_error_objects`: a 404 without the API's error object is a proxy's or a lost blob's, and
    never means that something does not exist.
    """
    if 200 <= answer.status < 300 or answer.status == 304:
        return answer
    raise error_of(answer, only_error_objects=only_error_objects)


def error_of(answer: Answer, *, only_error_objects: bool) -> errors.FilesfsError:
    """The exception that an error answer stands for."""
    status = answer.status
    detail, is_object = _detail(answer)
    if status in _PLAIN_ERRORS:
        return _PLAIN_ERRORS[status](detail, status)
    if status == 404:
        if is_object or not only_error_objects:
            return errors.NotFound(detail, status)
        return errors.Unavailable(f"404 without an error object; a proxy's? {detail}")
    if status == 409:
        reason = answer.headers.get("files-error", "")
        return errors.Conflict(detail, reason, answer.number("upload-offset"))
    if status == 500 and answer.headers.get("files-error") == "damaged":
        return errors.Damaged(detail)
    if status in (408, 425, 429) or status >= 500:
        return errors.Unavailable(f"{status}: {detail}", _retry_after(answer), status >= 500)
    if 300 <= status < 400:
        location = answer.headers.get("location", "elsewhere")
        return errors.InvalidRequest(f"The server redirects to {location}; use that address.")
    return errors.InvalidRequest(f"Unexpected status {status}: {detail}", status)


def _detail(answer: Answer) -> tuple[str, bool]:
    """The error's sentence, and whether it came in the API's error object."""
    try:
        body = pydantic_core.from_json(answer.body)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and isinstance(body.get("detail"), str):
        return body["detail"], "status" in body and "title" in body
    text = bytes(answer.body[:200]).decode("utf-8", "replace").strip()
    return text or f"status {answer.status}", False


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "").strip()
    if not value:
        return None
    seconds = answer.number("retry-after")
    if seconds is not None:
        return float(seconds)
    try:
        when = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, when - time.time())

"""JSON that a request carries, as models.

It must not know what is done with it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from files_server.errors import ApiError, shown
from filesfs.wire import AttributesPatch

M = TypeVar("M", bound=BaseModel)
_SHORT = 128  # bytes; who creates files sends the same mode and owner again and again


def parsed(text: bytes | str, model: type[M], what: str) -> M:
    """JSON as a model. ApiError 400 that names the field."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] == "missing" else f" {shown(str(first['input']))}"
        named = f"{where}{given}" if where else "JSON"
        raise ApiError(400, f"{what} is not valid: {named}: {first['msg']}.") from None


async def body_of(request: Request, model: type[M]) -> M:
    """The JSON body, whatever its Content-Type. ApiError 400."""
    return parsed(await request.body(), model, "The body")


def attributes_of(request: Request) -> AttributesPatch | None:
    """Files-Attributes. ApiError 400."""
    text = request.headers.get("files-attributes")
    if not text:
        return None
    return _short(text) if len(text) <= _SHORT else _attributes(text)


def _attributes(text: str) -> AttributesPatch:
    return parsed(text.encode("latin-1"), AttributesPatch, "Files-Attributes")


_short = lru_cache(256)(_attributes)

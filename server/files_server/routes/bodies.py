"""JSON that a request carries, as models.

It must not know what is done with it.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from files_server.errors import ApiError, shown
from filesfs.wire import AttributesPatch

M = TypeVar("M", bound=BaseModel)


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
    return parsed(text.encode("latin-1"), AttributesPatch, "Files-Attributes")

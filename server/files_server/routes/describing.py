"""What /openapi.json says of each operation: parameters, bodies, the error object by status.

It must not be needed to serve a request.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_ERRORS = (400, 401, 403, 404, 405, 409, 410, 412, 413, 416, 429, 501, 503, 507)


def described(
    name: str, model: type[BaseModel] | None = None, body: type[BaseModel] | None = None
) -> dict[str, Any]:
    """Keyword arguments for a route decorator."""
    return {"operation_id": name, "name": name, "response_model": None}

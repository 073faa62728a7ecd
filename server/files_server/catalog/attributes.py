"""Setting attributes: PATCH, and what comes along with content.

It must not change content, its ETag or created_at.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from files_server.catalog.database import Transaction
from files_server.catalog.nodes import Node
from files_server.errors import ApiError, shown
from filesfs.wire import DIRECTORY, SPECIAL_TYPES, AttributesPatch

XATTR_BYTES = 65_536  # names and values of one entry
_TIME_LIMIT = 2**63
_COLUMNS = ("mode", "uid", "gid", "modified_ns", "accessed_ns", "mime_type")
_FIXED = SPECIAL_TYPES | {DIRECTORY, "application/x-directory"}


def apply(tx: Transaction, node: Node, patch: AttributesPatch) -> Node:
    """Merge `patch` into the resource; the node after it, or the very same one where there was
    nothing to set. ApiError 400, 413."""
    values = changes(node.mime_type, node.xattrs, patch)
    if not values:
        return node
    values["changed_ns"] = tx.now_ns
    assignments = ", ".join(f"{name} = ?" for name in values)
    tx.run(f"UPDATE resources SET {assignments} WHERE id = ?", *values.values(), node.resource)
    return node._replace(**values)


def changes(mime_type: str, xattrs: str | None, patch: AttributesPatch) -> dict[str, Any]:
    """By column what `patch` sets where the type and the xattrs are these. ApiError 400, 413."""
    given = {name: getattr(patch, name) for name in patch.model_fields_set}
    values = {name: given[name] for name in _COLUMNS if name in given}
    for name in ("modified_ns", "accessed_ns", "mime_type"):
        if name in values and values[name] is None:  # these always have a value
            del values[name]
    if values.get("mime_type", mime_type) != mime_type:
        _check_type(mime_type, values["mime_type"])
    for name in ("modified_ns", "accessed_ns"):
        if not -_TIME_LIMIT <= values.get(name, 0) < _TIME_LIMIT:
            raise ApiError(400, f"{name} {values[name]} does not fit into 64 bits.")
    if given.get("xattrs") is not None:
        values["xattrs"] = _merged(xattrs, given["xattrs"])
    elif "xattrs" in given:
        values["xattrs"] = None
    return values


def _check_type(now: str, mime_type: str) -> None:
    if now in _FIXED or mime_type in _FIXED:
        raise ApiError(
            400,
            f"The mime_type cannot change from {shown(now)} to {shown(mime_type)}:"
            " what kind of thing a name is, is fixed at its creation.",
        )


def _merged(stored: str | None, patch: dict[str, str | None]) -> str | None:
    xattrs: dict[str, str] = json.loads(stored) if stored else {}
    for name, value in patch.items():
        if value is None:
            xattrs.pop(name, None)
        else:
            xattrs[_checked_name(name)] = _checked_value(name, value)
    total = sum(len(name.encode()) + len(value) * 3 // 4 for name, value in xattrs.items())
    if total > XATTR_BYTES:
        raise ApiError(
            413, f"Extended attributes would take {total} bytes; {XATTR_BYTES} are allowed."
        )
    return json.dumps(xattrs, sort_keys=True) if xattrs else None


def _checked_name(name: str) -> str:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ApiError(400, "An extended attribute's name is no valid Unicode.") from None
    if not 1 <= size <= 255 or "\0" in name:
        raise ApiError(400, f"The attribute name {shown(name)} is not 1 to 255 bytes without NUL.")
    return name


def _checked_value(name: str, value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"The value of the attribute {shown(name)} is no base64.") from None
    return value

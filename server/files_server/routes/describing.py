"""What /openapi.json says of each operation: parameters, bodies, the error object by status.

It must not be needed to serve a request. MOVE and BIND have no place in OpenAPI; the change feed
(`GET /v1/files?changes=1`) never ends, so that it is told of in words alone.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from filesfs.wire import ErrorBody

_ERRORS = (400, 401, 403, 404, 405, 409, 410, 412, 413, 416, 429, 501, 503, 507)
_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_BUCKET: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$"}
_KEY: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_/.-]{0,999}$"}
_PATH = {
    "bucket": (_BUCKET, "A name of A-Z a-z 0-9 _ -, or in ops 8 and 9 a percent-encoded URI."),
    "key": (_KEY, "Segments of A-Z a-z 0-9 _ - . separated by slashes."),
    "session_id": (_TEXT, "As create_upload_session gave it."),
}
_QUERY = {
    "view": ({"type": "string", "enum": ["basic", "full"]}, "full adds what stat(2) needs."),
    "alt": ({"type": "string", "enum": ["json", "media"]}, "media: the content itself."),
    "version": (_TEXT, "Content of this ETag, current or superseded."),
    "prefix": (_TEXT, "Only keys that begin so."),
    "delimiter": ({"type": "string", "enum": ["/"]}, "Only one directory; others as prefixes."),
    "limit": ({"type": "integer", "minimum": 1}, "At most so many entries."),
    "after": (_TEXT, "Only keys behind this one."),
    "usage": (_TEXT, "1: total and free bytes instead of the buckets."),
    "name": (_TEXT, "The alias for a URI."),
    "deleted": (_TEXT, "1: what was deleted or replaced and is kept, instead."),
    "undelete": (_TEXT, "The ETag of a kept version: it comes back as this key."),
    "purge": (_TEXT, "The ETag of a kept version of this key: it is given up."),
    "mode": ({"type": "string", "enum": ["ro", "rw"]}, "rw: a URI may be written to."),
    "contents": (_TEXT, "1: small files of one directory, with their content."),
}
_HEADER = {
    "If-Match": (_TEXT, "Only if the file is at this ETag."),
    "If-None-Match": (_TEXT, "* : only if there is no such file; an ETag: 304 if it is current."),
    "Range": (_TEXT, "One range of bytes."),
    "If-Range": (_TEXT, "The range only if the file is at this ETag."),
    "Upload-Offset": (_COUNT, "Where this part begins; what arrives of it is kept."),
    "Upload-Length": (_COUNT, "The whole length, once it is known."),
    "Upload-Defer-Length": (_TEXT, "1: the length comes with the last part."),
    "Content-Digest": (_TEXT, "sha-256 or crc32c of this body (RFC 9530)."),
    "Repr-Digest": (_TEXT, "sha-256 or crc32c of the whole file."),
    "Files-Attributes": (_TEXT, "JSON of what PATCH takes, applied in the same commit."),
    "Files-Keep-Parent": (_TEXT, "1: the directory stays when this was its last file."),
    "Files-Repeat": (_TEXT, "A Files-Cursor: if this was done after it, it is not done again."),
    "Files-Rows": (_TEXT, "1: a page of a directory comes as rows."),
    "Files-Walk": (_COUNT, "With rows: the listings that a walk comes to next, so many entries."),
    "Files-Walk-Levels": (_COUNT, "In so many directories above this one, too."),
    "Files-Listing": (_COUNT, "A directory with at most so many entries comes with them."),
    "Files-Lease": ({"type": "string", "enum": ["1"]}, "1: a lease, where a change feed is heard."),
    "Overwrite": (_TEXT, "T: what is there is replaced."),
    "Files-Origin": (_TEXT, "An id of the client, copied to its change events."),
}
_CHANGE = ("Files-Origin", "If-Match")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "create_upload_session": ("If-Match", "If-None-Match", "Upload-Defer-Length", "Files-Origin"),
    "upload_content_to_session": (
        "session_id", "view", "Upload-Offset", "Upload-Length", "Content-Digest", "Repr-Digest",
        "Files-Origin",
    ),
    "get_upload_session_info": ("session_id",),
    "cancel_upload_session": ("session_id",),
    "list_all_buckets": ("view", "usage", "deleted"),
    "list_files_in_bucket": (
        "bucket", "view", "prefix", "delimiter", "limit", "after", "deleted", "Files-Rows",
        "Files-Walk", "Files-Walk-Levels",
    ),
    "register_bucket": ("bucket", "name", "mode", "Files-Origin"),
    "set_bucket_attributes": ("bucket", "view", "Files-Origin"),
    "remove_bucket": ("bucket", "Files-Origin"),
    "get_file": (
        "bucket", "key", "view", "alt", "version", "Range", "If-Range", "If-Match",
        "If-None-Match", "Files-Listing", "Files-Lease", "Files-Origin", "Files-Repeat",
    ),
    "register_bucket_file": (
        "bucket", "key", "view", "alt", "name", "mode", "If-None-Match", "Files-Attributes",
        "Content-Digest", "Repr-Digest", *_CHANGE,
    ),
    "delete_file": ("bucket", "key", "Files-Keep-Parent", "Files-Repeat", *_CHANGE),
    "undelete_file": ("bucket", "key", "undelete", "purge", "Overwrite", "Files-Origin", "view"),
    "set_attributes": ("bucket", "key", "view", *_CHANGE),
    "read_contents": ("bucket", "contents", "Files-Origin"),
}  # fmt: skip
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_CONTENTS = {"application/vnd.files.contents": _BYTES["application/octet-stream"]}
_TAKE_BYTES = frozenset({"upload_content_to_session", "register_bucket_file"})
_NULL: dict[str, Any] = {"application/json": {"schema": {"type": "null"}}}


def described(name: str, model: Any = None, body: type[BaseModel] | None = None) -> dict[str, Any]:
    """Keyword arguments for a route decorator. `model`: the 200's body (a model or a union of
    them), `body`: the request's."""
    extra: dict[str, Any] = {"parameters": [_parameter(given) for given in _PARAMETERS[name]]}
    if body is not None:
        schema = body.model_json_schema()
        content = {"application/json": {"schema": schema}}
        extra["requestBody"] = {"required": True, "content": content}
    elif name in _TAKE_BYTES:
        extra["requestBody"] = {"required": False, "content": _BYTES}
    return {
        "operation_id": name,
        "name": name,
        "response_model": None,
        "responses": _responses(name, model),
        "openapi_extra": extra,
    }


def _responses(name: str, model: Any) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": "The error object."} for status in _ERRORS
    }
    if model is None:
        responses[200] = {"description": "Done.", "content": _NULL}
    else:
        responses[200] = {"model": model, "description": "Done."}
    if name in _TAKE_BYTES:
        responses[200] = {"description": "The file; null while more of it is to come."}
    if name == "read_contents":
        responses[200] = {"description": "Rows, and the content of each.", "content": _CONTENTS}
    if name == "get_file":
        responses[200]["content"] = _BYTES | {"*/*": {"schema": {}}}
        responses[206] = {"description": "A range of the content.", "content": _BYTES}
        responses[304] = {"description": "The version that the client has is current."}
    return responses


def _parameter(name: str) -> dict[str, Any]:
    for place, table in (("path", _PATH), ("query", _QUERY), ("header", _HEADER)):
        if name in table:
            schema, description = table[name]
            return {
                "name": name,
                "in": place,
                "required": place == "path",
                "schema": schema,
                "description": description,
            }
    raise KeyError(name)

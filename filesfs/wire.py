"""The bodies of the Files API, as pydantic models: the one module that both programs share.

It must not import anything else of filesfs: the server imports it, and nothing but it. Field names,
their order and their types are the contract's; the published bodies (part 1) carry exactly the
fields shown here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints

DIRECTORY = "inode/directory"
SYMLINK = "inode/symlink"
FIFO = "inode/fifo"
SOCKET = "inode/socket"
CHARDEVICE = "inode/chardevice"
BLOCKDEVICE = "inode/blockdevice"
SPECIAL_TYPES = frozenset({SYMLINK, FIFO, SOCKET, CHARDEVICE, BLOCKDEVICE})

MimeType = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", strict=True)
]


def is_registered(resource_id: str) -> bool:
    """Whether it is in a registered location: such ids have a dot, others have none."""
    return "." in resource_id


class Extension(StrEnum):
    """The tokens of the `Files-Extensions` header, one for each row of the contract's part 2."""

    CONTENT = "content"
    VERSIONS = "versions"
    RESUME = "resume"
    PUT = "put"
    ATTRIBUTES = "attributes"
    DEFER_LENGTH = "defer-length"
    CANCEL = "cancel"
    INTEGRITY = "integrity"
    CONDITIONAL = "conditional"
    LISTING = "listing"
    RICH_STAT = "rich-stat"
    PATCH = "patch"
    MOVE = "move"
    BIND = "bind"
    DIRECTORIES = "directories"
    LINKS = "links"
    USAGE = "usage"
    REMOVE_BUCKET = "remove-bucket"
    CHANGES = "changes"
    UNDELETE = "undelete"  # what was deleted or replaced can be listed and brought back
    CONTENTS = "contents"  # many small files of one directory come in one answer
    RANGES_UPLOAD = "partial"  # a session that starts from the current version; see docs/decisions
    LEASES = "leases"  # a file is opened without asking, until its change is recalled


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ErrorBody(_Body):
    """Every answer that is not 200: `detail` says which value is wrong, and what is allowed."""

    status: int
    title: str
    detail: str


class AttributesPatch(_Body):
    """What PATCH, op 1's `attributes` and the `Files-Attributes` header take: a JSON merge patch.

    Times are nanoseconds since the epoch (signed), mode the 12 permission bits, xattr values
    base64. An xattr that is null is removed; a field that is absent stays as it is.
    """

    mode: Annotated[StrictInt, Field(ge=0, le=0o7777)] | None = None
    uid: Annotated[StrictInt, Field(ge=0, le=0xFFFFFFFE)] | None = None
    gid: Annotated[StrictInt, Field(ge=0, le=0xFFFFFFFE)] | None = None
    modified_ns: StrictInt | None = None
    accessed_ns: StrictInt | None = None
    xattrs: dict[str, str | None] | None = None
    mime_type: MimeType | None = None


class UploadRequest(_Body):
    """Op 1's body. Unknown fields are ignored."""

    bucket: Annotated[str, StringConstraints(strict=True)]
    key: Annotated[str, StringConstraints(strict=True)]
    mime_type: MimeType
    size: Annotated[StrictInt, Field(ge=0)]
    attributes: AttributesPatch | None = None
    resource_id: Annotated[str, StringConstraints(strict=True)] | None = None


class FileUploadResponse(_Body):
    id: str
    url: str
    offset: int
    size: int


class FileResponse(_Body):
    bucket: str
    key: str
    mime_type: str
    url: str
    bytes: int
    created_at: int


class FullFileResponse(FileResponse):
    """`?view=full`: what stat(2) needs. mode, uid and gid are null until somebody sets them."""

    etag: str
    modified_ns: int
    changed_ns: int
    accessed_ns: int
    mode: int | None
    uid: int | None
    gid: int | None
    nlink: int
    resource_id: str
    xattrs: dict[str, str]


class BucketResponse(_Body):
    name: str


class FullBucketResponse(BucketResponse):
    """Op 4 with `?view=full`."""

    created_at: int
    etag: str
    modified_ns: int
    changed_ns: int
    accessed_ns: int
    mode: int | None
    uid: int | None
    gid: int | None
    nlink: int
    resource_id: str
    xattrs: dict[str, str]
    read_only: bool = False


class ListBucketsResponse(_Body):
    data: list[BucketResponse]


MOST_CONTENTS = 256  # files in one answer to ContentsRequest
CONTENTS_BYTES = 1 << 20  # of content in one
CONTENT_BYTES = 128 << 10  # of one file in it


class ContentsRequest(_Body):
    """Which files of the directory `prefix` (a key with its slash, "" for the bucket) are wanted
    with their content. `limit`: bytes of it in all.
    """

    prefix: Annotated[str, StringConstraints(strict=True)] = ""
    names: Annotated[
        list[Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_.-]{1,1024}$")]],
        Field(max_length=MOST_CONTENTS),
    ]
    limit: Annotated[StrictInt, Field(ge=1, le=CONTENTS_BYTES)] = CONTENTS_BYTES


class ListFilesResponse(_Body):
    data: list[FileResponse]


class RegisterBucketResponse(_Body):
    bucket: str
    created_at: int
    status: str


class RegisterFileResponse(_Body):
    bucket: str
    key: str
    created_at: int
    status: str


class UsageResponse(_Body):
    """`GET /files?usage=1`: bytes and files, for statfs. `kept_bytes` are those of deleted and
    replaced versions; they are neither free nor in `used_bytes`. `reserved_bytes` of the disk are
    unused too, but kept for its root."""

    total_bytes: int
    free_bytes: int
    used_bytes: int
    files: int
    kept_bytes: int = 0
    reserved_bytes: int = 0


class DeletedFile(_Body):
    """A version that lost its name, and can be brought back until `expires_at` (Unix seconds).

    `replaced`: another content took its place. `deleted_by` is the name of the token, "" without.
    """

    bucket: str
    key: str
    mime_type: str
    bytes: int
    etag: str
    modified_ns: int
    deleted_at: int
    expires_at: int
    replaced: bool
    deleted_by: str


class DeletedBucket(_Body):
    """How much of one bucket, which need not exist any more, can be brought back."""

    name: str
    files: int
    bytes: int


class Operation(StrEnum):
    """What a change event tells of."""

    COMMIT = "commit"  # content: a file came to be or was replaced
    ATTRIBUTES = "attributes"
    DELETE = "delete"
    MOVE = "move"  # keys: source, destination; a directory's subtree moves along
    EXCHANGE = "exchange"
    BIND = "bind"  # keys: the old name, the new one
    BUCKET = "bucket"  # a bucket came to be, went, or changed; its key is ""


class ChangeEvent(_Body):
    """One event of the change feed. Its SSE `id` is `EPOCH-NUMBER`.

    `keys` are [bucket, key] pairs, a directory's key with its trailing slash, a bucket's the empty
    string. `origin` is what the client that made the change sent as `Files-Origin`, so that it can
    pass over its own.
    """

    operation: Operation
    keys: list[tuple[str, str]]
    resource_id: str
    etag: str
    origin: str = ""

"""From a request's raw path to what it addresses: bucket and key rules, decoding exactly once.

It must not look anything up: a well-formed name may or may not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes, urlsplit

from files_server.errors import ApiError, shown

KEY_BYTES = 16_384
SEGMENT_BYTES = 1_024  # what a 255-byte Linux name can escape to
_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_KEY = re.compile(r"[A-Za-z0-9_\-/.]*\Z")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_-][A-Za-z0-9_\-/.]*\Z")
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_BARE_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


class Kind(Enum):
    """What a path addresses. The value is the canonical path that the router knows."""

    ROOT = "/v1/files"
    SESSION = "/v1/files/session:id"
    BUCKET = "/v1/files/bucket"
    KEY = "/v1/files/bucket/key"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. `bucket` may be a storage URI; names are decoded, not yet checked.

    `problem` says why the path names nothing valid; handlers raise it.
    """

    kind: Kind
    bucket: str = ""
    key: str = ""
    session: str = ""
    problem: ApiError | None = None

    @property
    def is_uri(self) -> bool:
        return ":" in self.bucket and _SCHEME.match(self.bucket) is not None


def check_bucket(bucket: str) -> str:
    """The bucket name, or ApiError 400."""
    if not _BUCKET.match(bucket):
        raise ApiError(
            400, f"The bucket name {shown(bucket)} is not 1 to 255 characters of A-Z a-z 0-9 _ -."
        )
    return bucket


def check_key(key: str, *, directory: bool = False) -> str:
    """The key, or ApiError 400. `directory`: one trailing slash is allowed."""
    text = key[:-1] if directory and key.endswith("/") else key
    if len(key) > KEY_BYTES:
        raise ApiError(400, f"The key is {len(key)} bytes long; at most {KEY_BYTES} are allowed.")
    if not _KEY.match(key):
        raise ApiError(400, f"The key {shown(key)} has characters other than A-Z a-z 0-9 _ - / .")
    for segment in text.split("/"):
        if segment in ("", ".", ".."):
            raise ApiError(
                400, f"The key {shown(key)} has a segment {segment!r}; none may be '', '.' or '..'."
            )
        if len(segment) > SEGMENT_BYTES:
            raise ApiError(
                400, f"A segment of the key is {len(segment)} bytes; at most {SEGMENT_BYTES}."
            )
    return key


def parse_path(raw_path: bytes) -> Target | None:
    """What a raw request path addresses; None when it is not one of the Files API's."""
    segments = raw_path.partition(b"?")[0].split(b"/")
    if segments[1:3] == [b"v1", b"files"]:  # as nearly every client writes it
        return None if segments[0] else _target(segments[3:])
    if len(segments) > 2 and unquote_to_bytes(segments[1]) == b"v1":
        del segments[1]
    if len(segments) < 2 or segments[0] or unquote_to_bytes(segments[1]) != b"files":
        return None
    return _target(segments[2:])


def parse_destination(value: str, base_url: str) -> tuple[str, str]:
    """Bucket and key of a Destination header: an absolute path, or a URL of this server.

    Raises ApiError 400 for anything else. The key may end with a slash.
    """
    target = parse_path(_path_of(value, base_url).encode())
    if target is None or target.kind is not Kind.KEY:
        raise ApiError(400, f"The Destination {shown(value)} is no path /v1/files/BUCKET/KEY.")
    if target.problem:
        raise target.problem
    return check_bucket(target.bucket), check_key(target.key, directory=True)


def _path_of(value: str, base_url: str) -> str:
    if _PLAIN_PATH.match(value):  # as the mount writes it; the parser costs as much as the rest
        return value
    try:
        parts = urlsplit(value)
    except ValueError:  # a host such as "[::1"
        raise ApiError(400, f"The Destination {shown(value)} is no URL.") from None
    ours = urlsplit(base_url).netloc
    if parts.scheme and parts.netloc not in (ours, "localhost"):
        raise ApiError(400, f"The Destination {shown(value)} is on another server than {base_url}.")
    return parts.path


def _target(segments: list[bytes]) -> Target:
    try:
        decoded = [unquote_to_bytes(s).decode() if b"%" in s else s.decode() for s in segments]
    except UnicodeDecodeError:
        problem = ApiError(400, "The path is not UTF-8 once its percent-escapes are decoded.")
        kind = Kind.BUCKET if len(segments) == 1 else Kind.KEY
        return Target(kind, problem=problem)
    if decoded in ([], [""]):
        return Target(Kind.ROOT)
    bucket, rest = decoded[0], decoded[1:]
    if bucket.startswith("session:"):
        return _session(bucket.removeprefix("session:"), rest)
    if bucket.endswith(":") and _BARE_SCHEME.match(
        bucket
    ):  # an unencoded PUT /files/s3://b is op 8
        return Target(Kind.BUCKET, "/".join(decoded))
    if rest in ([], [""]):
        return Target(Kind.BUCKET, bucket)
    key = "/".join(rest)
    if any("/" in segment for segment in rest):  # an encoded slash would smuggle in a separator
        problem = ApiError(400, f"The key {shown(key)} has an encoded '/'; send it as it is.")
        return Target(Kind.KEY, bucket, key, problem=problem)
    return Target(Kind.KEY, bucket, key)


def _session(session: str, rest: list[str]) -> Target:
    problem = None
    if rest or not _SESSION.match(session):
        named = "/".join([session, *rest])
        problem = ApiError(404, f"There is no upload session {shown(named)}.")
    return Target(Kind.SESSION, session=session, problem=problem)

"""A registered bucket as the API shows it: the files of its location that are registered.

It must not know HTTP. Everything here blocks; the routes call it from a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from files_server import auth
from files_server.errors import ApiError, not_found, shown
from files_server.registration import locations, writing
from files_server.registration.locations import Found, OpenFile
from files_server.registration.table import Registered
from files_server.registration.writing import Check
from filesfs.wire import AttributesPatch

CHUNK = 1 << 20  # bytes that are read in one go
_THERE = "as it is in a registered location"


class LocatedBucket:
    """One registered bucket, for one request."""

    def __init__(self, bucket: str, registered: Registered, base_url: str) -> None:
        self._bucket = bucket
        self._registered = registered
        self._root = registered.location
        self._base = f"{base_url}/v1/files/{bucket}"

    def find(self, key: str) -> Found:
        """What `key` names ("a" or "a/"). ApiError 404, 503."""
        name = key.removesuffix("/")
        if not self._registered.covers(name):
            raise not_found(self._bucket, key)
        found = locations.find(self._root, name)
        if key.endswith("/") and not found.is_directory:
            raise not_found(self._bucket, key)
        return found

    def open(self, key: str) -> OpenFile:
        """A file, for reading. ApiError 404, 503."""
        self.find(key)
        return locations.open_file(self._root, key)

    def children(self, prefix: str) -> Iterator[Found]:
        """What `delimiter=/` shows: direct entries of the prefix's directory, by key."""
        directory = prefix.rpartition("/")[0]
        for found in self._safely(lambda: iter(locations.children(self._root, directory)), prefix):
            if _key(found).startswith(prefix) and self._registered.covers(found.key):
                yield found

    def walk(self, prefix: str) -> Iterator[Found]:
        """Every file and directory below the prefix, by key."""
        if self._registered.whole is None:
            yield from self._walk_files(prefix)
            return
        directory = prefix.rpartition("/")[0]
        for found in self._safely(lambda: locations.walk(self._root, directory), prefix):
            if _key(found).startswith(prefix):
                yield found

    def make_directory(
        self, key: str, check: Check, attributes: AttributesPatch | None = None
    ) -> Found:
        """ApiError 403 where the location is read-only, 409."""
        self.check_writable(key)
        check_attributes(key, attributes)
        return writing.make_directory(self._root, key, check, attributes)

    def remove(self, key: str, check: Check) -> None:
        """Remove data. ApiError 403 where the location is read-only, 404, 409."""
        self.find(key)
        self.check_writable(key)
        writing.remove(self._root, key, check)

    def set_attributes(self, key: str, change: AttributesPatch, check: Check) -> Found:
        """Mode, owner, times. ApiError 403, 404, and 501 for what the location cannot keep."""
        found = self.find(key)
        self.check_writable(key)
        check_attributes(key, change)
        if change.mime_type is not None and change.mime_type != found.mime_type:
            raise ApiError(501, f"The type of {shown(key)} follows from its name, {_THERE}.")
        return writing.set_attributes(self._root, key, change, check)

    def entry(self, found: Found, *, full: bool) -> dict[str, Any]:
        """FileResponse, or with `full` FullFileResponse."""
        key = _key(found)
        entry: dict[str, Any] = {
            "bucket": self._bucket,
            "key": key,
            "mime_type": found.mime_type,
            "url": f"{self._base}/{key}?alt=media{auth.signature(self._bucket, key)}",
            "bytes": found.size,
            "created_at": found.modified_ns // 1_000_000_000,
        }
        if full:
            entry |= {
                "etag": found.etag,
                "modified_ns": found.modified_ns,
                "changed_ns": found.changed_ns,
                "accessed_ns": found.accessed_ns,
                "mode": found.mode,
                "uid": found.uid,
                "gid": found.gid,
                "nlink": found.nlink,
                "resource_id": resource_id(self._bucket, found),
                "xattrs": {},
            }
        return entry

    def _walk_files(self, prefix: str) -> Iterator[Found]:
        for key in sorted(self._registered.files):
            if key.startswith(prefix):
                try:
                    yield locations.find(self._root, key)
                except ApiError as error:
                    if error.status != 404:  # a file that went; the location is there
                        raise

    def _safely(self, listing: Callable[[], Iterator[Found]], prefix: str) -> Iterator[Found]:
        """Nothing for a prefix that names no directory, as in any bucket; 503 stays an error."""
        try:
            yield from listing()
        except ApiError as error:
            if error.status != 404 or not prefix:
                raise

    def check_writable(self, key: str) -> None:
        """ApiError 403 where the location is read-only, 400 for a key that it could not show."""
        name = key.removesuffix("/")
        if not self._registered.writable(name):
            raise ApiError(
                403,
                f"{shown(key)} is in the bucket {shown(self._bucket)}, which is registered"
                " read-only; register it with ?mode=rw to write.",
            )
        if not all(locations.is_shown(part) for part in name.split("/")):
            raise ApiError(400, f"The key {shown(key)} cannot be a path in a registered location.")


def resource_id(bucket: str, found: Found) -> str:
    """A file's identity: what the file system takes for one file."""
    return f"{bucket}.{found.inode}"


def _key(found: Found) -> str:
    return found.key + "/" if found.is_directory else found.key


def check_attributes(key: str, change: AttributesPatch | None) -> None:
    """ApiError 501 for what only the catalog keeps, 400 for a time that no file can have."""
    if change is None:
        return
    if change.xattrs:
        raise ApiError(501, f"{shown(key)} can have no extended attributes, {_THERE}.")
    for name, value in (("modified_ns", change.modified_ns), ("accessed_ns", change.accessed_ns)):
        if value is not None and not -(2**63) <= value < 2**63:
            raise ApiError(400, f"{name} {value} does not fit into 64 bits.")

"""Uploads into registered locations: what `places.py` asks for, done with `writing.py`.

It must not know HTTP. Content is received in the data folder, where a half-received file is in
nobody's way, and comes to the location when it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from files_server.blobs.local import Space, space_of
from files_server.blobs.upload import UploadFile
from files_server.catalog.commits import Conditions, Outcome
from files_server.catalog.nodes import Node
from files_server.catalog.schema import FILE
from files_server.catalog.sessions import Wish
from files_server.errors import ApiError, shown
from files_server.registration import locations
from files_server.registration.leftovers import Leftovers
from files_server.registration.located import CHUNK, LocatedBucket, check_attributes, resource_id
from files_server.registration.locations import Found, Location
from files_server.registration.table import Registered, Registrations
from files_server.registration.writing import Check, StagedFile, temporary_name
from filesfs.wire import SPECIAL_TYPES


class LocatedPlaces:
    """The registered buckets as places of uploads."""

    def __init__(self, registrations: Registrations, leftovers: Leftovers) -> None:
        self._registrations = registrations
        self._leftovers = leftovers

    def of(self, bucket: str) -> LocatedPlace | None:
        registered = self._registrations.get(bucket)
        return LocatedPlace(bucket, registered, self._leftovers) if registered else None


class LocatedPlace:
    """One registered bucket, for one request."""

    def __init__(self, bucket: str, registered: Registered, leftovers: Leftovers) -> None:
        self._bucket = bucket
        self._registered = registered
        self._leftovers = leftovers

    @property
    def _location(self) -> Location:
        return self._registered.location

    def check(self, wish: Wish) -> None:
        LocatedBucket(self._bucket, self._registered, "").check_writable(wish.key)
        if wish.mime_type in SPECIAL_TYPES:
            raise ApiError(
                501,
                f"{shown(wish.key)} would be a {wish.mime_type}: a registered location takes"
                " regular files and directories.",
            )
        check_attributes(wish.key, wish.attributes)
        check_of(wish.conditions, wish.key, wish.resource_id)(self._there(wish.key))

    def space(self) -> Space:
        root = locations.open_root(self._location)
        try:
            return space_of(root)
        finally:
            os.close(root)

    def stage(self, file: UploadFile, wish: Wish, name: str) -> Landing:
        self.check(wish)
        temporary = temporary_name(name)
        self._leftovers.note(temporary, self._location, wish.key.rpartition("/")[0])
        try:
            staged = StagedFile(self._location, wish.key, file, name, wish.attributes)
        except BaseException:
            self._leftovers.forget(temporary)
            raise
        return Landing(self._bucket, wish, staged, lambda: self._leftovers.forget(temporary))

    def landed(self, wish: Wish, mark: str, upload: Path) -> Outcome | None:
        found = self._there(wish.key)
        if found is None or not _is_marked(found, json.loads(mark), upload):
            return None
        return Outcome(self._bucket, wish.key, as_node(self._bucket, found), 0)

    def append_base(self, file: UploadFile, wish: Wish, length: int) -> None:
        opened = locations.open_file(self._location, wish.key)
        if opened.found.etag != wish.base:
            raise ApiError(410, f"The version {shown(wish.base)} is no more.")
        end = file.length + length
        if opened.found.size < end:
            raise ApiError(400, f"The base version has only {opened.found.size} bytes.")
        while file.length < end:
            file.append([opened.read(file.length, min(CHUNK, end - file.length))])

    def _there(self, key: str) -> Found | None:
        try:
            return locations.find(self._location, key)
        except ApiError as error:
            if error.status != 404:
                raise
            return None


@dataclass(slots=True)
class Landing:
    """`places.Staged`: the file beside its name, and what the commit waits for."""

    bucket: str
    wish: Wish
    staged: StagedFile
    forget: Callable[[], None]

    @property
    def mark(self) -> str:
        return json.dumps(self.staged.identity)

    def commit(self) -> Outcome:
        conditions, key = self.wish.conditions, self.wish.key
        check = check_of(conditions, key, self.wish.resource_id)
        found = self.staged.commit(check, only_new=conditions.if_none_match == "*")
        return Outcome(self.bucket, key, as_node(self.bucket, found), 0)

    def drop(self) -> None:
        self.staged.drop()
        self.forget()


def _is_marked(found: Found, mark: list[int], upload: Path) -> bool:
    """Whether it is the file that the mark was made for.

    An upload is removed behind its commit, so without one the commit was done; and while it has the
    file's own inode, that is no other file's. Somebody may have written to either since. A copy is
    another file than its upload: there a file that only has its inode's number looks different.
    """
    inode = [found.device, found.inode]
    if inode != mark[:2]:
        return False
    try:
        status = upload.stat()
    except FileNotFoundError:
        return True
    if inode == [status.st_dev, status.st_ino]:
        return True
    return mark[2:] in ([], [found.size, found.modified_ns])  # []: an older server's


def check_of(conditions: Conditions, key: str, resource: str = "") -> Check:
    """If-Match and If-None-Match as a check of what is there. A name that goes while its file is
    uploaded stays gone (410); another file by that name is replaced: the last commit wins."""

    def check(found: Found | None) -> None:
        conditions.check_etag(found.etag if found else None, key)
        if resource and found is None:
            raise ApiError(410, f"The resource {shown(resource)} has no name left.")

    return check


def as_node(bucket: str, found: Found) -> Node:
    """What the catalog would say of it: bodies are made from that."""
    return Node(
        id=0, parent_id=0, sort_name="", explicit=1, resource=0,
        rid=resource_id(bucket, found), kind=FILE, etag=found.etag, size=found.size,
        mime_type=found.mime_type, mode=found.mode, uid=found.uid, gid=found.gid,
        modified_ns=found.modified_ns, changed_ns=found.changed_ns,
        accessed_ns=found.accessed_ns, created_at=found.modified_ns // 1_000_000_000,
        xattrs=None, nlink=found.nlink, version_id=None,
    )  # fmt: skip

"""What uploads need of a place whose content the catalog does not hold: a registered location.

It must not do anything: `registration/` does. All methods block, but for `Places.of`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from files_server.blobs.local import Space
from files_server.blobs.upload import UploadFile
from files_server.catalog.commits import Outcome
from files_server.catalog.sessions import Wish


class Staged(Protocol):
    """Content that lies beside its name, complete and synced. Ended by `commit` or `drop`."""

    @property
    def mark(self) -> str:
        """What `Place.landed` knows this content by, should the server die within `commit`."""

    def commit(self) -> Outcome:
        """Put it under its name in one step, durable when it returns. ApiError 409, 410, 412."""

    def drop(self) -> None:
        """Leave nothing of it beside the name; after `commit` there is nothing to drop."""


class Place(Protocol):
    """One bucket's location."""

    def check(self, wish: Wish) -> None:
        """What op 1 checks ahead of the commit. ApiError 403, 409, 410, 412, 501, 503."""

    def space(self) -> Space:
        """Of the disk that it is on. ApiError 503."""

    def stage(self, file: UploadFile, wish: Wish, name: str) -> Staged:
        """Bring received bytes to where they are wanted; `name` is the upload's."""

    def landed(self, wish: Wish, mark: str, upload: Path) -> Outcome | None:
        """What a commit brought of which nobody heard; None if it did not happen. `upload` is where
        the content was received."""

    def append_base(self, file: UploadFile, wish: Wish, length: int) -> None:
        """Append bytes of the version `wish.base`, from the file's length on. ApiError 400, 410."""


class Places(Protocol):
    """All of them."""

    def of(self, bucket: str) -> Place | None:
        """None: the catalog holds this bucket's content."""

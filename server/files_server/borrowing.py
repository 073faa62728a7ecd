"""What an upload takes of the version that it starts from: all of it without a copy, or parts.

It must not know requests or sessions. What is borrowed is never changed: `blobs/local.py` sees to
that.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from files_server.blobs.local import LocalBlobs, UploadFile
from files_server.catalog.sessions import Wish
from files_server.catalog.store import Catalog
from files_server.errors import ApiError
from files_server.places import Place
from files_server.receiving import settled


class Borrowing:
    """Fills uploads from the versions that they name as their base."""

    def __init__(self, catalog: Catalog, blobs: LocalBlobs, pool: ThreadPoolExecutor) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._pool = pool

    async def file(self, upload: str, wish: Wish, length: int) -> UploadFile | None:
        """The file of an upload that begins with the whole base, if that has this length and costs
        no copy.
        """
        if not wish.base or not length:
            return None
        try:
            version = self._catalog.version_by_etag(wish.base, wish.bucket, wish.key)
        except ApiError:
            return None  # told when it is asked for its bytes
        if version.blob is None or version.size != length:
            return None
        blob = self._blobs.path(version.blob)
        return await settled(self._pool, self._blobs.borrow, upload, blob, length, version.crc32c)

    async def drop(self, file: UploadFile | None, upload: str) -> None:
        """There is no such upload after all."""
        if file is not None:
            await settled(self._pool, self._blobs.remove_upload, upload, file)

    async def copy(self, file: UploadFile, wish: Wish, place: Place | None, length: int) -> None:
        """Append `length` bytes of the base, from the file's own length on. ApiError 400, 410."""
        if place:
            await settled(self._pool, place.append_base, file, wish, length)
            return
        version = self._catalog.version_by_etag(wish.base, wish.bucket, wish.key)
        start = file.length
        if version.size < start + length:
            raise ApiError(400, f"The base version has only {version.size} bytes.")
        if version.blob is None:
            data = self._catalog.data(version.id)
            await settled(self._pool, file.append, [data[start : start + length]])
        else:
            await settled(self._pool, file.copy_from, self._blobs.path(version.blob), length)

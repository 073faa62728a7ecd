"""What an upload takes of the version that it starts from: without a copy where it can share the
version's blob, else copied.

It must not know requests or sessions. What is shared is never changed: `blobs/upload.py` sees to
that.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from files_server.blobs.layout import Layout
from files_server.blobs.local import LocalBlobs
from files_server.blobs.pieces import DamagedError, Stored
from files_server.blobs.upload import UploadFile
from files_server.catalog.sessions import Wish
from files_server.catalog.store import Catalog, Version
from files_server.errors import ApiError, shown
from files_server.places import Place
from files_server.receiving import settled

# Bytes of a version from which on its blob is shared, but for what is appended: a change has whole
# blocks written again, so of a smaller one little would be saved.
_SHARED_AT_LEAST = 8 << 20
log = logging.getLogger(__name__)


class Borrowing:
    """Fills uploads from the versions that they name as their base."""

    def __init__(self, catalog: Catalog, blobs: LocalBlobs, pool: ThreadPoolExecutor) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._pool = pool
        self._make_room = catalog.make_room

    async def file(
        self, upload: str, wish: Wish, begin: int, size: int | None
    ) -> UploadFile | None:
        """The file of an upload of `size` bytes (None: not known) that shares its base's blob, if
        that can be. It begins with the whole base if that has `begin` bytes, else it is empty.
        """
        if not wish.base:
            return None
        try:
            version = self._catalog.version_by_etag(wish.base, wish.bucket, wish.key)
        except ApiError:
            return None  # told when it is asked for its bytes
        begin = begin if begin == version.size else 0
        whole = version.size if size is None else size
        if version.blob is None or not (begin or min(whole, version.size) >= _SHARED_AT_LEAST):
            return None
        asked = (upload, version.blob, _stored(version), begin, whole)
        try:
            return await settled(self._pool, self._blobs.borrow, *asked)
        except BaseException:  # ended meanwhile: nobody would know of its name for the blob
            await settled(self._pool, self._blobs.remove_upload, upload)
            raise

    async def drop(self, file: UploadFile | None, upload: str) -> None:
        """There is no such upload after all."""
        if file is not None:
            await settled(self._pool, self._blobs.remove_upload, upload, file)

    async def copy(self, file: UploadFile, wish: Wish, place: Place | None, length: int) -> None:
        """Append `length` bytes of the base, from the file's own length on; where the disk is full,
        after making room. ApiError 400, 410.
        """
        mark = file.mark()
        while True:
            try:
                return await self._copy(file, wish, place, length)
            except OSError as error:
                await settled(self._pool, file.back, mark)  # the catalog needs some room for it
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not await self._make_room():
                    raise

    async def _copy(self, file: UploadFile, wish: Wish, place: Place | None, length: int) -> None:
        start, end = file.length, file.length + length
        if place:
            await settled(self._pool, place.append_base, file, wish, length)
            return
        version = self._catalog.version_by_etag(wish.base, wish.bucket, wish.key)
        if version.size < end:
            raise ApiError(400, f"The base version has only {version.size} bytes.")
        if version.blob is None:
            data = self._catalog.data(version.id)
            await settled(self._pool, file.append, [data[start:end]])
        else:
            path = self._blobs.path(version.blob)
            await settled(self._pool, file.take, path, _stored(version), length)


@contextmanager
def damage_told(wish: Wish) -> Iterator[None]:
    """What is not what was stored, as ApiError 500."""
    try:
        yield
    except DamagedError as error:
        where = f"bytes {error.first}-{error.last - 1} of {shown(wish.key)}"
        log.error("%s in %r are damaged on disk, at version %s", where, wish.bucket, wish.base)
        raise ApiError(
            500,
            f"The stored {where} are damaged, so no upload can begin with them; restore the file"
            " from a backup (filesfs fsck --digests names all that are).",
            reason="damaged",
        ) from None


def _stored(version: Version) -> Stored:
    return Stored(version.size, version.crc32c, Layout(version.blocks))

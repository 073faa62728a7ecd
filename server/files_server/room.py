"""Whether an upload can fit on the disk, asked before it begins: one that cannot is refused before
it has filled the disk for everybody.

It must not reserve: sessions may be given up, and what fits when it begins may meet a full disk
later (`receiving.py`). What is kept of old versions gives way, but only to what fits then.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from files_server.blobs.local import LocalBlobs, Space
from files_server.catalog.sessions import Wish
from files_server.catalog.store import Catalog
from files_server.errors import ApiError
from files_server.places import Place
from files_server.receiving import settled

_MARGIN = 64 << 20  # bytes that no upload may plan to take: the catalog grows, too
_MARGIN_SHARE = 100  # but at most this part of a small disk


class Room:
    """Looks at the disk. `inline`: content up to so many bytes is the catalog's, and not asked."""

    def __init__(
        self, catalog: Catalog, blobs: LocalBlobs, pool: ThreadPoolExecutor, inline: int
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._pool = pool
        self._inline = inline

    async def check(
        self, wish: Wish, size: int | None, place: Place | None, *, shares: bool = False
    ) -> None:
        """ApiError 507 for content of `size` bytes (None: nobody knows) that has no room. `shares`:
        what it takes of its base is not copied.
        """
        if size is None or size <= self._inline:
            return
        if place is not None:
            space = await settled(self._pool, place.space)
            if _missing(space, size) > 0:
                raise _refused(size, space, "that the location is on")
        shares = place is None and (shares or self._blobs.shares_blocks)
        taken = size - (self._shared(wish, size) if shares else 0)
        while (missing := _missing(space := await self._space(), taken)) > 0:
            if missing > await settled(self._pool, self._kept):
                raise _refused(taken, space, "of the server's data")
            if not await self._catalog.make_room():
                raise _refused(taken, space, "of the server's data")

    def _shared(self, wish: Wish, size: int) -> int:
        """Bytes that take no space again: of the version that the upload starts from, where it
        shares the file, or the file system lets two files have the same blocks."""
        if not wish.base:
            return 0
        try:
            base = self._catalog.version_by_etag(wish.base, wish.bucket, wish.key)
        except ApiError:
            return 0  # told when it is asked for its bytes
        return min(size, base.size) if base.blob else 0

    def _kept(self) -> int:
        """Bytes that `make_room` could give up, at most."""
        return self._blobs.held_by(self._catalog.kept_blobs())

    async def _space(self) -> Space:
        return await settled(self._pool, self._blobs.space)


def _missing(space: Space, size: int) -> int:
    return size + min(_MARGIN, space.total // _MARGIN_SHARE) - space.free


def _refused(size: int, space: Space, which: str) -> ApiError:
    return ApiError(
        507,
        f"There is no room for {size} bytes: the disk {which} has {space.free} of {space.total}"
        " bytes free.",
    )

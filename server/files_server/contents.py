"""Many small files in one answer: entries and content, as many as fit.

It must not know requests. What is not there, not small, or not what was stored is left out: who
wants to know why asks for the file itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from crc32c import crc32c

from files_server.blobs.checksums import checksums
from files_server.blobs.layout import Layout
from files_server.blobs.local import LocalBlobs
from files_server.catalog import contents, listing
from files_server.catalog.contents import Found
from files_server.catalog.store import Catalog
from filesfs.wire import CONTENT_BYTES

log = logging.getLogger(__name__)
_AT_ONCE = 32  # names that are looked up before others get their turn: 0.5 ms


@dataclass(slots=True)
class Gathered:
    """`rows` as in `Files-Rows`, each with its content's crc32c at the end. `more`: what follows
    went beyond the limit.
    """

    rows: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    more: bool = False


class Contents:
    """Reads small files of one directory."""

    def __init__(self, catalog: Catalog, blobs: LocalBlobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    async def gather(
        self,
        place: tuple[str, str],
        names: Sequence[str],
        limit: int,
        found: Callable[[Sequence[Found]], None] = lambda files: None,
    ) -> Gathered | None:
        """Of a directory (bucket and key) in the order of `names`, until one goes beyond `limit`
        bytes in all. Each is of one moment, no earlier than the call. None: there is no such
        directory. `found` is told of each right when it was looked up, with nothing awaited since.
        """
        gathered = Gathered()
        for start in range(0, max(1, len(names)), _AT_ONCE):
            if start:
                await asyncio.sleep(0)
            step = self._look_up(place, names[start : start + _AT_ONCE], limit)
            if step is None:
                return gathered if start else None
            files, gathered.more = step
            found(files)
            limit -= sum(each.size for each in files)
            for each, content in zip(files, await self._contents(files), strict=True):
                if content is not None:
                    gathered.rows.append(f"{each.row[:-1]},{crc32c(content)}]")
                    gathered.contents.append(content)
            if gathered.more:
                break
        return gathered

    def _look_up(
        self, place: tuple[str, str], names: Sequence[str], limit: int
    ) -> tuple[list[Found], bool] | None:
        """What the catalog has of them within the limit, and whether it has more."""
        connection = self._catalog.at_hand
        connection.execute("BEGIN")  # the directory must not move away from its files
        try:
            directory = listing.directory_id(connection, *place)
            if directory is None:
                return None
            with closing(
                contents.small_files(connection, directory, names, CONTENT_BYTES)
            ) as files:
                return _within(files, limit)
        finally:
            connection.execute("COMMIT")

    async def _contents(self, files: Sequence[Found]) -> list[bytes | None]:
        """What each one is, None where that is not there, or not what was stored."""
        if all(each.blob is None for each in files):
            return [_checked(each, each.data) for each in files]
        return await asyncio.to_thread(lambda: [self._content(each) for each in files])

    def _content(self, file: Found) -> bytes | None:
        """In a thread."""
        if file.blob is None:
            return _checked(file, file.data)
        try:
            data = self._blobs.read(file.blob, Layout(file.blocks), 0, file.size)
        except OSError:  # as a rule it was replaced meanwhile
            return None
        return _checked(file, data)


def _within(files: Iterable[Found], limit: int) -> tuple[list[Found], bool]:
    """The first ones, with no more than `limit` bytes in all; whether there are more."""
    within: list[Found] = []
    for each in files:
        limit -= each.size
        if limit < 0:
            return within, True
        within.append(each)
    return within, False


def _checked(file: Found, data: bytes | None) -> bytes | None:
    if data is None and not file.size:
        return b""
    if data is None or len(data) != file.size:
        return None
    if file.crc32c and checksums(data) != file.crc32c:
        log.error("%r is damaged on disk, and left out of an answer with many files", file.name)
        return None
    return data

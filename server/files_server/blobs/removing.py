"""Removes blobs that nothing names any more, in a thread of its own, one batch after the other.

It must not decide which. To unlink a file of gigabytes takes the disk most of a second: the event
loop would stand still for it, and a pool that others use would soon have no thread left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from files_server.blobs.local import LocalBlobs

_log = logging.getLogger(__name__)


class Removals:
    """Owner of the thread. Event loop only."""

    def __init__(self, blobs: LocalBlobs) -> None:
        self._blobs = blobs
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blob-removal")
        self._last: asyncio.Future[None] | None = None  # done when all that were begun are

    def begin(self, blobs: Iterable[str]) -> None:
        """Remove these, some time soon. Errors are logged: whoever made the change has made it."""
        loop = asyncio.get_running_loop()
        self._last = loop.run_in_executor(self._pool, self._removed, list(blobs))

    async def settled(self) -> None:
        """Everything that was begun is gone from the disk."""
        if self._last is not None:
            await asyncio.wait({self._last})

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.to_thread(self._pool.shutdown)

    def _removed(self, blobs: list[str]) -> None:
        try:
            self._blobs.remove(blobs)
        except OSError as error:
            _log.error("content that nothing names any more stays until the next start: %s", error)

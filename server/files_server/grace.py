"""The marker in the data folder that leases are out, for the start after a kill -9. A leaf.

It must not know leases. A server that finds the marker was not stopped but killed: whoever had a
lease of it may trust that for so long as the marker says.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from pathlib import Path

# That any lease lasts; also what a marker stands for that cannot be read. A change may wait for so
# long twice, after a kill, and mounts take 30 s without an answer for a server that is away.
MOST_SECONDS = 10


class Marker:
    """Owns the file. Its text is for how many milliseconds the leases are."""

    def __init__(self, path: Path, seconds: float, pool: Executor) -> None:
        self._path = path
        self._text = f"{int(seconds * 1000)}\n"
        self._pool = pool
        self._making: Future[None] | None = None

    def left_behind(self) -> float:
        """For how many seconds what a killed server granted may be trusted; 0: it was stopped."""
        try:
            text = self._path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return 0.0
        known = text.isascii() and text.isdigit() and len(text) < 10
        return min(int(text) / 1000, MOST_SECONDS) if known else MOST_SECONDS

    def is_made(self) -> bool:
        """Whether the marker is durable. The first to ask has it made, and is told no: a thread
        does it, since nobody is to wait for the disk on the event loop."""
        if self._making is None:
            self._making = self._pool.submit(self._make)
        if not self._making.done():
            return False
        if self._making.exception() is not None:  # as on a full disk; the next one tries again
            self._making = None
            return False
        return True

    def remove(self) -> None:
        """No lease is out any more, and none will be."""
        if self._making is not None:
            self._making.exception()  # it would come back
        self._path.unlink(missing_ok=True)

    def _make(self) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="ascii") as file:
            file.write(self._text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

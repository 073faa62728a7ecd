"""A little of the disk set aside, so that something can be removed when the disk is full: a
removal, too, is written to the log first.

It must not serve anything that stays.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_BYTES = 1 << 20  # some dozens of removals; the first of them that frees content frees more


class Reserve:
    """Owner of one file beside the catalog. Methods block for a moment."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"
        self.set_aside()

    def set_aside(self) -> None:
        """Take the space (again), if there is as much."""
        if self._path.exists():
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _BYTES)
        except OSError:  # no room, or a file system that cannot
            with suppress(OSError):
                self._path.unlink()
        finally:
            os.close(descriptor)

    def give(self) -> bool:
        """Give it back to the disk; whether there was any."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True

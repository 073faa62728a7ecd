"""A little of the disk set aside, so that something can be removed when the disk is full: a
removal, too, is written to the log first.

It must not serve anything that stays.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Some dozens of removals; the first of them that frees content frees more. Else what there is.
_SIZES = (1 << 20, 1 << 19, 1 << 18, 1 << 17)


class Reserve:
    """Owner of one file beside the catalog. Methods block for a moment."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"

    def set_aside(self) -> None:
        """Take the space (again), or as much of it as there is."""
        with suppress(OSError):  # there is not even room for its name
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not any(_take(descriptor, size) for size in _SIZES):
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


def _take(descriptor: int, size: int) -> bool:
    if os.fstat(descriptor).st_size >= size:
        return True
    with suppress(OSError):  # no room, or a file system that cannot
        os.posix_fallocate(descriptor, 0, size)
        return True
    return False

"""Removes the default cache folders of mounts that are long gone.

It must not touch a folder that a mount uses, that holds unsent data, or that somebody chose with
`-o cache_dir`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from filesfs.write.leftovers import has_unsent

UNUSED_SECONDS = 30 * 86400.0
_NAME = re.compile(r"[0-9a-f]{16}\Z")  # as config.default_cache_dir makes it
_REMOVED = re.compile(r"[0-9a-f]{16}\.removed\Z")  # by an earlier mount, which did not end it
_log = logging.getLogger(__name__)


def remove_unused(base: Path, own: Path) -> list[Path]:
    """Remove what is to go below `base`, but not `own`; what was removed. Never raises OSError."""
    removed = []
    with contextlib.suppress(OSError):
        for folder in sorted(base.iterdir()):
            if folder == own:
                continue
            try:
                if _REMOVED.match(folder.name):
                    shutil.rmtree(folder)
                elif _is_done_with(folder):
                    _log.info("%s goes: unused for %d days", folder, UNUSED_SECONDS // 86400)
                    shutil.rmtree(_set_aside(folder))
                    removed.append(folder)
            except OSError as error:
                _log.info("%s stays: %s", folder, error)
    return removed


def _is_done_with(folder: Path) -> bool:
    """And sets it aside, while its lock is held: a mount that comes now makes itself a new one."""
    status = folder.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not (ours and _NAME.match(folder.name)):
        return False
    if time.time() - _last_used(folder) < UNUSED_SECONDS:
        return False
    with _lock(folder) as free:
        if not free:
            return False
        if has_unsent(folder):
            _log.warning("%s holds data that was never sent: mount it again to send it", folder)
            return False
        folder.rename(_set_aside(folder))
        return True


def _set_aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.removed")


def _last_used(folder: Path) -> float:
    """Unix seconds. The folder's own time moves when a mount ends: its socket goes."""
    return max(path.lstat().st_mtime for path in [folder, *folder.iterdir()])


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether the folder's lock is ours, for the time of the `with`."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # never mounted: nothing says that it is a mount's
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)

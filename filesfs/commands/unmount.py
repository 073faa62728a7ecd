"""`filesfs umount`: first what is not yet sent goes to the server, then the mount goes.

It must not lose anything that a close() or fsync() answered for, --force included: what is not
sent stays in the cache folder's journal.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Any

from filesfs import control
from filesfs.commands import mount_table
from filesfs.commands.mount_table import MOUNT_FAILURE, Mounted
from filesfs.commands.records import cache_dir_of
from filesfs.errors import UsageError

_END_SECONDS = 45.0  # the daemon's own end takes 35 s at most
_LOOK_SECONDS = 2.0  # it mostly ends sooner


def clear_dead(mountpoint: Path) -> bool:
    """Take away a mount whose daemon died; True if there was one. A living one is left alone."""
    cleared = False
    while mount_table.is_dead(mountpoint):  # a mount may lie on top of another
        mount_table.detach(mountpoint, lazy=True)
        cleared = True
    return cleared


def unmount(mountpoint: Path, *, lazy: bool, force: bool, timeout: float) -> None:
    """Drain, unmount, and wait for the daemon's end. Raises UsageError. Times in seconds."""
    if clear_dead(mountpoint):
        return
    mounted = mount_table.find(mountpoint)
    if mounted is None:
        raise UsageError(f"no filesfs is mounted on {mountpoint}{_others()}", MOUNT_FAILURE)
    folder = cache_dir_of(mounted)
    daemon = _daemon_of(folder)
    try:
        if not force:
            _drain(mounted, folder, timeout)
        mount_table.detach(mountpoint, lazy=lazy, force=force)
        if daemon is not None and not lazy:
            _await_end(daemon, mounted, folder)
    finally:
        if daemon is not None:
            os.close(daemon)


def _await_end(daemon: int, mounted: Mounted, folder: Path) -> None:
    if select.select([daemon], [], [], _LOOK_SECONDS)[0]:
        return
    if holders := mount_table.seen_elsewhere(mounted.device):
        names = ", ".join(map(str, holders))
        print(
            f"{mounted.mountpoint} is unmounted here, but not in the mount namespaces of processes"
            f" {names} (containers, or units with a private /tmp): its daemon and {folder} stay in"
            f" use until they end, or: nsenter -m -t {holders[0]} umount {mounted.mountpoint}",
            file=sys.stderr,
        )
    else:
        select.select([daemon], [], [], _END_SECONDS)


def _drain(mounted: Mounted, folder: Path, timeout: float) -> None:
    try:
        left = control.ask(folder, "drain", timeout).get("unsent_files", 0)
    except TimeoutError:
        raise UsageError(
            f"{mounted.mountpoint} has data that {mounted.source} has not taken in {timeout:.0f} s;"
            " wait with --timeout, or use --force: the data stays in"
            f" {folder} and is sent at the next mount",
            MOUNT_FAILURE,
        ) from None
    except OSError:
        return  # no daemon to ask: it drains by itself when the mount goes
    if left:
        raise UsageError(
            f"{left} files of {mounted.mountpoint} could not be sent to {mounted.source};"
            f" try again when it answers, or use --force: they stay in {folder}",
            MOUNT_FAILURE,
        )


def _daemon_of(folder: Path) -> int | None:
    """A descriptor that becomes readable when the daemon has ended."""
    try:
        answer: dict[str, Any] = control.ask(folder, "status", 5)
        return os.pidfd_open(int(answer["pid"]))
    except (OSError, ValueError, KeyError):
        return None


def _others() -> str:
    mounts = mount_table.filesfs_mounts()
    there = ", ".join(str(mounted.mountpoint) for mounted in mounts)
    return f"; there are: {there}" if there else "; there is no filesfs mount at all"

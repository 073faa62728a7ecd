"""Tells systemd that the mount is alive, as long as its loop runs and its kernel session answers.

Asked for by WATCHDOG_USEC (WatchdogSec= in the unit). A leaf but for trio. It must not depend on
the server: a mount whose server is away is alive, and answers with errors.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio

from filesfs import notify

log = logging.getLogger(__name__)

_AT_FDCWD = -100
_AT_STATX_FORCE_SYNC = 0x2000  # the kernel must not answer from what it knows
_STATX_BASIC_STATS = 0x7FF
_STATX_BYTES = 256
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)


def session_answers(mountpoint: Path) -> bool:
    """Ask through the kernel, and wait for the daemon's answer; an error is one, too. Blocks."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    path = os.fsencode(mountpoint)
    if libc.statx(_AT_FDCWD, path, _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, buffer) == 0:
        return True
    return ctypes.get_errno() not in _DEAD


async def run(answers: Callable[[], bool]) -> None:
    """Report for as long as `answers` (in a thread) says so; does nothing if nobody asked."""
    every = notify.watchdog_seconds()
    if every is None:
        return
    while True:
        if await trio.to_thread.run_sync(answers, abandon_on_cancel=True):
            notify.watchdog()
        else:
            log.error("the mount does not answer any more; systemd will restart it")
        await trio.sleep(every / 2)

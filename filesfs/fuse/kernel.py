"""Telling the kernel what changed, from a thread of its own.

Invalidation can block on the kernel's locks, which a request that we are serving may hold: never
call it from a handler. The queue is unbounded, but a doubt that is already queued is not queued
again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
from pathlib import Path

import pyfuse3

from filesfs.domain import Inode

log = logging.getLogger(__name__)

_MNT_FORCE, _MNT_DETACH = 1, 2

_Item = tuple[Inode, bytes | None, bool]


def cut_off(mountpoint: Path) -> None:
    """Detach the mount, and fail what still waits for it with ENOTCONN.

    libfuse only detaches. A notification of ours that hangs on a lock of a process whose request
    nobody answers any more would then keep us, and that process, for ever. Only root can.
    """
    if os.getuid() == 0:
        ctypes.CDLL(None).umount2(os.fsencode(mountpoint), _MNT_FORCE | _MNT_DETACH)


class KernelNotifier:
    """Implements filesystem.Kernel."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting: set[_Item] = set()
        self._thread = threading.Thread(target=self._run, name="kernel-notifier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more; does not wait for a call that the kernel holds up."""
        self._queue.put(None)

    def entry_changed(self, parent: Inode, name: bytes) -> None:
        self._put((parent, name, False))

    def inode_changed(self, inode: Inode, *, content: bool) -> None:
        self._put((inode, None, content))

    def forget_attributes(self, inode: Inode) -> None:
        """May be told from a handler: it takes no lock that a request can hold,
        since the inode is in use and attributes alone are meant.
        """
        self._tell(inode, None, content=False)

    def forget_content(self, inode: Inode) -> None:
        """From a handler, too: without a handle no request can hold a page of it."""
        self._tell(inode, None, content=True)

    def _put(self, item: _Item) -> None:
        if item not in self._waiting:
            self._waiting.add(item)
            self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._waiting.discard(item)
            self._tell(*item)

    def _tell(self, inode: Inode, name: bytes | None, content: bool) -> None:
        try:
            if name is None:
                pyfuse3.invalidate_inode(inode, attr_only=not content)
            else:
                pyfuse3.invalidate_entry(inode, name, 0)
        except OSError as error:  # ENOENT: the kernel did not have it
            log.debug("invalidate %s %r: %s", inode, name, error)

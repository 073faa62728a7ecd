"""Where long ranges land: block by block, in memory that is used again, each block told as soon as
it is there and right.

It must not know HTTP or sockets. Memory that is new to the process costs several times as much as
receiving into it, so a few MiB are used again and again; whoever reads is answered while the rest
of the range is still on its way. Figures are in docs/decisions, 0034.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from crc32c import crc32c

from filesfs.domain import Arrived

BLOCK = 1024 * 1024  # as the server's checksums are
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory, Python's default, costs more
_KEPT = 16  # slots of a mount that reads nothing at the moment; what two long reads have in use


class Slots:
    """Memory of a block each, used again once nobody has a view of it. For any thread."""

    def __init__(self) -> None:
        self._all: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def take(self) -> mmap.mmap:
        """One that nobody looks at; a new one is mapped, not cleared: its pages come one by one
        while it is filled, without holding up other threads."""
        with self._lock:
            for index in range(len(self._all)):
                # Views, and a thread that still receives, have references of their own. Without
                # any, there are the list's and the argument of this call.
                if sys.getrefcount(self._all[index]) <= 2:
                    return self._all[index]
            slot = mmap.mmap(-1, BLOCK, _PRIVATE)
            if len(self._all) < _KEPT:
                self._all.append(slot)
            return slot


@dataclass(frozen=True, slots=True)
class Landing:
    """Bytes [start, end) of a file, and who is told of each block of them, in order.

    `sums` says of an answer's status and headers what its blocks have to be, their crc32c; None if
    they do not tell that, and then its body is an answer's like any other. It is called in a
    thread, `arrived` in the event loop.
    """

    start: int
    end: int
    sums: Callable[[int, dict[str, str]], Sequence[int] | None]
    arrived: Arrived


class Lander:
    """Lands one range, in a thread."""

    def __init__(self, landing: Landing, slots: Slots) -> None:
        self._landing = landing
        self._slots = slots
        self._token = trio.lowlevel.current_trio_token()

    def sums(self, status: int, headers: dict[str, str], length: int) -> Sequence[int] | None:
        """The sums to `land` by; None for an answer that is to be taken in whole."""
        if length != self._landing.end - self._landing.start:
            return None
        return self._landing.sums(status, headers)

    def land(self, sums: Sequence[int], fill: Callable[[memoryview], object]) -> int:
        """Receive with `fill`, check, tell. How many bytes are right: all, or those ahead of the
        first block that is not."""
        at = self._landing.start
        for expected in sums:
            end = min(self._landing.end, at - at % BLOCK + BLOCK)
            view = memoryview(self._slots.take())[: end - at]
            fill(view)
            if crc32c(view) != expected:
                break
            self._token.run_sync_soon(self._landing.arrived, at, view.toreadonly())
            at = end
        return at - self._landing.start

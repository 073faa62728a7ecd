"""Memory that received bytes gather in on their way to disk, used again and again.

It must not know files. Memory that is new to the process is what costs: the kernel clears each page
first, and below a hypervisor each may be fetched from the host.
"""

from __future__ import annotations

import mmap

SLOT = 2 << 20  # bytes; fewer cost more in hand-over to a thread than in writing
ALIGNMENT = 4096  # of address, offset and length, for writes past the page cache
_KEPT = 8


class Slot:
    """Bytes for one place of a file, laid out so that file and memory are aligned alike."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, SLOT))
        self._start = self._end = 0

    def begin(self, offset: int) -> None:
        """Empty; what comes next belongs to `offset` of the file."""
        self._start = self._end = offset % ALIGNMENT

    def take(self, data: memoryview) -> memoryview:
        """Copy in what there is room for; what is left over."""
        length = min(len(data), SLOT - self._end)
        self._memory[self._end : self._end + length] = data[:length]
        self._end += length
        return data[length:]

    @property
    def view(self) -> memoryview:
        """What was taken."""
        return self._memory[self._start : self._end]

    @property
    def full(self) -> bool:
        return self._end == SLOT


class Slots:
    """Owner of the slots that nobody uses. Event loop only."""

    def __init__(self) -> None:
        self._free: list[Slot] = []

    def borrow(self) -> Slot:
        return self._free.pop() if self._free else Slot()

    def give_back(self, slot: Slot) -> None:
        """A few are kept; the rest is the system's again."""
        if len(self._free) < _KEPT:
            self._free.append(slot)

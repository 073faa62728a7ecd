"""When somebody walks through directories, and how much of what comes next is worth asking for.

Sync, and it knows directories by their number alone. It must not fetch, nor keep a listing.
"""

from __future__ import annotations

from collections import OrderedDict

from filesfs.domain import Inode

# Entries, each directory counted as ten of them besides. The server takes a millisecond at most for
# it, and the mount as long to take it in.
_FIRST, _LEAST, _MOST = 250, 60, 1_000
_UNUSED = 4  # times as many as are asked for may lie unused: several may walk at the same time
_PAUSE = 16  # walks that did not go on as expected are worth a try in so many
_REMEMBERED = 1_000  # directories


class Walking:
    """Owner of what is remembered of walks: a step is a directory that is listed in one that was
    listed, too. The first may be anybody's, with the second it is a walk.
    """

    def __init__(self) -> None:
        self._steps: OrderedDict[Inode, int] = OrderedDict()
        self._size = _FIRST
        self._pause = 0

    def step(self, directory: Inode, above: Inode) -> bool:
        """Whether this one is part of a walk."""
        steps = self._steps.get(above, 0) + 1
        for each in (above, directory):
            self._steps[each] = steps
            self._steps.move_to_end(each)
        while len(self._steps) > _REMEMBERED:
            self._steps.popitem(last=False)
        return steps > 1

    def size(self, *, used: int, lost: int, held: int) -> int:
        """Entries to ask for, 0: none. `used` and `lost` were since the last time, `held` may yet
        be used.
        """
        if lost > used:
            self._size //= 4
        elif used:
            self._size = min(self._size * 2, _MOST)
        if self._size < _LEAST:
            self._size, self._pause = _FIRST, _PAUSE
        if self._pause:
            self._pause -= 1
            return 0
        return self._size if held <= self._size * _UNUSED else 0

"""Second tries: OPENs that were answered ESTALE, whose names the kernel looks up again.

A file that others change all the time may be another one at the second try, too, and then ESTALE is
what the program gets. But what was looked up since, by whomever, was asked for while open() was
running, which is all that a strict open promises. It must not ask for anything.
"""

from __future__ import annotations

from filesfs.domain import Inode
from filesfs.state.inodes import Node

_MOST = 1000  # threads remembered, and inodes
_SECONDS = 1.0  # the kernel tries again at once; what comes later is another open()

Name = tuple[Inode, bytes]  # in a directory
_NEVER: tuple[float, Name | None] = (float("-inf"), None)
_SPENT: tuple[float, Name | None] = (float("inf"), None)


class SecondTries:
    """By thread of the caller, which makes one call at a time. Times are of the directories'
    stamps: monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._refused: dict[int, tuple[float, Name | None]] = {}
        self._asked: dict[Inode, tuple[float, Name]] = {}

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return bool(self._refused)

    def begin(self, thread: int, name: Name, began: float) -> None:
        """The thread's OPEN of this name, which came then, is answered ESTALE."""
        if not thread:  # each one outside of our pid namespace: whose the next OPEN is, is unknown
            return
        self._limit()
        self._refused[thread] = (began, name)

    def spend(self, thread: int) -> None:
        """Something else was ESTALE: if that was in an open(), the OPEN that follows is its second
        try. Nothing would come after it, and what was looked up for others is too old for the next.
        """
        self._limit()
        self._refused[thread] = _SPENT

    def needs(self, thread: int, name: Name) -> float:
        """What a lookup of this thread finds must have been asked for since then."""
        began, of = self._refused.get(thread, _NEVER)
        return began if of == name else float("-inf")

    def found(self, node: Node, name: Name, asked: float) -> None:
        """A lookup led to this node, by what the server was asked then."""
        self._limit()
        before, of = self._asked.get(node.inode, _NEVER)
        self._asked[node.inode] = (max(asked, before) if of == name else asked, name)

    def is_asked(self, thread: int, node: Node, now: float) -> bool:
        """Whether this is what was looked up since the thread's first try."""
        began, name = self._refused.get(thread, _NEVER)
        asked, found = self._asked.get(node.inode, _NEVER)
        return name is not None and name == found and began <= asked and now < began + _SECONDS

    def end(self, thread: int) -> bool:
        """Its second try came, or never comes. Whether there could be one."""
        known = self._refused.pop(thread, None)
        if not self._refused:
            self._asked.clear()
        return known is not None

    def _limit(self) -> None:
        """A thread that is gone never ends its try."""
        if len(self._refused) >= _MOST or len(self._asked) >= _MOST:
            self._refused.clear()
            self._asked.clear()

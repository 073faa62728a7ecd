"""Which files of a directory to fetch before they are opened, from the opens seen so far. Pure: no
I/O, no clock, no cache.

It must not know what a file is: a directory tells the order of its names, and how long those are
that could be fetched. Who opens one file after the other in the order that readdir told, in that of
inode numbers or of numbers in the names, or nearly all of a small directory in any order, gets
windows that grow. Who does not open what was fetched gets no more of it. A directory that is not
walked costs a line in a table of few.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

KIB = 1024
FIRST = 8  # files in the first window; each one is twice as long as the one before
MOST = 256  # files in one, as many as a request has names
BATCH_BYTES = 1024 * KIB  # of content in one
UNREAD_BYTES = 4 * BATCH_BYTES  # that were fetched, or are on their way, and not opened yet

_IN_ORDER = 3  # opens that follow an order make a walk
_GAP = 16  # names between two of them: programs look for some names, or open several at a time
_DISTINCT = 6  # opens of a small directory in any order after which
_SMALL_BYTES = 2 * BATCH_BYTES  # all else in it is fetched, if it is no more than that
_SHARE = 16  # and no more files than so many times those that were opened
_SMALL_NAMES = 2_000  # in all: to look at each takes 4 ms
# A tree is walked directory by directory: after so many in a row that were walked to their end, the
# next one is begun by its first file.
_TRUSTED = 2
# After so many opens of others it is looked whether they follow the order of the walk: to find a
# name in it takes longer the longer it is.
_LOOKS = frozenset(_IN_ORDER << doubled for doubled in range(32))
_SEARCHED = 8  # names that are looked at for each one in a window: others are large, or are there
_DIRECTORIES = 64  # that are remembered
_ENDED = 256  # opens elsewhere, after which a walk is taken for one that goes on no more
# Who does not open most of a window has to show a walk by so many times the opens, in whichever
# directory; and so on, up to so often, until half of one was opened.
_DEARER = 4
_MOST_VAIN = 3
# Where most of a window was opened before it came, and longer ones would not help, all wait for the
# line, and each file comes twice. After so many opens it is tried again.
_TOO_LATE = _IN_ORDER * _DEARER**_MOST_VAIN


class Order(Enum):
    """In which names may be opened."""

    LISTING = "listing"  # as readdir tells them
    NATURAL = "natural"  # numbers in names count as such: f9, f10
    INODE = "inode"


class Directory(Protocol):
    """What is asked of a directory."""

    def names(self, order: Order) -> Sequence[bytes]:
        """All of it; empty where that is not known, or takes too long."""

    def size(self, name: bytes) -> int | None:
        """Of a file that could be fetched; None of all else, and of what need not be."""


K = TypeVar("K", bound=Hashable)


@dataclass(eq=False, slots=True)
class _Walk:
    """One directory. Invariant: what is there and unread, or on its way and not opened meanwhile,
    is counted in Ahead.unread_bytes.
    """

    recent: list[bytes] = field(default_factory=list)  # the last opens of what was not fetched
    seen: set[bytes] = field(default_factory=set)  # all of them, while no order is known
    opens: int = 0  # as many, and one that comes again
    next_look: int = _IN_ORDER  # so many, and the orders are looked at
    kind: Order | None = None  # None: any
    order: Sequence[bytes] = ()  # empty: not known
    planned: int = 0  # what is before this in the order was fetched, or was not worth it
    window: int = FIRST
    batch: int = 0  # files in the last one
    strays: int = 0  # opens of others since it came
    fetch: Fetch[Any] | None = None  # the one on its way
    coming: dict[bytes, int] = field(default_factory=dict)
    unread: dict[bytes, int] = field(default_factory=dict)
    last: int = 0  # when something was opened in it: opens in all directories

    @property
    def is_unused(self) -> bool:
        """Most of what was fetched was not opened."""
        return len(self.unread) * 2 > self.batch

    @property
    def is_wasted(self) -> bool:
        """As many others were opened as were fetched, and most of these were not."""
        return 0 < self.batch <= self.strays and self.is_unused

    @property
    def is_low(self) -> bool:
        return bool(self.order) and not (self.fetch or self.is_unused)

    @property
    def is_done(self) -> bool:
        at_end = bool(self.order) and self.planned >= len(self.order)
        return at_end and not (self.fetch or self.unread)

    def follow(self, kind: Order | None, order: Sequence[bytes], start: int, window: int) -> None:
        """From now on windows come out of this order."""
        self.kind, self.order, self.planned, self.window = kind, order, start, window
        self.batch = self.strays = 0
        self.seen.clear()

    def reset(self, next_look: int) -> None:
        """No order is known."""
        self.follow(None, (), 0, FIRST)
        self.recent.clear()
        self.opens, self.next_look = 0, next_look


@dataclass(frozen=True, eq=False, slots=True)
class Fetch(Generic[K]):
    """What is to be fetched now, in this order."""

    key: K
    names: Sequence[bytes]
    is_longest: bool  # the next one would not be twice as long


class Ahead(Generic[K]):
    """The walks through directories, each known by a key. `drop` is told of files that were fetched
    and that nobody is going to open after all.
    """

    def __init__(self, drop: Callable[[K, bytes], None]) -> None:
        self._drop = drop
        self._walks: OrderedDict[K, _Walk] = OrderedDict()  # the one opened in last is at the end
        self._opens = 0
        self._vain = 0  # windows that were given up, one after the other
        self._in_row = 0  # directories that were walked to their end, one after the other
        self._usual = (Order.LISTING, FIRST)  # how the last one was, and its last window
        self.unread_bytes = 0

    def __len__(self) -> int:
        return len(self._walks)

    def expects(self, key: K, name: bytes) -> bool:
        """Whether it was fetched, or is on its way, and was not opened since."""
        walk = self._walks.get(key)
        return walk is not None and (name in walk.unread or name in walk.coming)

    def opened(self, key: K, name: bytes, directory: Directory) -> Fetch[K] | None:
        """Take note of an open, before the file is fetched for it. What comes of a fetch is to be
        told: `came` or `failed`.
        """
        walk = self._walks.get(key)
        size = walk.unread.pop(name, None) if walk is not None else None
        if walk is not None and size is None:
            size = walk.coming.pop(name, None)
        if size is None and directory.size(name) is None:
            return None  # it tells nothing
        walk = self._touch(key)
        if size is not None:
            self.unread_bytes -= size
        else:
            self._stray(key, walk, name, directory)
        found = self._next(key, walk, directory) if walk.is_low else None
        if walk.is_done:
            self._finish(walk)
        return found

    def came(self, fetch: Fetch[K], sizes: Mapping[bytes, int]) -> None:
        """These of its files are there; who is missing will not come."""
        walk = self._walks.get(fetch.key)
        if walk is None or walk.fetch is not fetch:  # it has been given up
            for name in sizes:
                self._drop(fetch.key, name)
            return
        coming, walk.coming, walk.fetch, walk.strays = walk.coming, {}, None, 0
        there = {name: sizes[name] for name in coming if name in sizes}
        walk.unread |= there
        self.unread_bytes += sum(there.values()) - sum(coming.values())
        if not sizes:
            self._give_up(fetch.key, walk)
        elif fetch.is_longest and len(coming) * 2 < len(fetch.names):
            self._in_row = 0
            self._let_go(fetch.key, walk)
            walk.reset(_TOO_LATE)
        elif walk.is_done:
            self._finish(walk)

    def failed(self, fetch: Fetch[K]) -> None:
        """They cannot be fetched."""
        self.came(fetch, {})

    def forget(self, key: K) -> None:
        """The directory is gone, or of no interest any more."""
        walk = self._walks.pop(key, None)
        if walk is not None:
            self._let_go(key, walk)

    # -- inner ------------------------------------------------------------------------------------
    @property
    def _next_look(self) -> int:
        return int(_IN_ORDER * _DEARER**self._vain)

    def _touch(self, key: K) -> _Walk:
        walk = self._walks.get(key)
        if walk is None:
            if len(self._walks) >= _DIRECTORIES:
                self.forget(next(iter(self._walks)))
            walk = self._walks[key] = _Walk(next_look=self._next_look)
        self._walks.move_to_end(key)
        self._opens += 1
        walk.last = self._opens
        return walk

    def _stray(self, key: K, walk: _Walk, name: bytes, directory: Directory) -> None:
        """An open of what was not fetched: it may begin a walk, or show that one is over."""
        walk.strays += 1
        walk.opens += 1
        walk.recent = [*walk.recent[1 - _IN_ORDER :], name]
        if walk.is_wasted:
            self._give_up(key, walk)
        elif not walk.order:
            if len(walk.seen) < _SMALL_NAMES:
                walk.seen.add(name)
            self._look(walk, directory)
        elif not walk.fetch:
            self._go_on_at(key, walk, name)

    def _look(self, walk: _Walk, directory: Directory) -> None:
        """Whether the opens follow an order, now and then."""
        if walk.opens == 1 and self._in_row >= _TRUSTED:
            kind, window = self._usual
            order = directory.names(kind)
            if _is_first(order, walk.recent[-1], directory):
                walk.follow(kind, order, 0, window)
        elif walk.opens >= walk.next_look:
            walk.next_look *= 2
            found = _best(walk.recent, directory)
            if found is not None:
                walk.follow(*found, FIRST)
            elif left := _left(walk.seen, directory):
                walk.follow(None, left, 0, MOST)

    def _go_on_at(self, key: K, walk: _Walk, name: bytes) -> None:
        """The reader has overtaken the windows, or is somewhere else in the order by now."""
        near = walk.order[walk.planned : walk.planned + _GAP]
        if name in near:
            walk.planned += near.index(name) + 1
        elif walk.kind is not None and walk.strays in _LOOKS:
            found = _following(walk.order, walk.recent)
            if found is not None:
                self._jump(key, walk, found.behind)

    def _jump(self, key: K, walk: _Walk, to: int) -> None:
        """Once a window may be left unread for it: who jumps again and again would leave all."""
        if walk.unread and walk.is_unused:
            if self._vain:
                self._give_up(key, walk)
                return
            self._vain = 1
        walk.planned = to
        if walk.unread:
            self._let_go(key, walk)
            walk.window, walk.batch = FIRST, 0

    def _next(self, key: K, walk: _Walk, directory: Directory) -> Fetch[K] | None:
        """The next window. None if there is no room for it now, or nothing left in it."""
        wanted: dict[bytes, int] = {}
        at, size = walk.planned, 0
        end = min(len(walk.order), at + _SEARCHED * walk.window)
        while at < end and len(wanted) < walk.window:
            name = walk.order[at]
            length = directory.size(name)
            if length is not None and not (name in walk.unread or name in walk.recent):
                if size + length > BATCH_BYTES:
                    break
                wanted[name] = length
                size += length
            at += 1
        if not self._has_room(key, size):
            return None
        walk.planned = at
        if walk.batch:  # half of it was opened
            self._vain = 0
        if not wanted:
            return None
        walk.coming, walk.batch = wanted, len(wanted)
        walk.window = min(2 * walk.window, MOST)
        walk.fetch = Fetch(key, tuple(wanted), 2 * size > BATCH_BYTES or len(wanted) == MOST)
        self.unread_bytes += size
        return walk.fetch

    def _has_room(self, key: K, size: int) -> bool:
        """Whether so much more may be unread. Walks that have ended early give way."""
        for other, walk in list(self._walks.items()):
            if self.unread_bytes + size <= UNREAD_BYTES or self._opens - walk.last < _ENDED:
                break
            if other != key:
                self.forget(other)
        return self.unread_bytes + size <= UNREAD_BYTES

    def _finish(self, walk: _Walk) -> None:
        """All that was fetched has been opened, and there is no more."""
        if walk.batch and walk.kind is not None:
            self._in_row += 1
            self._usual = walk.kind, walk.window
        walk.reset(self._next_look)

    def _give_up(self, key: K, walk: _Walk) -> None:
        self._in_row = 0
        self._vain = min(self._vain + 1, _MOST_VAIN)
        self._let_go(key, walk)
        walk.reset(self._next_look)

    def _let_go(self, key: K, walk: _Walk) -> None:
        """What was fetched is not counted any more, nor what is still to come."""
        self.unread_bytes -= sum(walk.unread.values()) + sum(walk.coming.values())
        for name in walk.unread:
            self._drop(key, name)
        walk.unread.clear()
        walk.coming.clear()
        walk.fetch = None


class _Place(NamedTuple):
    """Where opens are in an order: behind the last one, and how many names from the first to it."""

    behind: int
    span: int


def _best(
    opens: Sequence[bytes], directory: Directory
) -> tuple[Order, Sequence[bytes], int] | None:
    """The order that they follow most closely, and where to go on in it."""
    best, least = None, sys.maxsize
    for kind in Order:
        order = directory.names(kind)
        found = _following(order, opens)
        if found is not None and found.span < least:
            best, least = (kind, order, found.behind), found.span
        if least == _IN_ORDER:
            break
    return best


def _following(order: Sequence[bytes], opens: Sequence[bytes]) -> _Place | None:
    """None if they are not in it, or in another order."""
    if len(opens) < _IN_ORDER or opens[-1] not in order:
        return None
    at = last = order.index(opens[-1])
    for name in reversed(opens[:-1]):
        before = order[max(0, at - _GAP) : at]
        if name not in before:
            return None
        at -= len(before) - before.index(name)
    return _Place(last + 1, last + 1 - at)


def _is_first(order: Sequence[bytes], name: bytes, directory: Directory) -> bool:
    """Whether it is the first that could be fetched."""
    for each in order[:_GAP]:
        if each == name or directory.size(each) is not None:
            return each == name
    return False


def _left(seen: Set[bytes], directory: Directory) -> Sequence[bytes]:
    """What else could be fetched in a small directory; empty where that is much, compared with what
    was opened.
    """
    most = _SHARE * len(seen)
    names = directory.names(Order.LISTING)
    if len(seen) < _DISTINCT or len(names) > min(2 * most, _SMALL_NAMES):
        return ()
    left, size = [], 0
    for name in names:
        length = directory.size(name) if name not in seen else None
        if length is not None:
            left.append(name)
            size += length
            if len(left) > most or size > _SMALL_BYTES:
                return ()
    return left

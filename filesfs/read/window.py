"""Which ranges of a file to fetch next, from the reads seen so far. Pure: no I/O, no clock, no
cache.

It must not know what is cached or in flight: the stream leaves out what it has already.

A handle's reads are sorted into a few *runs*, each a region read more or less in order. The
kernel's readahead asks slightly out of order, and several threads may read one handle in several
places, so a read joins a run when it comes near its head or its tail; anything else begins a run of
its own. Only a run that moved forward and is dense earns a growing window; a random read fetches
its grains and nothing more, unless the file fits into the cache and so many came that they have
cost what the blocks of a region would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from filesfs.read.pace import Pace

KIB = 1024
MIB = 1024 * KIB

GRAIN = 4 * KIB  # the kernel's page: whoever reads at random gets what it asks for and no more
FIRST = 128 * KIB  # the kernel's own readahead unless raised: less would only add requests
WHOLE = 256 * KIB  # files up to this size come in one request when read from their beginning
BLOCK = MIB  # longer ranges end on a block of the cache
LARGEST = 8 * MIB  # longer ranges cost no less
# Bytes of a run that are on their way: with fewer, the next range is asked for, so that the server
# has it ready by the time they have arrived. Runs share it: what arrives side by side is all late.
ENOUGH = LARGEST
AHEAD = ENOUGH + LARGEST

# Reads at random in a file that the cache can hold: each costs a request, which is as long on its
# way as a quarter of PIECE takes. So many are paid for in an AREA; then the REGION of each next one
# is fetched, the PIECE that is read in first and the others ahead.
AREA = 64 * MIB
REGION = 16 * MIB
PIECE = 4 * MIB
RENTED = 4
# Over a thin line a piece takes longer than CHEAP such requests do: then it has to be paid for in
# full. How long it takes there shows at the first purchase, which is one block.
CHEAP = 64
# A region that was fetched and is missing again has not stayed in the cache, where other files are
# read as well: the next time it costs several times as many reads, and so on, or each read that
# finds nothing would fetch it all.
DEARER = 16

_RUNS = 4  # places that one handle is read in at a time; who reads in more gets no readahead
# How far out of order a read may come and still belong to a run: no more than the run has shown
# itself to be long, at least two of the kernel's requests, at most two of the readaheads that a
# mount sets, which come in any order where threads share a descriptor.
_LEAST_SLACK = 256 * KIB
_MOST_SLACK = 8 * MIB


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes from `start` up to and without `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class _Run:
    """A region that is read in order. Invariant: start < head, head - start >= read bytes."""

    start: int
    head: int  # where the run goes on: the highest end seen
    read: int  # bytes asked for in the region, at most its span
    first_end: int
    planned: int  # what lies below is fetched or on its way
    step: int = FIRST  # length of the next range ahead
    backward: int = 0  # reads in a row that went down

    @property
    def slack(self) -> int:
        return max(_LEAST_SLACK, min(self.read, _MOST_SLACK))

    @property
    def forward(self) -> bool:
        """Moved on since its first read, not turned round, and dense: half of it was wanted."""
        moved = self.head > self.first_end and not self.backward
        return moved and self.read * 2 >= self.head - self.start

    def is_near(self, start: int, end: int) -> bool:
        slack = self.slack
        at_head = self.head - slack <= start <= self.head + slack
        at_tail = self.start - slack <= end <= self.start + slack
        return at_head or at_tail

    def extend(self, start: int, end: int) -> None:
        if self.head == self.first_end:  # who asks for much at a time does so on a fast way
            self.step = max(self.step, min(2 * (end - start), LARGEST))
        if end <= self.start:
            self.backward += 1
        elif end > self.head:
            self.backward = 0
        self.start = min(self.start, start)
        self.head = max(self.head, end)
        self.read = min(self.read + end - start, self.head - self.start)


@dataclass(slots=True)
class ReadWindow:
    """The reads of one handle on a file of `size` bytes. Offsets below are within the file.

    `fits`: the cache can hold all of it.
    """

    size: int
    fits: bool = False
    pace: Pace | None = None  # None: as fast as a server on this machine
    _runs: list[_Run] = field(default_factory=list)  # the one read last comes first
    _apart: bool = False  # the read seen last began a run
    _rented: dict[int, int] = field(default_factory=dict)  # reads at random by area
    _random: dict[int, int] = field(default_factory=dict)  # by region, since it was fetched
    _price: dict[int, int] = field(default_factory=dict)  # by region that was fetched before
    _bought: list[Range] = field(default_factory=list)  # to be fetched ahead

    def observe(self, start: int, end: int) -> Range | None:
        """Take note of a read. Answers what was planned for a run that is given up, if any."""
        self._apart = False
        near = [run for run in self._runs if run.is_near(start, end)]
        if near:  # of several, the one that it goes on; behind that begins what another has read
            run = min(near, key=lambda run: abs(run.head - start))
            run.extend(start, end)
            if run is not self._runs[0]:
                self._runs.remove(run)
                self._runs.insert(0, run)
            return None
        self._apart = True
        self._runs.insert(0, _Run(start, end, end - start, end, end))
        if len(self._runs) <= _RUNS:
            return None
        lost = self._runs.pop()
        return Range(lost.head, lost.planned) if lost.planned > lost.head else None

    def demand(self, start: int, end: int) -> Range:
        """What to fetch for a read, just observed, that found nothing: aligned, all of it."""
        run = self._runs[0]
        low, high = _floor(start, GRAIN), _ceil(end, GRAIN)
        if run.backward >= 2:
            low = min(low, _floor(max(0, end - min(BLOCK, GRAIN << run.backward)), GRAIN))
        elif run.forward:
            high = max(high, min(low + run.step, _floor(low, BLOCK) + BLOCK))
        elif start == 0:
            high = max(high, self.size if self.size <= WHOLE else FIRST)
        elif self.fits:
            bought = self._buy(low)
            low, high = min(low, bought.start), max(high, bought.end)
        high = min(high, self.size)
        if start <= run.head <= high:
            run.planned = max(run.planned, high)
        return Range(low, high)

    def _buy(self, low: int) -> Range:
        """What reads at random have paid for around this one; itself at least."""
        rent = self._rent()
        if not self._has_paid(low // REGION, rent or RENTED):
            return Range(low, low)
        if rent is None:
            del self._price[low // REGION]
            return Range(_floor(low, BLOCK), _floor(low, BLOCK) + BLOCK)
        self._bought = self._pieces(low // REGION)
        return Range(_floor(low, PIECE), _floor(low, PIECE) + PIECE)

    def _rent(self) -> int | None:
        """How many reads pay for a piece. None: nobody knows yet."""
        cost = self.pace.small_ones(PIECE) if self.pace is not None else 0.0
        if cost is None:
            return None
        return RENTED if cost <= CHEAP else int(cost)

    def _has_paid(self, region: int, rent: int) -> bool:
        again = self._price.get(region)
        where, paid = (self._random, region) if again else (self._rented, region * REGION // AREA)
        price = again or rent
        reads = where.get(paid, 0)
        if reads < price:
            where[paid] = reads + self._apart
            return False
        self._random[region], self._price[region] = 0, price * DEARER
        return True

    def _pieces(self, region: int) -> list[Range]:
        start, end = region * REGION, min(self.size, (region + 1) * REGION)
        return [Range(low, min(low + PIECE, end)) for low in range(start, end, PIECE)]

    @property
    def forward(self) -> bool:
        """Whether the read observed last goes on in order."""
        return self._runs[0].forward

    def ahead(self, coming: Sequence[Range] = (), limit: int = AHEAD) -> list[Range]:
        """What to fetch beyond the run that was read last. `coming`: what is on its way, of all
        runs.

        `limit`: bytes that may lie ahead of the reader. Never more than twice of what the run has
        read, so that a reader who stops early has cost a bounded share. Ranges are full steps: no
        dribble of small ones.
        """
        if self._bought:
            bought, self._bought = self._bought, []
            return bought
        run = self._runs[0]
        if not run.forward:
            return []
        most = min(limit, 2 * run.read)
        last = self._next_run(run)
        reach = min(last, run.head + most)
        planned = max(run.planned, run.head)
        enough = min(ENOUGH, limit // 2) // max(1, sum(each.forward for each in self._runs))
        missing = sum(part.length for part in coming if run.start <= part.start < planned)
        ranges: list[Range] = []
        while planned < reach and missing <= enough:
            step = min(run.step, max(FIRST, limit // 2))
            if planned + step > reach and reach < last:
                break
            end = min(self._range_end(planned, step), last)
            ranges.append(Range(planned, end))
            missing += end - planned
            planned = end
            run.step = min(2 * run.step, LARGEST)
        run.planned = max(run.planned, planned)
        return ranges

    def _next_run(self, run: _Run) -> int:
        """Where another run began, in front of this one: the kernel has what was read there. Else
        the end of the file.
        """
        begun = (other.start for other in self._runs if other.forward and other.start >= run.head)
        return min(begun, default=self.size)

    def restart(self) -> None:
        """A fetch failed: the window begins small again, and may plan the same once more."""
        for run in self._runs:
            run.step = FIRST
            run.planned = run.head

    def _range_end(self, start: int, step: int) -> int:
        end = start + step
        end = _floor(end, BLOCK) if step >= BLOCK else _ceil(end, GRAIN)
        return min(max(end, start + 1), self.size)


def _floor(offset: int, grain: int) -> int:
    return offset - offset % grain


def _ceil(offset: int, grain: int) -> int:
    return -(-offset // grain) * grain

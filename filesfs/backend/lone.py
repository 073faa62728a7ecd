"""When the answer to a request is waited for without the scheduler: nothing else is to be done
meanwhile, and it will be there soon.

A program that renames or creates one file after the other has one request on its way at a time.
To wait for its answer through trio takes two changes of tasks and five system calls, since whoever
waits for the kernel's next request is made to wait anew. So the thread itself sleeps until the
answer is there or the kernel asks for something, for MOST_MS at most, and only while answers mostly
come sooner than that. It must not spin: the server may be on this machine, and need the core.

Other tasks wait as long: those with something to do that is neither the kernel's nor this answer.
"""

from __future__ import annotations

from time import perf_counter_ns

MOST_MS = 1
_SOON_NS = MOST_MS * 1_000_000
_LIKE_LAST = 8  # the usual time moves by this part towards the latest
_MOST_IN_A_ROW = 8  # then other tasks get their turn, whatever they are


class Lone:
    """Owner of what is known of the requests to one server: how many are on their way, and how long
    answers take.
    """

    def __init__(self) -> None:
        self.under_way = 0
        # Of the kernel's requests, which must not wait; without it nobody waits this way.
        self.kernel: int | None = None
        self._usual_ns = 0
        self._in_a_row = 0

    def take_turn(self) -> bool:
        """Whether the answer to the request that is about to leave is waited for this way."""
        if self.under_way > 1 or self._usual_ns > _SOON_NS:
            return False
        self._in_a_row = (self._in_a_row + 1) % (_MOST_IN_A_ROW + 1)
        return self._in_a_row > 0

    def answered(self, since_ns: int) -> None:
        """An answer came to a small request that left at `since_ns` of perf_counter_ns()."""
        self._usual_ns += (perf_counter_ns() - since_ns - self._usual_ns) // _LIKE_LAST

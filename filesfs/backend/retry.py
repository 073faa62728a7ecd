"""When a request is tried again: the policy (pure), and the one loop that follows it.

It must not know HTTP: what is worth another try is `Unavailable`, and nothing else is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from filesfs.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter. All values are seconds.

    The first pause is short, since most trouble is one broken connection; the longest is short
    against the deadline, so that a server that comes back is noticed.
    """

    timeout: float = 30.0
    first: float = 0.05
    longest: float = 2.0

    def pause(self, attempt: int, chance: float, retry_after: float | None) -> float:
        """The pause behind the failed `attempt` (from 1). `chance`: 0 to 1, the jitter."""
        ceiling = min(self.longest, self.first * 2.0 ** min(attempt - 1, 20))
        backoff = ceiling * (0.5 + chance / 2)
        return backoff if retry_after is None else max(retry_after, backoff)

    def gives_up(self, now: float, deadline: float, pause: float) -> bool:
        """Whether no try that begins after `pause` could end before the deadline."""
        return now + pause >= deadline


class Tries:
    """What became of the tries of one operation.

    `lost`: some try may have had its effect although no answer came; only then is a surprising
    answer to a later try looked at twice.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lost = False

    def note(self, error: Unavailable) -> None:
        self.lost = self.lost or error.sent


async def repeat(
    policy: RetryPolicy,
    attempt: Callable[[], Awaitable[T]],
    tries: Tries | None = None,
    progress: Callable[[], float] | None = None,
) -> T:
    """Call `attempt` until it does not raise Unavailable, or the deadline is reached.

    `progress`: when (trio time) something last moved, which puts the deadline off: for uploads it
    is the stall that counts. Raises DeadlineExceeded with the last error as its cause.
    """
    tries = tries if tries is not None else Tries()
    start = trio.current_time()
    while True:
        tries.count += 1
        try:
            return await attempt()
        except Unavailable as error:
            tries.note(error)
            since = max(start, progress()) if progress is not None else start
            pause = policy.pause(tries.count, random.random(), error.retry_after)
            if policy.gives_up(trio.current_time(), since + policy.timeout, pause):
                raise DeadlineExceeded(
                    f"No answer within {policy.timeout:g} s, tries: {tries.count}. Last: {error}",
                    sent=tries.lost,
                ) from error
            await trio.sleep(pause)

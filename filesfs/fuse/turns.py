"""Whose turn it is to wait for the kernel's next request.

pyfuse3's workers take turns with a trio.Lock: each passes it on before it handles what it received,
which costs two switches of tasks a request. Most requests are answered without waiting for anything
(lookups and attributes that are known, writes into memory), so here a worker keeps its turn, and
passes it on when its request does have to wait, or when it ends. And it looks whether the next
request is there before it has the scheduler wait for it. It must not know what a request asks for.

pyfuse3 looks trio up in its own module, so that its asyncio variant can stand in for it; that is
where the lock, the nursery and the waiting are replaced.
"""

from __future__ import annotations

import select
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import Any, TypeVar

import pyfuse3
import trio

T = TypeVar("T")

# Requests handled before other tasks get their turn: answers of the server must not wait for long.
_MOST_IN_A_ROW = 8

# A program that writes or looks up piece by piece asks again as soon as it has its answer. After
# _STREAM requests like that, each within _SOON_NS, the next one is awaited without sleep, for
# _SPIN_NS at most: to be woken costs more. One that comes late takes back _LAG of them; and while
# others wait for answers of the server, these come first.
_STREAM = 16
_LAG = 8
_SOON_NS = 150_000
_SPIN_NS = 50_000
_MOST_IN_A_STREAM = 16  # others get their turn without sleep then


class Turn:
    """The lock. Invariant: whoever waits is woken by the owner, which passes the turn on before it
    waits for anything but the kernel, and at its end.
    """

    def __init__(self) -> None:
        self._owner: trio.lowlevel.Task | None = None
        self._waiting: deque[trio.lowlevel.Task] = deque()
        self.away = 0  # requests whose work waits for something

    async def __aenter__(self) -> None:
        task = trio.lowlevel.current_task()
        if self._owner is None:
            self._owner = task
        elif self._owner is not task:
            await self._wait(task)

    async def __aexit__(self, *error: object) -> None:
        """Keep it: `pass_on` comes."""

    async def _wait(self, task: trio.lowlevel.Task) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)

    def pass_on(self) -> None:
        """If the running task has the turn, the next one gets it."""
        if self._owner is None or self._owner is not trio.lowlevel.current_task():
            return
        self._owner = self._waiting.popleft() if self._waiting else None
        if self._owner is not None:
            trio.lowlevel.reschedule(self._owner)

    @types.coroutine
    def run(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await `work`, and pass the turn on once it has to wait."""
        try:
            trap = work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        self.pass_on()
        self.away += 1
        try:
            while True:
                try:
                    answer = yield trap
                except BaseException as error:
                    trap = work.throw(error)
                else:
                    trap = work.send(answer)
        except StopIteration as done:
            late: T = done.value
            return late
        finally:
            self.away -= 1


turn = Turn()  # one for the process, as pyfuse3's own state is


async def _is_surprised(worker: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> bool:
    """Run a worker; whether it found no request where one had been told of, and is to go on: who
    had asked was killed meanwhile, and took its request along. pyfuse3 would end the mount.
    """
    try:
        await worker(*args)
    except BlockingIOError:
        return True
    return False


class _Nursery:
    """Starts pyfuse3's workers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(
        self, worker: Callable[..., Awaitable[None]], *args: object, name: object = None
    ) -> None:
        self._nursery.start_soon(self._run, worker, args, name=name)

    async def _run(self, worker: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        try:
            while await _is_surprised(worker, args):
                pass
        finally:
            turn.pass_on()


class Readable:
    """Waits for a descriptor, without yielding while there is something to read already. `ended` is
    told once it is the kernel's word that the mount is gone; `opening` is called before each wait
    until it says that it is over; `known` is told the descriptor; `came` is told of each request,
    how many nanoseconds it was waited for.
    """

    def __init__(
        self,
        ended: Callable[[], None],
        opening: Callable[[], bool] | None = None,
        known: Callable[[int], None] = lambda descriptor: None,
        came: Callable[[int], None] = lambda after_ns: None,
    ) -> None:
        self._ended = ended
        self._opening = opening
        self._told = known
        self._came = came
        self._poll = select.poll()
        self._known: int | None = None
        self._in_a_row = 0
        self._soon = 0  # requests in a row that came soon after this began to wait

    async def wait(self, descriptor: int) -> None:
        if self._opening is not None and self._opening():
            self._opening = None
        if descriptor != self._known:
            self._poll.register(descriptor, select.POLLIN)
            self._known = descriptor
            self._told(descriptor)
        began = perf_counter_ns()
        stream = self._soon >= _STREAM and not turn.away
        events: list[tuple[int, int]] = []
        if stream and self._in_a_row >= _MOST_IN_A_STREAM:
            await trio.lowlevel.checkpoint()
            self._in_a_row = 0
        if self._in_a_row < (_MOST_IN_A_STREAM if stream else _MOST_IN_A_ROW):
            events = self._poll.poll(0)
            if stream and not events:
                events = self._spin(began + _SPIN_NS)
        if events:
            self._in_a_row += 1
        else:
            self._in_a_row = 0
            await trio.lowlevel.wait_readable(descriptor)
            events = self._poll.poll(0)
        after = perf_counter_ns() - began
        self._came(after)
        if after >= _SOON_NS:
            self._soon = max(self._soon - _LAG, 0)
        elif self._soon < _STREAM + _LAG:
            self._soon += 1
        if events and events[0][1] & select.POLLERR:
            self._ended()

    def _spin(self, until: int) -> list[tuple[int, int]]:
        poll = self._poll.poll
        while not (events := poll(0)) and perf_counter_ns() < until:
            pass
        return events


class _Lowlevel:
    """trio.lowlevel as pyfuse3 sees it."""

    def __init__(self, readable: Readable) -> None:
        self.wait_readable = readable.wait

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)


class _Trio:
    """trio as pyfuse3 sees it."""

    def __init__(self, readable: Readable) -> None:
        self.lowlevel = _Lowlevel(readable)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def Lock(self) -> Turn:  # noqa: N802  # trio's name
        return turn

    @asynccontextmanager
    async def open_nursery(self) -> AsyncIterator[_Nursery]:
        async with trio.open_nursery() as nursery:
            yield _Nursery(nursery)


async def serve(max_tasks: int, readable: Readable) -> None:
    """pyfuse3.main: handle requests, up to `max_tasks` at a time, until the mount ends and those
    that run are done. `readable.ended` is told when only the latter is left.
    """
    pyfuse3.trio = _Trio(readable)  # type: ignore[attr-defined]  # its annotations leave it out
    await pyfuse3.main(max_tasks=max_tasks)

"""A turn is kept by who need not wait, passed on by who must, and never lost."""

from __future__ import annotations

import os
import select

import pytest
import trio
import trio.testing

from filesfs.fuse import turns
from filesfs.fuse.turns import Readable, Turn

pytestmark = pytest.mark.trio


class Workers:
    """Workers as pyfuse3 has them: take the turn, receive a request, handle it; noted in `log`."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.log: list[str] = []

    async def work(self, name: str, *handlers: trio.Event | None) -> None:
        try:
            for handler in handlers:
                async with self.turn:
                    self.log.append(f"{name} receives")
                await self.turn.run(self.handle(name, handler))
        finally:
            self.turn.pass_on()

    async def handle(self, name: str, until: trio.Event | None) -> str:
        if until is not None:
            await until.wait()
        self.log.append(f"{name} answers")
        return name


async def test_who_need_not_wait_keeps_the_turn() -> None:
    workers = Workers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.work, "a", None, None)
        await trio.testing.wait_all_tasks_blocked()
    assert workers.log == ["a receives", "a answers", "a receives", "a answers"]


async def test_who_waits_passes_it_on_and_queues_again() -> None:
    workers, first = Workers(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.work, "a", first, None)
        await trio.testing.wait_all_tasks_blocked()
        second = trio.Event()
        nursery.start_soon(workers.work, "b", second)
        await trio.testing.wait_all_tasks_blocked()
        assert workers.log == ["a receives", "b receives"]
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        second.set()
    assert workers.log[2:] == ["a answers", "a receives", "a answers", "b answers"]


async def test_the_end_of_a_worker_passes_it_on() -> None:
    workers = Workers()
    async with workers.turn, trio.open_nursery() as nursery:
        nursery.start_soon(workers.work, "a", None)
        nursery.start_soon(workers.work, "b", None)
        await trio.testing.wait_all_tasks_blocked()
        assert workers.log == []
        workers.turn.pass_on()
    assert sorted(workers.log) == ["a answers", "a receives", "b answers", "b receives"]


async def test_a_cancelled_worker_does_not_get_it() -> None:
    workers = Workers()
    async with workers.turn, trio.open_nursery() as nursery:
        async with trio.open_nursery() as given_up:
            given_up.start_soon(workers.work, "a", None)
            await trio.testing.wait_all_tasks_blocked()
            given_up.cancel_scope.cancel()
        nursery.start_soon(workers.work, "b", None)
        await trio.testing.wait_all_tasks_blocked()
        workers.turn.pass_on()
    assert workers.log == ["b receives", "b answers"]


async def test_errors_and_cancellation_reach_the_work() -> None:
    workers = Workers()
    with trio.move_on_after(0) as scope:
        await workers.turn.run(workers.handle("a", trio.Event()))
    assert scope.cancelled_caught
    assert workers.log == []


async def test_what_can_be_read_is_read_at_once_but_others_get_their_turn() -> None:
    reader, writer = os.pipe()
    log: list[str] = []

    async def other() -> None:
        log.append("other")

    try:
        readable = Readable(lambda: None)
        os.write(writer, b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await readable.wait(reader)
            assert log == []
            for _ in range(60):  # two turns of the others, who come in any order
                await readable.wait(reader)
            assert log == ["other"]
        os.read(reader, 1)
        with trio.move_on_after(0) as scope:
            await readable.wait(reader)
        assert scope.cancelled_caught
    finally:
        os.close(reader)
        os.close(writer)


class Stream:
    """The kernel's requests by a clock of the test's own, which each look takes 5 us of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.comes = 0, 20_000
        self.slept = self.others = 0
        self.readable = Readable(lambda: None)
        self.readable._poll = self  # type: ignore[assignment]
        monkeypatch.setattr(turns, "perf_counter_ns", self._clock)
        monkeypatch.setattr(trio.lowlevel, "checkpoint", self._checkpoint)
        monkeypatch.setattr(trio.lowlevel, "wait_readable", self._sleep)

    def _clock(self) -> int:
        self.now += 5_000
        return self.now

    async def _checkpoint(self) -> None:
        self.others += 1

    async def _sleep(self, descriptor: int) -> None:
        self.slept += 1
        self.now = self.comes

    def register(self, descriptor: int, events: int) -> None: ...

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        return [(0, select.POLLIN)] if self.now >= self.comes else []

    async def requests(self, count: int, after_ns: int = 20_000) -> None:
        """So many, each this long after the one before is answered."""
        for _ in range(count):
            self.comes = self.now + after_ns
            await self.readable.wait(0)


async def test_a_stream_of_requests_is_awaited_without_sleep_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Stream(monkeypatch)
    await stream.requests(16)
    assert (stream.slept, stream.others) == (16, 0)
    await stream.requests(33)
    assert (stream.slept, stream.others) == (16, 2)
    await stream.requests(3, after_ns=1_000_000)  # it has ended: two are awaited in vain
    begun = stream.now
    await stream.requests(1, after_ns=1_000_000)
    assert stream.slept == 20
    assert stream.now - begun - 1_000_000 < 50_000


async def test_while_a_request_waits_for_the_server_nobody_spins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Stream(monkeypatch)
    await stream.requests(20)
    assert stream.slept == 16
    monkeypatch.setattr(turns.turn, "away", 1)
    await stream.requests(20)
    assert stream.slept == 36
    monkeypatch.setattr(turns.turn, "away", 0)
    await stream.requests(10)
    assert stream.slept == 36


async def test_the_end_of_the_mount_is_told() -> None:
    reading, writing = os.pipe()
    told: list[str] = []
    try:
        os.close(reading)  # the other end then has POLLERR, as /dev/fuse has without a mount
        with trio.fail_after(5):
            await Readable(lambda: told.append("ended")).wait(writing)
    finally:
        os.close(writing)
    assert told == ["ended"]


async def test_a_request_that_went_with_who_asked_ends_no_worker() -> None:
    runs: list[str] = []

    async def worker(name: str) -> None:
        runs.append(name)
        if len(runs) < 3:
            raise BlockingIOError(11, "fuse_session_receive_buf failed")

    async with trio.open_nursery() as nursery:
        turns._Nursery(nursery).start_soon(worker, "a")
    assert runs == ["a", "a", "a"]


async def test_requests_that_wait_for_an_answer_are_counted() -> None:
    turn, answered = Turn(), trio.Event()

    async def request() -> None:
        await turn.run(answered.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request)
        await trio.testing.wait_all_tasks_blocked()
        assert turn.away == 1
        answered.set()
    assert turn.away == 0

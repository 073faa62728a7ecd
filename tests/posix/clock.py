"""Waiting until a file system's clock has moved on: tmpfs's ticks in milliseconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK_NS = 20_000_000


def tick() -> int:
    """A moment that is surely later than what happened before and earlier than what comes."""
    start = time.time_ns()
    while time.time_ns() < start + _TICK_NS:
        os.sched_yield()
    return start


@contextmanager
def stamped(path: Path, *fields: str, unchanged: tuple[str, ...] = ()) -> Iterator[None]:
    """The block changes these times (mtime, ctime) of the path to now, and leaves those alone."""
    before = path.lstat()
    tick()
    start = time.time_ns()
    yield
    after = path.lstat()
    for field in fields:
        value = getattr(after, f"st_{field}_ns")
        assert value > getattr(before, f"st_{field}_ns"), f"{field} of {path} did not move"
        assert abs(value - start) < 5_000_000_000, f"{field} of {path} is not now"
    for field in unchanged:
        name = f"st_{field}_ns"
        assert getattr(after, name) == getattr(before, name), f"{field} of {path} moved"


@contextmanager
def untouched(*paths: Path) -> Iterator[None]:
    """The block leaves mtime and ctime of the paths alone."""
    before = [(p.lstat().st_mtime_ns, p.lstat().st_ctime_ns) for p in paths]
    tick()
    yield
    assert [(p.lstat().st_mtime_ns, p.lstat().st_ctime_ns) for p in paths] == before


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Poll until it holds; the seconds it took. AssertionError when it does not in time."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.002)
    return time.monotonic() - start

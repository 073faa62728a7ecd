"""What is measured, over any mounted folder: prepared, made cold if it says so, and timed.

It must not know which file system it runs on. Every write ends with what makes it durable there:
fsync or close. Every loop ends after LIMIT seconds, with what was done by then.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MIB = 1 << 20
LIMIT = 3.0
SMALL = os.urandom(4096)

T = TypeVar("T")

Work = Callable[[Path], float]  # runs in a folder, answers how much was done (bytes or operations)


@dataclass(frozen=True)
class Profile:
    """How much is done: bytes of the large file, files of a folder, reads at random."""

    large: int
    files: int
    reads: int

    def __str__(self) -> str:
        return f"{self.large // MIB} MiB, {self.files} files, {self.reads} random reads"


FULL = Profile(256 * MIB, 300, 500)
QUICK = Profile(64 * MIB, 300, 300)


@dataclass(frozen=True)
class Workload:
    """`prepare` is not timed; `cold` asks for a remount and dropped caches between it and `run`."""

    name: str
    unit: str  # "MB/s" or "/s"
    run: Work
    prepare: Callable[[Path], object] = lambda folder: None
    cold: bool = False

    def rate(self, amount: float, seconds: float) -> float:
        return amount / seconds / (1e6 if self.unit == "MB/s" else 1)


class Steps:
    """The workloads themselves, with the sizes of one profile."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def write(self, folder: Path, block: int = MIB) -> float:
        data, done = os.urandom(block), 0
        with open(folder / "large", "wb", buffering=0) as file:
            for _ in _bounded(range(self._profile.large // block)):
                done += file.write(data)
            os.fsync(file.fileno())
        return done

    def read(self, folder: Path) -> float:
        with open(folder / "large", "rb", buffering=0) as file:
            return _read_range(file.fileno(), 0, self._profile.large)

    def read_with_threads(self, folder: Path, threads: int = 4) -> float:
        part = self._profile.large // threads
        with open(folder / "large", "rb") as file, ThreadPoolExecutor(threads) as pool:
            starts = range(0, part * threads, part)
            return sum(pool.map(lambda start: _read_range(file.fileno(), start, part), starts))

    def read_at_random(self, folder: Path) -> float:
        rng, done = random.Random(1), 0
        descriptor = os.open(folder / "large", os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            blocks = max(1, os.fstat(descriptor).st_size // 4096)
            for _ in _bounded(range(self._profile.reads)):
                os.pread(descriptor, 4096, rng.randrange(blocks) * 4096)
                done += 1
        finally:
            os.close(descriptor)
        return done

    def create(self, folder: Path) -> float:
        return _each(self._paths(folder), lambda path: path.write_bytes(SMALL))

    def create_with_threads(self, folder: Path, threads: int = 8) -> float:
        with ThreadPoolExecutor(threads) as pool:
            return sum(1 for _ in pool.map(lambda p: p.write_bytes(SMALL), self._paths(folder)))

    def read_small(self, folder: Path) -> float:
        return _each(self._paths(folder), Path.read_bytes)

    def list_folder(self, folder: Path) -> float:
        with os.scandir(folder) as entries:
            return float(sum(entry.stat(follow_symlinks=False).st_size >= 0 for entry in entries))

    def stat(self, folder: Path, rounds: int = 20) -> float:
        names = [str(path) for path in self._paths(folder)]
        return _each(names * rounds, os.stat)

    def rename(self, folder: Path) -> float:
        return _each(self._paths(folder), lambda path: path.rename(path.with_suffix(".new")))

    def fill_folder(self, folder: Path) -> None:
        (folder / "folder-0").mkdir()
        self.create_with_threads(folder / "folder-0")

    def rename_folder(self, folder: Path) -> float:
        """One directory with files in it, to a new name each time."""
        names = [folder / f"folder-{number}" for number in range(self._profile.files + 1)]
        return _each(itertools.pairwise(names), lambda pair: os.rename(*pair))

    def unlink(self, folder: Path) -> float:
        return _each(self._paths(folder), Path.unlink)

    def _paths(self, folder: Path) -> list[Path]:
        return [folder / f"small-{number}" for number in range(self._profile.files)]


def workloads(profile: Profile) -> tuple[Workload, ...]:
    """The rows of the table, each with its preparation."""
    s, files = Steps(profile), profile.files
    create, large = s.create_with_threads, s.write
    return (
        Workload("sequential write, 1 MiB blocks, fsync", "MB/s", large),
        Workload("sequential write, 4 KiB blocks, fsync", "MB/s", lambda f: s.write(f, 4096)),
        Workload("cold sequential read", "MB/s", s.read, large, cold=True),
        Workload("hot sequential read", "MB/s", s.read, lambda f: (large(f), s.read(f))),
        Workload("cold read from 4 threads", "MB/s", s.read_with_threads, large, cold=True),
        Workload("cold random 4 KiB reads", "/s", s.read_at_random, large, cold=True),
        Workload("create 4 KiB files one by one", "/s", s.create),
        Workload("create 4 KiB files from 8 threads", "/s", create),
        Workload("cold read of 4 KiB files one by one", "/s", s.read_small, create, cold=True),
        Workload(f"cold ls -l of {files}", "/s", s.list_folder, create, cold=True),
        Workload("hot stat", "/s", s.stat, lambda f: (create(f), s.stat(f, 1))),
        Workload("rename of a file", "/s", s.rename, create),
        Workload(f"rename of a directory of {files}", "/s", s.rename_folder, s.fill_folder),
        Workload("unlink", "/s", s.unlink, create),
    )


def _read_range(descriptor: int, start: int, length: int) -> int:
    """Bytes read, from `start` on, in blocks of 1 MiB."""
    done, block = 0, bytearray(MIB)
    for _ in _bounded(range(0, length, MIB)):
        done += os.preadv(descriptor, [block], start + done)
    return done


def _each(things: Iterable[T], work: Callable[[T], object]) -> float:
    done = 0
    for thing in _bounded(things):
        work(thing)
        done += 1
    return done


def _bounded(things: Iterable[T]) -> Iterator[T]:
    end = time.perf_counter() + LIMIT
    for thing in things:
        if time.perf_counter() > end:
            return
        yield thing

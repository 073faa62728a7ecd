"""What is measured, over any mounted folder: prepared, made cold if it says so, and timed.

It must not know which file system it runs on. Every write ends with what makes it durable there:
fsync or close.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
SEQUENTIAL_BYTES = 256 * MIB
SMALL_FILES = 300
SMALL = os.urandom(4096)
RANDOM_READS = 500

Work = Callable[[Path], float]  # runs in a folder, answers how much was done (bytes or operations)


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


def _write(folder: Path, block: int) -> float:
    data = os.urandom(block)
    with open(folder / "large", "wb", buffering=0) as file:
        for _ in range(SEQUENTIAL_BYTES // block):
            file.write(data)
        os.fsync(file.fileno())
    return SEQUENTIAL_BYTES


def _read(folder: Path) -> float:
    done = 0
    with open(folder / "large", "rb", buffering=0) as file:
        while data := file.read(MIB):
            done += len(data)
    return done


def _random_reads(folder: Path) -> float:
    rng = random.Random(1)
    descriptor = os.open(folder / "large", os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(RANDOM_READS):
            os.pread(descriptor, 4096, rng.randrange(SEQUENTIAL_BYTES // 4096) * 4096)
    finally:
        os.close(descriptor)
    return RANDOM_READS


def _small_files(folder: Path) -> list[Path]:
    return [folder / f"small-{number}" for number in range(SMALL_FILES)]


def _create(folder: Path, threads: int = 1) -> float:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda path: path.write_bytes(SMALL), _small_files(folder)):
            pass
    return SMALL_FILES


def _read_small(folder: Path) -> float:
    return float(sum(len(path.read_bytes()) == 4096 for path in _small_files(folder)))


def _list(folder: Path) -> float:
    with os.scandir(folder) as entries:
        return float(sum(entry.stat(follow_symlinks=False).st_size >= 0 for entry in entries))


def _stat(folder: Path, rounds: int = 20) -> float:
    paths = _small_files(folder)
    for _ in range(rounds):
        for path in paths:
            os.stat(path)
    return rounds * SMALL_FILES


def _rename(folder: Path) -> float:
    for path in _small_files(folder):
        path.rename(path.with_name(f"{path.name}.new"))
    return SMALL_FILES


def _unlink(folder: Path) -> float:
    for path in _small_files(folder):
        path.unlink()
    return SMALL_FILES


def _large(folder: Path) -> float:
    return _write(folder, MIB)


WORKLOADS = (
    Workload("sequential write, 1 MiB blocks, fsync", "MB/s", _large),
    Workload("sequential write, 4 KiB blocks, fsync", "MB/s", lambda f: _write(f, 4096)),
    Workload("cold sequential read", "MB/s", _read, _large, cold=True),
    Workload("hot sequential read", "MB/s", _read, lambda f: (_large(f), _read(f))),
    Workload("cold random 4 KiB reads", "/s", _random_reads, _large, cold=True),
    Workload("create 4 KiB files one by one", "/s", _create),
    Workload("create 4 KiB files from 8 threads", "/s", lambda f: _create(f, 8)),
    Workload("cold read of 4 KiB files one by one", "/s", _read_small, _create, cold=True),
    Workload(f"cold ls -l of {SMALL_FILES}", "/s", _list, _create, cold=True),
    Workload("hot stat", "/s", _stat, lambda f: (_create(f), _stat(f, 1))),
    Workload("rename of a file", "/s", _rename, _create),
    Workload("unlink", "/s", _unlink, _create),
)

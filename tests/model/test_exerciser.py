"""A file exerciser: random reads, writes, truncations, mappings and reopenings of one file, against
a bytearray.

MODEL_OPERATIONS makes it longer, MODEL_SEED another walk.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

OPERATIONS = int(os.environ.get("MODEL_OPERATIONS", "1200"))
SEED = int(os.environ.get("MODEL_SEED", "1"))
LARGEST = 300_000
ROUND = 1000  # operations between two remounts, in a long run


class Exerciser:
    """The file under test, open once or twice, and what it must hold."""

    def __init__(self, path: Path, noise: random.Random) -> None:
        self.path = path
        self.noise = noise
        self.model = bytearray()
        self.open_ = [os.open(path, os.O_RDWR | os.O_CREAT, 0o644)]
        self.steps: list[str] = []

    def step(self) -> None:
        operations: list[tuple[int, Callable[[], None]]] = [
            (30, self.read),
            (30, self.write),
            (8, self.append),
            (8, self.truncate),
            (8, self.map_read),
            (8, self.map_write),
            (3, self.sync),
            (6, self.reopen),
            (3, self.second),
            (2, self.truncate_path),
            (1, self.replace),
            (4, self.check),
        ]
        weights = [weight for weight, _ in operations]
        operation = self.noise.choices([call for _, call in operations], weights)[0]
        operation()

    def _note(self, name: str, *values: int) -> None:
        self.steps.append(f"{name}{values}")

    def _descriptor(self) -> int:
        return self.noise.choice(self.open_)

    def _range(self) -> tuple[int, int]:
        start = self.noise.randrange(LARGEST)
        return start, self.noise.randrange(1, self.noise.choice((10, 5000, 70_000)))

    def read(self) -> None:
        start, length = self._range()
        self._note("read", start, length)
        found = os.pread(self._descriptor(), length, start)
        assert found == self.model[start : start + length], self.steps[-40:]

    def write(self) -> None:
        start, length = self._range()
        self._note("write", start, length)
        data = self.noise.randbytes(length)
        assert os.pwrite(self._descriptor(), data, start) == length
        self._put(start, data)

    def _put(self, start: int, data: bytes) -> None:
        if start > len(self.model):
            self.model.extend(bytes(start - len(self.model)))
        self.model[start : start + len(data)] = data

    def append(self) -> None:
        data = self.noise.randbytes(self.noise.randrange(1, 3000))
        if len(self.model) + len(data) > 2 * LARGEST:
            return
        self._note("append", len(data))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, data)
        os.close(descriptor)
        self._put(len(self.model), data)

    def truncate(self) -> None:
        size = self.noise.randrange(LARGEST)
        self._note("truncate", size)
        os.ftruncate(self._descriptor(), size)
        self._resize(size)

    def truncate_path(self) -> None:
        size = self.noise.choice((0, self.noise.randrange(LARGEST)))
        self._note("truncate_path", size)
        os.truncate(self.path, size)
        self._resize(size)

    def _resize(self, size: int) -> None:
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def map_read(self) -> None:
        if not self.model:
            return
        start, length = self._range()
        self._note("map_read", start, length)
        with mmap.mmap(self._descriptor(), 0, access=mmap.ACCESS_READ) as mapping:
            assert len(mapping) == len(self.model), self.steps[-40:]
            found = mapping[start : start + length]
        assert found == self.model[start : start + length], self.steps[-40:]

    def map_write(self) -> None:
        if not self.model:
            return
        start = self.noise.randrange(len(self.model))
        data = self.noise.randbytes(self.noise.randrange(1, 9000))[: len(self.model) - start]
        self._note("map_write", start, len(data))
        with mmap.mmap(self._descriptor(), 0) as mapping:
            mapping[start : start + len(data)] = data
            if self.noise.random() < 0.7:
                mapping.flush()
        self._put(start, data)

    def sync(self) -> None:
        self._note("sync")
        os.fsync(self._descriptor())

    def reopen(self) -> None:
        self._note("reopen")
        self.close()
        if self.noise.random() < 0.1:
            flags, self.model = os.O_RDWR | os.O_TRUNC, bytearray()
        else:
            flags = os.O_RDWR
        self.open_ = [os.open(self.path, flags)]

    def second(self) -> None:
        self._note("second")
        if len(self.open_) > 1:
            os.close(self.open_.pop())
        else:
            self.open_.append(os.open(self.path, os.O_RDWR))

    def replace(self) -> None:
        """As editors save: another file takes the name."""
        self._note("replace")
        self.close()
        self.model = bytearray(self.noise.randbytes(self.noise.randrange(LARGEST)))
        new = self.path.with_name("new")
        new.write_bytes(self.model)
        new.rename(self.path)
        self.open_ = [os.open(self.path, os.O_RDWR)]

    def check(self) -> None:
        self._note("check")
        assert self.path.stat().st_size == len(self.model), self.steps[-40:]
        assert self.path.read_bytes() == self.model, self.steps[-40:]

    def close(self) -> None:
        while self.open_:
            os.close(self.open_.pop())


@pytest.mark.parametrize("walk", range(2))
def test_random_operations_on_one_file(place: Path, walk: int) -> None:
    exerciser = Exerciser(place / "file", random.Random(SEED * 1000 + walk))
    try:
        for _ in range(OPERATIONS):
            exerciser.step()
        exerciser.reopen()
        exerciser.check()
    finally:
        exerciser.close()


@pytest.mark.parametrize("how", ["remount", "kill"])
def test_random_operations_with_remounts(
    place: Path, request: pytest.FixtureRequest, how: str
) -> None:
    """After each round the mount goes and comes back: told to, or by kill -9 after fsync."""
    mount = request.getfixturevalue("mount")
    exerciser = Exerciser(place / "file", random.Random(SEED * 1000 + 500 + len(how)))
    for _ in range(max(3, OPERATIONS // ROUND)):
        for _ in range(min(ROUND, OPERATIONS // 10)):
            exerciser.step()
        exerciser.sync()
        if how == "kill":
            mount.kill()
            with contextlib.suppress(OSError):  # ENOTCONN
                exerciser.close()
            exerciser.open_.clear()
            mount.start()
        else:
            exerciser.close()
            mount.remount()
        exerciser.open_ = [os.open(exerciser.path, os.O_RDWR)]
        exerciser.check()
    exerciser.close()

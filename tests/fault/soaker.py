"""One process of the soak: works on a mount until SIGTERM, checks all that it reads, clears up.

Its job is JSON on stdin; what it did is JSON on stdout. Anything that is not as it must be ends it
with a traceback and exit code 1.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import struct
import sys
import time
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Protocol

# There from the beginning. These are replaced by renames, on both mounts, and read on both.
RENAMED = tuple(f"renamed-{number}" for number in range(4))


def in_place(mount: str) -> tuple[str, ...]:
    """These are written in place on one mount. Only the other sees nothing but whole versions."""
    return tuple(f"in-place-{mount}-{number}" for number in range(3))


_SIZES = (0, 100, 30_000, 300_000, 2_000_000)
_HEAD = struct.Struct(">II")  # length and crc32 of what follows
_LARGE = (9 << 20, 20 << 20)
_PAUSE = 0.05  # seconds at most between two steps


class TornError(AssertionError):
    """Content that no writer wrote."""


def packed(rng: random.Random, size: int) -> bytes:
    """Content that shows by itself whether it is whole."""
    body = rng.randbytes(size)
    return _HEAD.pack(size, zlib.crc32(body)) + body


def check(data: bytes, where: Path) -> None:
    """TornError unless it is one version, whole."""
    size, checksum = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (-1, 0)
    if size != len(data) - _HEAD.size or zlib.crc32(data[_HEAD.size :]) != checksum:
        raise TornError(f"{where}: {len(data)} bytes, {size} announced")


class Worker(Protocol):
    def step(self) -> str:
        """Do something; its name, for the count."""

    def clear(self) -> None:
        """Remove what is its own."""


class Churn:
    """Small files of its own: written, appended, renamed, removed, listed, read back."""

    def __init__(self, folder: Path, other: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder / f"churn-{os.getpid()}", rng
        self._folder.mkdir()
        self._there: dict[str, bytes] = {}
        self._number = 0

    def step(self) -> str:
        act = self._rng.choice(("write", "write", "append", "rename", "remove", "read", "list"))
        if act == "write" or not self._there:
            self._write()
            return "write"
        name = self._rng.choice(sorted(self._there))
        getattr(self, f"_{act}")(name)
        return act

    def clear(self) -> None:
        shutil.rmtree(self._folder)

    def _write(self) -> None:
        old = sorted(self._there)
        name = self._rng.choice(old) if len(old) > 20 else self._new_name()
        data = self._rng.randbytes(self._rng.choice(_SIZES[:4]))
        (self._folder / name).write_bytes(data)
        self._there[name] = data

    def _append(self, name: str) -> None:
        with (self._folder / name).open("ab") as file:
            file.write(b"more")
        self._there[name] += b"more"

    def _rename(self, name: str) -> None:
        new = self._new_name()
        (self._folder / name).rename(self._folder / new)
        self._there[new] = self._there.pop(name)

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink()
        del self._there[name]

    def _read(self, name: str) -> None:
        if (self._folder / name).read_bytes() != self._there[name]:
            raise TornError(f"{self._folder / name}")

    def _list(self, name: str) -> None:
        assert sorted(os.listdir(self._folder)) == sorted(self._there)

    def _new_name(self) -> str:
        self._number += 1
        return f"file {self._number}"


class Replace:
    """Replaces shared files whole: in place, or by a rename."""

    def __init__(self, folder: Path, other: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng

    def step(self) -> str:
        data = packed(self._rng, self._rng.choice(_SIZES))
        if self._rng.random() < 0.5:
            path = self._folder / self._rng.choice(in_place(_mount_of(self._folder)))
            path.write_bytes(data)
            return "replace in place"
        path = self._folder / self._rng.choice(RENAMED)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_bytes(data)
        new.rename(path)
        return "replace by rename"

    def clear(self) -> None:
        for path in self._folder.glob(f".*.{os.getpid()}"):
            path.unlink()


class Read:
    """Reads the shared files: each time one version, whole."""

    def __init__(self, folder: Path, other: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self._names = (*RENAMED, *in_place(_mount_of(other)))

    def step(self) -> str:
        path = self._folder / self._rng.choice(self._names)
        try:
            data = path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return "stale"  # replaced twice while it was opened: documented
        check(data, path)
        return "read shared"

    def clear(self) -> None: ...


class Large:
    """A large file, written here, read whole through the other mount."""

    def __init__(self, folder: Path, other: Path, rng: random.Random) -> None:
        self._name, self._rng = f"large-{os.getpid()}", rng
        self._here, self._there = folder / self._name, other / self._name

    def step(self) -> str:
        data = packed(self._rng, self._rng.randrange(*_LARGE))
        with self._here.open("wb", buffering=1 << 20) as file:
            file.write(data)
        deadline = time.monotonic() + 30  # names are seen within a second on a machine at leisure
        while not self._there.exists():
            assert time.monotonic() < deadline, f"{self._there} is not seen"
            time.sleep(0.05)
        if self._there.read_bytes() != data:
            raise TornError(str(self._there))
        self._here.unlink()
        while self._there.exists():
            assert time.monotonic() < deadline, f"{self._there} does not go"
            time.sleep(0.05)
        return "large"

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            self._here.unlink()


class Tree:
    """A tree is made, walked, renamed and removed."""

    def __init__(self, folder: Path, other: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder / f"tree-{os.getpid()}", rng

    def step(self) -> str:
        for number in range(5):
            below = self._folder / f"d{number}"
            below.mkdir(parents=True)
            for name in range(6):
                (below / f"f{name}").write_bytes(self._rng.randbytes(2000))
        (self._folder / "link").symlink_to("d0/f0")
        moved = self._folder.with_name(f"{self._folder.name}-moved")
        self._folder.rename(moved)
        files = sum(len(files) for _, _, files in os.walk(moved))
        assert files == 31, f"{files} files in {moved}"
        shutil.rmtree(moved)
        return "tree"

    def clear(self) -> None:
        for path in self._folder.parent.glob(f"tree-{os.getpid()}*"):
            shutil.rmtree(path)


KINDS = {"churn": Churn, "replace": Replace, "read": Read, "large": Large, "tree": Tree}


def _mount_of(folder: Path) -> str:
    return folder.parent.name


class _Stop:
    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._told)

    def _told(self, number: int, frame: object) -> None:
        self.asked = True


def main() -> int:
    stop = _Stop()
    job = json.loads(sys.stdin.read())
    rng = random.Random(job["seed"])
    worker: Worker = KINDS[job["kind"]](Path(job["folder"]), Path(job["other"]), rng)
    done: Counter[str] = Counter()
    while not stop.asked:
        done[worker.step()] += 1
        time.sleep(rng.uniform(0, _PAUSE))
    worker.clear()
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())

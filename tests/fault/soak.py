"""The soak: many processes on two mounts of one server, while what each program holds is watched.

Two rounds of the same load with a rest after each, the first one short. At rest nothing is open and
the workers have removed what they made, so what the second rest has beyond the first is a leak.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from filesfs import control
from tests.fault.soaker import KINDS, RENAMED, in_place, packed
from tests.mount.mounting import MountedFilesystem
from tests.server.running import RunningServer

BUCKET = "soak"
_SETTLE_SECONDS = 30.0
_END_SECONDS = 120.0  # a worker ends its step, and clears up
# Heaps keep what they have once had, and take minutes to have had it all. So in a long run the last
# quarter at work is held against the second one, in a short run the rests, generously.
_MEMORY_MB = 160.0
_LONG_SECONDS = 600.0
_GROWTH = 1.15
_FEW = 24  # descriptors, threads, tasks: two mounts' kept connections, pool threads
_STATUS = ("tasks", "inodes", "open_files", "unsent_files", "journal_records")
_MUST_BE_GONE = ("open_files", "unsent_files", "journal_records", "sessions", "uploads", "spool")

Sample = dict[str, float]


@dataclass
class Report:
    """What was done, and what was held: at rest, at most, at rest again."""

    minutes: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    first: Sample = field(default_factory=dict)
    working: list[Sample] = field(default_factory=list)
    last: Sample = field(default_factory=dict)

    def __str__(self) -> str:
        done = ", ".join(f"{count:,} {name}" for name, count in sorted(self.done.items()))
        lines = [f"{self.minutes:.0f} minutes: {done}; {len(self.errors)} errors"]
        lines.append(f"{'':28}{'at rest':>12}{'at most':>12}{'at rest again':>15}")
        for name in self.first:
            values = (self.first[name], self.most(name), self.last.get(name, 0.0))
            lines.append("{:28}{:12.0f}{:12.0f}{:15.0f}".format(name, *values))
        lines.append("memory at work, second and last quarter:")
        for name in self.memory():
            lines.append(f"{name:28}{self.quarter(name, 1):12.0f}{self.quarter(name, 3):12.0f}")
        return "\n".join(lines)

    def most(self, name: str) -> float:
        return max((sample[name] for sample in self.working), default=0.0)

    def memory(self) -> list[str]:
        return [name for name in self.first if name.endswith("MB")]

    def quarter(self, name: str, number: int) -> float:
        """The mean over a quarter (from 0) of the time at work."""
        length = max(1, len(self.working) // 4)
        part = self.working[number * length : (number + 1) * length]
        return fmean(sample[name] for sample in part) if part else 0.0

    def verify(self) -> None:
        """AssertionError on an error, a leak, or when nothing was shown."""
        assert not self.errors, "\n".join(self.errors)
        assert set(self.done) >= {"write", "read shared", "large", "tree"}, self.done
        assert self.leaks() == [], f"{self.leaks()}\n{self}"

    def leaks(self) -> list[str]:
        """The names of what is held more of at the second rest than at the first."""
        leaks = [name for name in self.last if self.last[name] > self._allowed(name)]
        if self.minutes * 60 >= _LONG_SECONDS:
            grown = {n for n in self.memory() if self.quarter(n, 3) > _GROWTH * self.quarter(n, 1)}
            leaks = sorted((set(leaks) - set(self.memory())) | grown)
        return leaks

    def _allowed(self, name: str) -> float:
        if name.endswith(_MUST_BE_GONE):
            return 0
        if name.endswith("MB"):
            return self.first[name] + _MEMORY_MB
        return self.first[name] + _FEW


class Soak:
    """One server, two mounts, and their load."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        # Short enough for superseded versions to come and go within a run by hand.
        options = {"listen": "127.0.0.1:0", "superseded_seconds": 30, "log_level": "warning"}
        self._server = RunningServer(folder / "data", options)
        self._mounts = [self._mount(name) for name in ("a", "b")]
        self._workers: list[subprocess.Popen[str]] = []
        self.report = Report()

    def run(self, seconds: float, warm_up: float) -> Report:
        """`warm_up` seconds of load and a rest, then `seconds` of it and another."""
        self.report.minutes = seconds / 60
        try:
            self._begin()
            self._work(warm_up)
            self.report.first = self._rest()
            self.report.working.clear()
            self._work(seconds)
            self.report.last = self._rest()
        finally:
            self._end()
        return self.report

    def _mount(self, name: str) -> MountedFilesystem:
        # Memory that is meant to fill up does so during the warm-up.
        return MountedFilesystem(
            "", self._folder / name, self._folder / f"{name}-cache", ("cache_size=16M",)
        )

    def _begin(self) -> None:
        self._server.start()
        for mount in self._mounts:
            mount.source = self._server.url
            mount.path.mkdir()
            mount.cache.mkdir(mode=0o700)
            mount.start()
        shared = self._mounts[0].path / BUCKET
        shared.mkdir()
        for name in (*RENAMED, *in_place("a"), *in_place("b")):
            (shared / name).write_bytes(packed(self._rng, 1000))

    def _end(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()
        for mount in self._mounts:
            mount.close()
        self._server.stop()

    # -- load -------------------------------------------------------------------------------------
    def _work(self, seconds: float) -> None:
        kinds = [*KINDS, "read", "churn"] if seconds > 120 else list(KINDS)
        self._workers = [self._start(kind, at) for kind in kinds for at in (0, 1)]
        deadline = time.monotonic() + seconds
        pause = min(10.0, seconds / 10)
        while time.monotonic() < deadline and not self._died():
            time.sleep(pause)
            self.report.working.append(self._sample())
        self._stop()

    def _start(self, kind: str, at: int) -> subprocess.Popen[str]:
        here, other = (self._mounts[n].path / BUCKET for n in (at, 1 - at))
        job = {"kind": kind, "folder": str(here), "other": str(other), "seed": self._rng.random()}
        command = [sys.executable, "-m", "tests.fault.soaker"]
        pipe = subprocess.PIPE
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(job))
        worker.stdin.close()
        worker.stdin = None
        return worker

    def _died(self) -> bool:
        return any(worker.poll() is not None for worker in self._workers)

    def _stop(self) -> None:
        early = [worker.poll() is not None for worker in self._workers]
        for worker in self._workers:
            worker.terminate()
        for worker, ended in zip(self._workers, early, strict=True):
            out, problem = worker.communicate(timeout=_END_SECONDS)
            if worker.returncode or ended:
                self.report.errors.append(problem.strip() or f"exit code {worker.returncode}")
            else:
                self.report.done.update(json.loads(out))
        self._workers = []

    # -- what is held -----------------------------------------------------------------------------
    def _rest(self) -> Sample:
        """A sample once nothing is under way."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            sample = self._sample()
            busy = [name for name, held in sample.items() if held and name.endswith(_MUST_BE_GONE)]
            if not busy or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        time.sleep(2)  # what was pushed to the kernel and the other mount arrives
        return self._sample()

    def _sample(self) -> Sample:
        sample: Sample = {}
        for mount in self._mounts:
            assert mount.process is not None
            name = f"mount {mount.path.name}"
            sample |= _process(name, mount.process.pid)
            status = control.ask(mount.cache, "status", 60)
            sample |= {f"{name} {each}": status[each] for each in _STATUS}
            sample[f"{name} spool"] = _count(mount.cache / "spool", "*")
        sample |= _process("server", self._server.pid)
        data = self._server.data_dir
        with closing(sqlite3.connect(data / "catalog.sqlite", timeout=30)) as catalog:
            query = "SELECT count(*) FROM sessions WHERE state = 0"
            sample["server sessions"] = catalog.execute(query).fetchone()[0]
        sample["server uploads"] = _count(data / "uploads", "*")
        return sample


def _process(name: str, pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        f"{name} MB": int(fields["VmRSS"].split()[0]) / 1024,
        f"{name} descriptors": _count(Path(f"/proc/{pid}/fd"), "*"),
        f"{name} threads": int(fields["Threads"]),
    }


def _count(folder: Path, pattern: str) -> int:
    with suppress(OSError):
        return sum(1 for _ in folder.glob(pattern))
    return 0

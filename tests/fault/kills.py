"""The kill run: writers on a mount, kill -9 of the mount, the server or both, and the reckoning.

Each round starts writers, kills at a random moment while something is in flight, starts again what
was killed, and holds every file against what was acknowledged. The seed gives the rounds' choices;
what happens in a round is up to the machine.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from filesfs import control
from tests.fault.ledger import Ledger, Verdict, check
from tests.fault.slots import Slot, State, as_fields
from tests.mount.mounting import MountedFilesystem
from tests.server.running import RunningServer

WRITERS = 3
SLOTS = 4
BUCKET = "kills"
_SETTLE_SECONDS = 60.0
_KINDS = ("mount", "server", "both")


@dataclass
class Report:
    """What a run came to."""

    kills: Counter[str] = field(default_factory=Counter)
    idle: int = 0  # kills with nothing in flight, which prove nothing
    acknowledged: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills.total()} kills {dict(self.kills)}, {self.idle} with nothing in flight; "
            f"{self.acknowledged.total()} acknowledged {dict(self.acknowledged)}; "
            f"in flight {dict(self.in_flight)}; {len(self.errors)} errors told to writers; "
            f"{len(self.conflicts)} conflict copies; {len(self.losses)} losses"
        )

    def verify(self) -> None:
        """AssertionError on a loss, a conflict with ourselves, or if the run has shown nothing."""
        assert not self.losses, "\n".join(self.losses)
        assert not self.conflicts, f"nobody else wrote: {self.conflicts}"
        assert self.kills.total(), "nothing was killed"
        assert self.acknowledged.total(), "nothing was acknowledged"
        assert self.in_flight.total(), "nothing was in flight at any kill"
        assert self.idle * 10 <= self.kills.total(), f"nothing was in flight at {self.idle} kills"


class KillRun:
    """Rounds over one server's data. `option`: one more of the mount's; with writeback close()
    acknowledges from the journal.
    """

    def __init__(self, folder: Path, seed: int, *, option: str = "") -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        self._writeback = option == "writeback"
        options = ("timeout=20", *filter(None, (option,)))
        self._server = RunningServer(folder / "data", {"listen": "127.0.0.1:0"})
        self._mount = MountedFilesystem("", folder / "mnt", folder / "cache", options)
        self._states = {Slot(w, n): State() for w in range(WRITERS) for n in range(SLOTS)}
        self._version = 0
        self._writers: list[subprocess.Popen[bytes]] = []
        self.report = Report()

    def run(self, seconds: float) -> Report:
        """Rounds until the time is over, or something is lost."""
        deadline = time.monotonic() + seconds
        try:
            self._begin()
            while time.monotonic() < deadline and not self.report.losses:
                self._round(self.report.kills.total() + self.report.idle)
        finally:
            self._end()
        return self.report

    def _begin(self) -> None:
        self._mount.path.mkdir()
        self._fresh_cache()
        self._server.start()
        self._mount.source = self._server.url
        self._mount.start()
        (self._mount.path / BUCKET).mkdir()

    def _fresh_cache(self) -> None:
        shutil.rmtree(self._mount.cache, ignore_errors=True)
        self._mount.cache.mkdir(mode=0o700)

    def _end(self) -> None:
        for process in self._writers:
            process.kill()
        self._mount.close()
        for process in self._writers:
            process.wait(30)
        self._server.stop()

    # -- a round ----------------------------------------------------------------------------------
    def _round(self, number: int) -> None:
        kind = _KINDS[number % len(_KINDS)]
        sides = [self._folder / f"side-{number}-{writer}" for writer in range(WRITERS)]
        self._writers = [self._writer(w, number, sides[w]) for w in range(WRITERS)]
        _await_first(sides)
        time.sleep(self._rng.uniform(0.0, 1.2))
        self._count_kill(kind, self._ledger(sides))
        self._kill(kind)
        if kind == "server":
            time.sleep(self._rng.uniform(0.0, 0.8))  # the writers meet the server that is back
        self._stop_writers()
        if kind != "server":
            self._start_again()
        self._reckon(self._ledger(sides), f"round {number}, {kind} killed")
        for side in sides:
            side.unlink(missing_ok=True)

    def _writer(self, writer: int, number: int, side: Path) -> subprocess.Popen[bytes]:
        mine = {slot: state for slot, state in self._states.items() if slot.writer == writer}
        job = {
            "folder": str(self._mount.path / BUCKET),
            "side": str(side),
            "writer": writer,
            "seed": f"{self._rng.random()}/{number}/{writer}",
            "version": self._version,
            "states": {slot.number: as_fields(state) for slot, state in mine.items()},
        }
        command = [sys.executable, "-m", "tests.fault.writer"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        return process

    def _ledger(self, sides: list[Path]) -> Ledger:
        ledger = Ledger({slot: [state] for slot, state in self._states.items()})
        for writer, side in enumerate(sides):
            ledger.read(writer, side)
        return ledger

    def _count_kill(self, kind: str, ledger: Ledger) -> None:
        if ledger.in_flight:
            self.report.kills[kind] += 1
            self.report.in_flight.update(ledger.in_flight)
        else:
            self.report.idle += 1

    def _kill(self, kind: str) -> None:
        if kind != "server":
            self._mount.kill()
        if kind != "mount":
            self._server.kill()
            self._server.start()

    def _stop_writers(self) -> None:
        for process in self._writers:
            process.terminate()
        codes = [process.wait(60) for process in self._writers]
        # One that had ended by itself may meet the signal after Python took its handler away.
        assert set(codes) <= {0, -signal.SIGTERM}, f"a writer failed: exit codes {codes}"

    def _start_again(self) -> None:
        if not self._writeback and self._rng.random() < 0.5:
            self._fresh_cache()  # what was acknowledged is on the server
        self._mount.start()

    def _reckon(self, ledger: Ledger, title: str) -> None:
        self._drained()
        verdict = check(self._mount.path / BUCKET, ledger.allowed)
        self._states.update(verdict.states)
        self._version = max(self._version, ledger.version)
        self.report.acknowledged += ledger.acknowledged
        self.report.errors += [f"{title}: {each}" for each in ledger.errors]
        self.report.losses += [f"{title}: {each}" for each in verdict.losses]
        self._clear(verdict, title)

    def _clear(self, verdict: Verdict, title: str) -> None:
        """Each conflict copy is counted once."""
        self.report.conflicts += [f"{title}: {each}" for each in verdict.conflicts]
        if not verdict.losses:
            for name in verdict.conflicts:
                (self._mount.path / BUCKET / name).unlink()

    def _drained(self) -> None:
        """Wait until the journal is empty: what it holds counts as stored."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        status: dict[str, object] = {}
        while time.monotonic() < deadline:
            status = control.ask(self._mount.cache, "status", 30)
            if not status["unsent_files"] and not status["journal_records"]:
                return
            time.sleep(0.05)
        self.report.losses.append(f"not sent within {_SETTLE_SECONDS:.0f} s: {status}")


def _await_first(sides: list[Path]) -> None:
    """All writers are at work."""
    deadline = time.monotonic() + 30
    while not all(side.exists() and side.stat().st_size for side in sides):
        assert time.monotonic() < deadline, "the writers did not start"
        time.sleep(0.01)

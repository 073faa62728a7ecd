"""Runs every workload on every system in turn, several rounds; writes the medians as a table.

    python -m bench [--rounds N | --quick] [--only TEXT] [--systems NAME,...] [--out FOLDER]

It must not compare figures of different runs: only the ratios within one run mean anything. Needs
root, for mounts and to drop the kernel's caches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import machine
from bench.peers import JuiceFS, Rclone, S3fs, SeaweedFS
from bench.systems import Filesfs, Limit, PlainFolder, System, drop_caches
from bench.workloads import FULL, QUICK, Workload, workloads

SYSTEMS: Sequence[System] = (
    *(Filesfs(), Filesfs("exclusive"), SeaweedFS(), JuiceFS(), Rclone(), S3fs()),
    Limit(),
    PlainFolder(),
)
NO_PEERS = (Filesfs.name, "filesfs -o exclusive", Limit.name, PlainFolder.name)
WORK_SECONDS = 40  # for one figure with its preparation; what takes longer is left out as such

Results = dict[str, dict[str, list[float]]]  # by workload, by system: a rate for each round


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and servers end
    load_before = machine.load()
    chosen = [s for s in SYSTEMS if not arguments.systems or s.name in arguments.systems.split(",")]
    here = [system for system in chosen if not system.missing()]
    notes = [f"{s.name}: left out, {s.missing()}." for s in chosen if s.missing()]
    profile = QUICK if arguments.quick else FULL
    chosen_work = [work for work in workloads(profile) if arguments.only in work.name]
    results: Results = {work.name: {} for work in chosen_work}
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    share = arguments.budget / rounds / max(len(here), 1)
    for number in range(rounds):
        # Turned each round, so that no system always has the disk at its best.
        for system in here[number % len(here) :] + here[: number % len(here)]:
            _round(system, chosen_work, results, share)
    notes += [f"{system.name}: {system.promise}." for system in here]
    notes.append("*: ends before the data is on its server, and is not compared.")
    table = _table(chosen_work, here, results)
    head = f"{machine.describe(load_before)} Profile: {profile}."
    text = "\n".join([head, "", table, "", *(f"- {note}" for note in notes)]) + "\n"
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.md").write_text(text)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
    print(text)
    return 0


def _round(system: System, chosen: list[Workload], results: Results, seconds: float) -> None:
    """One system; after so many seconds no further figure of it is begun."""
    end = time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="filesfs-bench-"))
    try:
        with system.serve(folder):
            for work in chosen:
                if time.monotonic() > end:
                    break
                try:
                    with _at_most(WORK_SECONDS):
                        rate = _measure(system, folder, work)
                except (OSError, RuntimeError) as error:  # a peer that fails ends no run
                    print(f"{system.name}: {work.name}: {error!r}", file=sys.stderr, flush=True)
                    continue
                results[work.name].setdefault(system.name, []).append(rate)
                line = f"{system.name}: {work.name}: {rate:,.0f} {work.unit}"
                print(line, file=sys.stderr, flush=True)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"{system.name}: {error!r}", file=sys.stderr, flush=True)
    finally:
        if not os.path.ismount(folder / "mnt"):  # never delete through a mount that is still there
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """TimeoutError in the main thread after so long, out of a call into a mount too."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _measure(system: System, folder: Path, work: Workload) -> float:
    """One figure, in a folder of its own. A cold one comes from another life of the client."""
    name = f"w{time.monotonic_ns()}"
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(system.mount(folder))
        (root / name).mkdir()
        work.prepare(root / name)
        if work.cold:
            stack.close()
            drop_caches()
            root = stack.enter_context(system.mount(folder))
        started = time.perf_counter()
        amount = work.run(root / name)
        return work.rate(amount, time.perf_counter() - started)


def _table(chosen: list[Workload], systems: list[System], results: Results) -> str:
    names = [system.name for system in systems]
    lines = [f"| work | unit | {' | '.join(names)} | ahead by |", "|---" * (len(names) + 3) + "|"]
    for work in chosen:
        medians = {name: statistics.median(v) for name, v in results[work.name].items()}
        cells = [
            f"{medians[s.name]:,.0f}{'*' * is_early(s, work.name)}" if s.name in medians else "-"
            for s in systems
        ]
        lines.append(
            f"| {work.name} | {work.unit} | {' | '.join(cells)} | {_ahead(work, medians)} |"
        )
    return "\n".join(lines)


def is_early(system: System, work: str) -> bool:
    """Whether it answers before the data is on its server, which is no match."""
    return any(word in work for word in system.early)


def best_peer(work: str, medians: dict[str, float]) -> str:
    """The fastest peer that keeps the same promise; "" when there is none."""
    peers = [s.name for s in SYSTEMS if s.name not in NO_PEERS and not is_early(s, work)]
    return max((name for name in peers if name in medians), key=lambda n: medians[n], default="")


def _ahead(work: Workload, medians: dict[str, float]) -> str:
    best = best_peer(work.name, medians)
    if Filesfs.name not in medians or not best:
        return "-"
    return f"{medians[Filesfs.name] / medians[best]:.2f} ({best})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure filesfs and its peers.")
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small sizes, minutes")
    parser.add_argument("--budget", type=float, default=1800, help="seconds, of all; in shares")
    parser.add_argument("--only", default="", help="workloads with this text in their name")
    parser.add_argument("--systems", default="", help="names with commas; default: all")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    return parser.parse_args()

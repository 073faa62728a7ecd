"""Runs every workload on every system in turn, several rounds; writes the medians as a table.

    python -m bench [--rounds N] [--only TEXT] [--systems NAME,...] [--out FOLDER]

It must not compare figures of different runs: only the ratios within one run mean anything. Needs
root, for mounts and to drop the kernel's caches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.systems import SYSTEMS, System, drop_caches
from bench.workloads import WORKLOADS, Workload

Results = dict[str, dict[str, list[float]]]  # by workload, by system: a rate for each round


def main() -> int:
    arguments = _arguments()
    chosen = [s for s in SYSTEMS if not arguments.systems or s.name in arguments.systems.split(",")]
    here = [system for system in chosen if not system.missing()]
    left_out = {s.name: s.missing() for s in chosen if s.missing()}
    workloads = [work for work in WORKLOADS if arguments.only in work.name]
    results: Results = {work.name: {} for work in workloads}
    for number in range(arguments.rounds):
        # Turned each round, so that no system always has the disk at its best.
        for system in here[number % len(here) :] + here[: number % len(here)]:
            _round(system, workloads, results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = _table(workloads, [system.name for system in here], results, left_out)
    (arguments.out / "results.md").write_text(table)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
    print(table)
    return 0


def _round(system: System, workloads: list[Workload], results: Results) -> None:
    folder = Path(tempfile.mkdtemp(prefix="filesfs-bench-"))
    try:
        with system.serve(folder):
            for work in workloads:
                rate = _measure(system, folder, work)
                results[work.name].setdefault(system.name, []).append(rate)
                print(f"{system.name}: {work.name}: {rate:,.0f} {work.unit}", file=sys.stderr)
    finally:
        if not os.path.ismount(folder / "mnt"):  # never delete through a mount that is still there
            shutil.rmtree(folder, ignore_errors=True)


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


def _table(
    workloads: list[Workload], names: list[str], results: Results, left_out: dict[str, str]
) -> str:
    lines = [
        _machine(),
        "",
        f"| work | unit | {' | '.join(names)} |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for work in workloads:
        cells = [f"{statistics.median(results[work.name][name]):,.0f}" for name in names]
        lines.append(f"| {work.name} | {work.unit} | {' | '.join(cells)} |")
    lines += ["", *(f"Left out: {name}, {reason}." for name, reason in left_out.items())]
    return "\n".join(lines).strip() + "\n"


def _machine() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"Commit {commit}, {os.cpu_count()} cores, Linux {platform.release()}; medians."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure filesfs and its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="workloads with this text in their name")
    parser.add_argument("--systems", default="", help="names with commas; default: all")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    return parser.parse_args()

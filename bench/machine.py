"""What a run was measured on: one line for the head of a table.

It must not measure. Figures without the load they were taken under mislead, so it is in the line.
"""

from __future__ import annotations

import os
import platform
import subprocess


def load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def describe(load_before: str) -> str:
    """Commit, processor, kernel and the load before and after, in one line."""
    parts = (f"Commit {_commit()}", f"{os.cpu_count()} cores ({_processor()})")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kernel = f"{memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    return f"{', '.join(parts)}, {kernel}; load {load_before} before, {load()} after."


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = (line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
        return next(names, platform.machine())

"""The crash run by hand: `python -m bench.crash --minutes 60`. Ends with 1 on a loss.

It must not judge anything itself: tests/fault/kills.py does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.kills import KillRun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=None, help="for the same choices again")
    parser.add_argument("--option", default="", help="of the mount: writeback, exclusive")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix="filesfs-crash-"))
    print(f"seed {seed}, in {folder}", flush=True)
    report = KillRun(folder, seed, option=arguments.option).run(arguments.minutes * 60)
    for each in (*report.errors, *report.conflicts, *report.losses):
        print(each)
    print(report)
    report.verify()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The soak by hand: `python -m bench.soak --minutes 30`. Ends with 1 on an error or a leak.

It must not judge anything itself: tests/fault/soak.py does.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--seed", type=int, default=None, help="for the same choices again")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix="filesfs-soak-"))
    print(f"seed {seed}, in {folder}", flush=True)
    seconds = arguments.minutes * 60
    report = Soak(folder, seed).run(seconds, warm_up=min(180.0, seconds / 4))
    print(report)
    report.verify()
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

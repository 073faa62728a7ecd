"""kill -9 at random moments: nothing acknowledged is lost, nothing is torn.

The long run is `python -m bench.crash --minutes 60`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.kills import KillRun

SECONDS = 30.0  # a minute for both


@pytest.mark.timeout(150)
@pytest.mark.parametrize("writeback", [False, True], ids=["default", "writeback"])
def test_nothing_acknowledged_is_lost(tmp_path: Path, writeback: bool) -> None:
    report = KillRun(tmp_path, 1, writeback=writeback).run(SECONDS)
    print(report, *report.errors, *report.conflicts, sep="\n")
    report.verify()

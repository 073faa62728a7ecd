"""kill -9 at random moments: nothing acknowledged is lost, nothing is torn.

The long run is `python -m bench.crash --minutes 60`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.kills import KillRun

SECONDS = 25.0  # for each


@pytest.mark.timeout(150)
@pytest.mark.parametrize("option", ["", "writeback", "exclusive"])
def test_nothing_acknowledged_is_lost(tmp_path: Path, option: str) -> None:
    report = KillRun(tmp_path, 1, option=option).run(SECONDS)
    print(report, *report.errors, *report.conflicts, sep="\n")
    report.verify()

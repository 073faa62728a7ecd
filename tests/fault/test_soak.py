"""Three minutes of the soak; `python -m bench.soak --minutes 30` is for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.soak import Soak


@pytest.mark.timeout(400)
def test_mixed_load_on_two_mounts_leaves_nothing_behind(tmp_path: Path) -> None:
    Soak(tmp_path, seed=5).run(165, warm_up=15).verify()

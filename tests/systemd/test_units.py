"""The unit files as they are: systemd understands them, and they are confined."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "systemd"
# systemd-analyze's exposure, from 0 (confined) to 10. The mount's own is higher because every
# directive with a mount namespace would hide the mount; filesfs.service has the list.
LIMITS = {"filesfs.service": 5.0}
MOST_EXPOSURE = 3.0

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here"),
]


def _placed(folder: Path) -> list[Path]:
    """The units with a program that exists, as installing puts the right path in."""
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.timer")]:
        text = unit.read_text().replace("/opt/filesfs/bin/filesfs", "/bin/true")
        (folder / unit.name).write_text(text)
    return sorted(folder.iterdir())


def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    units = [str(path) for path in _placed(tmp_path)]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "filesfs" in line]
    assert done.returncode == 0, done.stderr
    assert said == []


@pytest.mark.parametrize("unit", sorted(p.name for p in UNITS.glob("*.service")))
def test_services_are_confined(unit: str, tmp_path: Path) -> None:
    _placed(tmp_path)
    limit = LIMITS.get(unit, MOST_EXPOSURE)
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={int(limit * 10)}"]
    done = subprocess.run(
        [*command, str(tmp_path / unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]

"""low_latency: the mount holds the device that keeps processors awake, and tells it of bursts."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

DEVICE = Path("/dev/cpu_dma_latency")


def _holds_it(mount: MountedFilesystem) -> bool:
    assert mount.process is not None
    open_files = Path(f"/proc/{mount.process.pid}/fd").iterdir()
    return str(DEVICE) in [os.readlink(file) for file in open_files]


def _tolerated() -> int:
    """Microseconds that all of the machine can bear, as of now."""
    with DEVICE.open("rb") as device:
        (latency,) = struct.unpack("i", device.read(4))
    return int(latency)


@pytest.mark.skipif(not DEVICE.exists(), reason="this kernel has no such device")
def test_it_is_held_as_the_option_says(server: RunningServer, tmp_path: Path) -> None:
    with mounted(server.url, tmp_path, "low_latency=off") as mount:
        assert not _holds_it(mount)
    with mounted(server.url, tmp_path, "low_latency=on") as mount:
        assert _holds_it(mount)
        folder = mount.path / "low-latency"
        folder.mkdir()
        told = []
        for number in range(100):
            (folder / f"file-{number}").write_bytes(b"x")
            told.append(_tolerated())
        assert 0 in told

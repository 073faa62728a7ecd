"""`filesfs up`: its logs stay small, old cache folders go, what is deleted can be kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from filesfs.commands.logfiles import LOG_BYTES
from tests.mount.mounting import detach


def test_what_it_keeps_and_what_it_clears_away(tmp_path: Path) -> None:
    place, state, caches = tmp_path / "mnt", tmp_path / "state", tmp_path / "caches"
    old = caches / f"{7:016x}"
    (old / "spool").mkdir(parents=True)
    (old / "lock").touch()
    for path in (old / "spool", old / "lock", old):
        os.utime(path, (1, 1))
    command = [sys.executable, "-m", "filesfs.cli", "up", str(place), "--state-dir", str(state)]
    command += ["--keep-deleted", "7d"]
    environment = {**os.environ, "CACHE_DIRECTORY": str(caches)}
    log = state / "server.log"
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as up:
        try:
            assert up.stdout is not None
            assert str(place).encode() in up.stdout.readline()
            with log.open("ab") as writer:
                writer.write(b"x" * LOG_BYTES + b"\n")
            deadline = time.monotonic() + 60
            while log.stat().st_size > LOG_BYTES or old.exists():
                assert time.monotonic() < deadline, sorted(state.iterdir())
                time.sleep(0.1)
            assert log.with_name("server.log.1").stat().st_size > LOG_BYTES
            (place / "bucket").mkdir()
            (place / "bucket" / "file").write_text("x")
            while "/v1/files/bucket/file" not in log.read_text():  # it writes to the same file
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            assert [path.is_dir() for path in caches.iterdir()] == [True]
            (place / "bucket" / "file").unlink()
            undelete = [*command[:3], "undelete", str(place / "bucket" / "file"), "--restore"]
            assert b"restored: bucket/file" in subprocess.run(undelete, capture_output=True).stdout
            up.send_signal(signal.SIGTERM)
            assert up.wait(60) == 0
        finally:
            up.terminate()
            up.wait()
            detach(place)

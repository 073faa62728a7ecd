"""What was removed at a mount comes back there, named by its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.mount.mounting import mounted
from tests.server.running import running_server


def _undelete(*arguments: str) -> str:
    command = [sys.executable, "-m", "filesfs.cli", "undelete", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _until_there(path: Path) -> bytes:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come back"
        time.sleep(0.05)
    return path.read_bytes()


def test_a_tree_and_an_earlier_content_come_back(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with running_server(tmp_path / "data", keep_deleted="7d") as server:
        source = f"{server.url}/docs"
        with mounted(server.url, tmp_path) as root:
            (root.path / "docs" / "my tree" / "sub").mkdir(parents=True)
            (root.path / "docs" / "my tree" / "é.txt").write_text("accent")
            (root.path / "docs" / "my tree" / "sub" / "big").write_bytes(data)
            os.chmod(root.path / "docs" / "my tree" / "é.txt", 0o600)
            shutil.rmtree(root.path / "docs" / "my tree")
            tree = str(root.path / "docs" / "my tree")
            assert "docs/my tree/é.txt" in _undelete(tree)
            assert _undelete(tree, "--restore").count("restored: ") == 2
            assert _until_there(root.path / "docs" / "my tree" / "é.txt") == b"accent"
            assert (root.path / "docs" / "my tree" / "é.txt").stat().st_mode & 0o777 == 0o600
            assert _until_there(root.path / "docs" / "my tree" / "sub" / "big") == data
        with mounted(source, tmp_path, name="bucket") as mount:
            (mount.path / "note").write_text("good")
            (mount.path / "note").write_text("overwritten by mistake")
            _undelete(str(mount.path / "note"), "--to", str(mount.path / "note before"))
            assert _until_there(mount.path / "note before") == b"good"

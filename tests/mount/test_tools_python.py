"""Python's own test modules on the mount and on tmpfs: what they fail and skip must be the same."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mount import python_suite

MODULES = ("test_os", "test_posix", "test_shutil", "test_pathlib", "test_mailbox", "test_dbm")
SECONDS = 280


@pytest.fixture
def beside() -> Iterator[Path]:
    """A directory on tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture
def place(ground: Path, module: str) -> Path:
    """A directory with a short path: the address of a Unix socket has 107 bytes."""
    path = ground / module.replace("_", "-")
    path.mkdir()
    return path


def started(folder: Path, module: str) -> subprocess.Popen[str]:
    """The module's tests, with the folder for everything that they make."""
    command = [sys.executable, "-I", python_suite.__file__, module]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], module: str) -> dict[str, Any]:
    try:
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    found = json.loads(output.splitlines()[-1])[module]
    assert isinstance(found, dict)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", MODULES)
def test_pythons_own_tests(place: Path, beside: Path, module: str) -> None:
    if importlib.util.find_spec(f"test.{module}") is None:
        pytest.skip("this Python comes without its tests (Debian: libpython3-testsuite)")
    here, there = started(place, module), started(beside, module)
    try:
        found, expected = ended(here, module), ended(there, module)
    finally:
        here.kill()
        there.kill()
    assert found["failed"].keys() == expected["failed"].keys(), found["failed"]
    assert found["skipped"].keys() == expected["skipped"].keys()
    assert found["run"] == expected["run"] > 0
    assert os.listdir(place) == os.listdir(beside) == []

"""flock and fcntl locks among the processes of one host."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.posix.clock import wait_for

_TRY = """
import fcntl, os, sys
kind, path, start, length, exclusive = sys.argv[1:]
number = os.open(path, os.O_RDWR)
flag = (fcntl.LOCK_EX if exclusive == "x" else fcntl.LOCK_SH) | fcntl.LOCK_NB
try:
    if kind == "flock":
        fcntl.flock(number, flag)
    else:
        fcntl.lockf(number, flag, int(length), int(start))
except BlockingIOError:
    print("busy")
else:
    print("free")
    if os.environ.get("HOLD"):
        sys.stdout.flush()
        sys.stdin.read()
"""


def _try(kind: str, path: Path, start: int = 0, length: int = 0, how: str = "x") -> str:
    arguments = [kind, str(path), str(start), str(length), how]
    done = subprocess.run(
        [sys.executable, "-c", _TRY, *arguments], capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode().strip()


@pytest.fixture
def file(place: Path) -> Path:
    (place / "f").write_bytes(b"0123456789")
    return place / "f"


def test_flock(file: Path) -> None:
    number = os.open(file, os.O_RDWR)
    fcntl.flock(number, fcntl.LOCK_SH)
    assert _try("flock", file, how="s") == "free"
    assert _try("flock", file) == "busy"
    fcntl.flock(number, fcntl.LOCK_UN)
    assert _try("flock", file) == "free"
    fcntl.flock(number, fcntl.LOCK_EX)
    assert _try("flock", file, how="s") == "busy"
    os.close(number)
    assert _try("flock", file) == "free"


def test_fcntl_ranges(file: Path) -> None:
    number = os.open(file, os.O_RDWR)
    fcntl.lockf(number, fcntl.LOCK_EX, 2, 4)
    assert _try("lockf", file, 0, 4) == "free"
    assert _try("lockf", file, 5, 1) == "busy"
    assert _try("lockf", file, 6, 0) == "free"
    fcntl.lockf(number, fcntl.LOCK_UN, 1, 4)
    assert _try("lockf", file, 4, 1) == "free"
    assert _try("lockf", file, 5, 1) == "busy"
    os.close(number)
    assert _try("lockf", file) == "free"


def test_a_lock_goes_with_its_process(file: Path) -> None:
    arguments = ["lockf", str(file), "0", "0", "x"]
    with subprocess.Popen(
        [sys.executable, "-c", _TRY, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HOLD": "1"},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"free\n"
        with file.open("r+") as stream:
            with pytest.raises(BlockingIOError):
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder.kill()
            holder.wait(30)

            def free() -> bool:
                try:
                    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            wait_for(free, 10)


def test_a_blocked_lock_is_granted(file: Path) -> None:
    number = os.open(file, os.O_RDWR)
    fcntl.flock(number, fcntl.LOCK_EX)
    code = f"import fcntl; f = open({str(file)!r}); fcntl.flock(f, fcntl.LOCK_EX); print('got')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.3)
        fcntl.flock(number, fcntl.LOCK_UN)
        assert waiting.communicate(timeout=30)[0] == b"got\n"
    os.close(number)


def test_locks_survive_writes_and_rename(file: Path) -> None:
    number = os.open(file, os.O_RDWR)
    fcntl.flock(number, fcntl.LOCK_EX)
    os.write(number, b"changed")
    os.fsync(number)
    file.rename(file.parent / "moved")
    assert _try("flock", file.parent / "moved") == "busy"
    os.close(number)

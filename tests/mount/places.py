"""Directories for tests: on the mount, or wherever POSIX_TEST_DIR says.

The second is how a test proves itself: `POSIX_TEST_DIR=/dev/shm/x pytest tests/posix` asks tmpfs
the same questions, and tmpfs must pass.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path

import pytest

ELSEWHERE = os.environ.get("POSIX_TEST_DIR")


def ground_of(request: pytest.FixtureRequest) -> Path:
    """Where directories for tests are made: the mount's root, unless told otherwise."""
    if ELSEWHERE:
        Path(ELSEWHERE).mkdir(exist_ok=True)
        return Path(ELSEWHERE)
    mount = request.getfixturevalue("mount")
    assert isinstance(mount.path, Path)
    return mount.path


def fresh_directory(ground: Path, title: str) -> Path:
    """A new directory; on the mount's root this is a bucket. Mode 0755 whatever the umask."""
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in title)[:90].strip("-")
    name = f"{readable}-{zlib.crc32(title.encode()):08x}"  # what differs in other characters too
    path = Path(tempfile.mkdtemp(dir=ground)) if ELSEWHERE else ground / name
    path.mkdir(exist_ok=bool(ELSEWHERE))
    path.chmod(0o755)
    return path

"""Files have an end: beyond it there is EFBIG, at once, and the file as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

BEYOND = (16 << 40) + 1


def test_truncate_beyond_the_largest_file(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"as it was")
    for size in (BEYOND, (1 << 62) - 1):
        with pytest.raises(OSError, match="File too large") as refused:
            os.truncate(path, size)
        assert refused.value.errno == errno.EFBIG
        with path.open("r+b") as file, pytest.raises(OSError, match="File too large"):
            file.truncate(size)
    assert path.read_bytes() == b"as it was"


def test_a_write_beyond_the_largest_file(place: Path) -> None:
    path = place / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="File too large"):
            os.pwrite(descriptor, b"x", BEYOND)
        os.pwrite(descriptor, b"x", 0)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"x"

"""Small disks of the test's own, and what a full one may answer."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MIB = 1 << 20


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "filesfs-test", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take what is left, to the last block."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for step in (MIB, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(step)) == step:
                    pass
    return filler


@contextlib.contextmanager
def least_free(folder: Path) -> Iterator[Callable[[], int]]:
    """What tells how many bytes were free at the least until the end of the block."""
    found, over = [_free(folder)], threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            found[0] = min(found[0], _free(folder))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: found[0]
    finally:
        over.set()
        looking.join()


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def refused(path: Path, data: bytes, step: int = MIB) -> None:
    """ENOSPC at a write or at close()."""
    with pytest.raises(OSError, match="Errno") as caught:
        _write(path, data, step)
    assert caught.value.errno == errno.ENOSPC


def _write(path: Path, data: bytes, step: int) -> None:
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])


def random_bytes(mebibytes: int) -> bytes:
    return random.Random(mebibytes).randbytes(mebibytes * MIB)

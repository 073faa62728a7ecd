"""Keeps a log file small while another process appends to it.

It must not open the log for that process, which goes on writing to the same file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

LOG_BYTES = 10 << 20
_KEPT = 2  # older ones, as LOG.1 and LOG.2


def rotate(log: Path, limit: int = LOG_BYTES) -> bool:
    """Once it is longer than `limit` bytes, copy it to LOG.1 and cut it to nothing; whether it was.

    Lines that are written within the copy's last moment may be lost: a log of requests can bear it.
    Whoever has it open must append (O_APPEND). Never raises OSError: a full disk must stop nobody.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= limit:
            return False
        for number in range(_KEPT - 1, 0, -1):
            if _older(log, number).exists():
                _older(log, number).replace(_older(log, number + 1))
        shutil.copyfile(log, _older(log, 1))
        os.truncate(log, 0)
        return True
    return False


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")

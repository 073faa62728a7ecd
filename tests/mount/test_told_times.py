"""Times do not move by themselves: what stat says right after a call is what the server has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.mount.mounting import MountedFilesystem
from tests.posix.calls import EXCHANGE, renameat2

# In a directory of its own for each, with the files f and g, f's link h, and directories d, e.
CALLS: dict[str, Callable[[Path], object]] = {
    "unlink": lambda at: (at / "g").unlink(),
    "unlink-one-of-two-names": lambda at: (at / "h").unlink(),
    "rmdir": lambda at: (at / "d").rmdir(),
    "rename": lambda at: (at / "f").rename(at / "new"),
    "rename-to-another-directory": lambda at: (at / "f").rename(at / "d/new"),
    "rename-of-a-directory": lambda at: (at / "d").rename(at / "e/new"),
    "rename-over-a-file": lambda at: (at / "g").rename(at / "f"),
    "rename-over-a-directory": lambda at: (at / "d").rename(at / "e"),
    "exchange": lambda at: renameat2(str(at / "f"), str(at / "d"), EXCHANGE),
    "link": lambda at: os.link(at / "g", at / "d/new"),
    "symlink": lambda at: (at / "d/new").symlink_to("target"),
    "mkdir": lambda at: (at / "d/new").mkdir(),
    "mkfifo": lambda at: os.mkfifo(at / "d/new"),
    "chmod": lambda at: (at / "d").chmod(0o700),
    "chown": lambda at: os.chown(at / "f", 1, 1),
    "utime": lambda at: os.utime(at / "f"),
    "create": lambda at: (at / "d/new").write_text("content"),
    "replace": lambda at: (at / "f").write_text("other"),
}


def _times(at: Path) -> dict[str, tuple[int, int]]:
    status = {str(path.relative_to(at)): path.lstat() for path in (at, *at.rglob("*"))}
    return {name: (each.st_mtime_ns, each.st_ctime_ns) for name, each in status.items()}


def test_what_is_told_stays(mount: MountedFilesystem) -> None:
    bucket, told = mount.path / "told", {}
    for name, call in CALLS.items():
        at = bucket / name
        for folder in ("d", "e"):
            (at / folder).mkdir(parents=True)
        for file in ("f", "g"):
            (at / file).write_text("content")
        os.link(at / "f", at / "h")
        call(at)
        told[name] = _times(at)
    mount.remount()
    assert {name: _times(bucket / name) for name in CALLS} == told

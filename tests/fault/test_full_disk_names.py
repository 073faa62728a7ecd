"""The server's disk is full, or its quota is used up: each call that makes or changes a name says
ENOSPC at once, nothing of it stays, and once there is room it works.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from filesfs.fuse.guard import errno_of
from tests.fault.disks import MIB, fill, small_disk
from tests.fault.quota import quota_of
from tests.mount.mounting import MountedFilesystem, mounted
from tests.posix.calls import EXCHANGE, NOREPLACE, renameat2
from tests.posix.clock import wait_for
from tests.server.running import RunningServer, running_server

SECONDS = 2.0  # a full disk is told at once, not when the deadline has passed
pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Place:
    """A mount, and what takes all room of its server."""

    mount: MountedFilesystem
    no_room: Callable[[], AbstractContextManager[None]]


@contextmanager
def _filled(disk: Path) -> Iterator[None]:
    filler = fill(disk)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _on_a_small_disk(folder: Path) -> Iterator[Place]:
    with (
        small_disk(folder / "disk", 24) as disk,
        running_server(disk / "data") as server,
        _mounted(server, folder) as mount,
    ):
        yield Place(mount, lambda: _filled(disk))


@contextmanager
def _with_a_quota(folder: Path) -> Iterator[Place]:
    quota = quota_of(folder / "data", folder)
    with quota.obeyed():
        starting = running_server(folder / "data")
        server = starting.__enter__()
    try:
        with _mounted(server, folder) as mount:
            yield Place(mount, quota.used_up)
    finally:
        starting.__exit__(None, None, None)


def _mounted(server: RunningServer, folder: Path) -> AbstractContextManager[MountedFilesystem]:
    return mounted(server.url, folder, "timeout=10", "xattr")


@pytest.fixture(scope="module", params=[_on_a_small_disk, _with_a_quota], ids=["disk", "quota"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with request.param(tmp_path_factory.mktemp("full")) as place:
        (place.mount.path / "all").mkdir()
        yield place


def _create(path: Path, flags: int = 0) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | flags))


# In a directory with the files f and g, and the directory d with a file in it.
CALLS: dict[str, Callable[[Path], object]] = {
    "mkdir": lambda at: (at / "new").mkdir(),
    "mkdir of a bucket": lambda at: (at.parent.parent / f"bucket-{at.name}").mkdir(),
    "symlink": lambda at: (at / "new").symlink_to("target"),
    "link": lambda at: os.link(at / "f", at / "new"),
    "mknod": lambda at: os.mknod(at / "new"),
    "mkfifo": lambda at: os.mkfifo(at / "new"),
    "open": lambda at: _create(at / "new", os.O_EXCL),
    "open and close": lambda at: _create(at / "new"),
    "a small file": lambda at: (at / "new").write_bytes(b"x" * 1000),
    "a large file": lambda at: (at / "new").write_bytes(bytes(5 * MIB)),
    "a small file again": lambda at: (at / "f").write_bytes(b"x" * 1000),
    "rename": lambda at: (at / "f").rename(at / "new"),
    "rename over a file": lambda at: (at / "f").rename(at / "g"),
    "rename of a directory": lambda at: (at / "d").rename(at / "new"),
    "rename to another directory": lambda at: (at / "f").rename(at / "d/new"),
    "rename to a free name": lambda at: renameat2(str(at / "f"), str(at / "new"), NOREPLACE),
    "exchange": lambda at: renameat2(str(at / "f"), str(at / "d"), EXCHANGE),
    "setxattr": lambda at: os.setxattr(at / "f", "user.new", b"value"),
    "removexattr": lambda at: os.removexattr(at / "f", "user.old"),
    "chmod": lambda at: (at / "f").chmod(0o600),
    "chown of a directory": lambda at: os.chown(at / "d", 5, 6),
    "utime": lambda at: os.utime(at / "f", (1, 2)),
    "truncate": lambda at: os.truncate(at / "f", 3),
}


# What these wrote goes when the kernel has let go of the file, which close() does not wait for.
AT_CLOSE = {"open and close", "a small file", "a large file", "a small file again"}
assert CALLS.keys() >= AT_CLOSE


def _picture(at: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in (at, *at.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        names = os.listxattr(path, follow_symlinks=False)
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        modified = status.st_mtime_ns if path != at else None  # a file may have been there
        found[str(path.relative_to(at))] = (
            *(status.st_ino, modified, status.st_mode, status.st_nlink, status.st_uid),
            *(content, attributes),
        )
    return found


def _looks(at: Path, picture: dict[str, tuple[object, ...]]) -> bool:
    try:
        return _picture(at) == picture
    except OSError:  # it goes this moment
        return False


def _refused(call: Callable[[], object]) -> None:
    start = time.monotonic()
    with pytest.raises(OSError, match="Errno") as caught:
        call()
    assert caught.value.errno == errno.ENOSPC
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("name", CALLS)
def test_no_room(place: Place, name: str) -> None:
    call, at = CALLS[name], place.mount.path / "all" / name
    at.mkdir()
    (at / "d").mkdir()
    for file in ("f", "g", "d/f"):
        (at / file).write_text(f"content of {file}")
    os.setxattr(at / "f", "user.old", b"value")
    before, buckets = _picture(at), os.listdir(place.mount.path)
    with place.no_room():
        for _ in range(2):
            _refused(lambda: call(at))
            if name in AT_CLOSE:  # at once, while the kernel may still know what goes; and later
                _refused(lambda: call(at))
                wait_for(lambda: _looks(at, before), SECONDS)
            assert _picture(at) == before
    assert _picture(at) == before
    assert os.listdir(place.mount.path) == buckets
    call(at)
    assert _picture(at) != before or os.listdir(place.mount.path) != buckets


def test_nothing_else_is_there_after_it(place: Place) -> None:
    """A mount that knows nothing from before sees what this one saw."""
    root = place.mount.path
    seen = []
    for _ in range(2):
        picture = _picture(root / "all")
        lasting = {name: told[2:] for name, told in picture.items()}
        seen.append((lasting, sorted(os.listdir(root))))
        place.mount.remount()
    assert seen[0] == seen[1]


def test_the_mounts_own_quota_is_told_as_it_is() -> None:
    assert errno_of(OSError(errno.EDQUOT, "Disk quota exceeded"))[0] == errno.EDQUOT

"""A read-only mount answers EROFS to each change, and reads as ever."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.posix.calls import EXCHANGE, renameat2

if TYPE_CHECKING:
    from tests.server.running import RunningServer


@pytest.fixture(scope="module")
def locked(
    server: RunningServer, mount: MountedFilesystem, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A read-only view of a bucket with a file and a directory."""
    bucket = mount.path / "locked"
    (bucket / "d").mkdir(parents=True)
    (bucket / "f").write_text("content")
    with mounted(server.url, tmp_path_factory.mktemp("ro"), "ro", "xattr") as it:
        yield it.path / "locked"


CALLS: dict[str, Callable[[str], object]] = {
    "create": lambda p: os.open(f"{p}/new", os.O_CREAT | os.O_WRONLY),
    "open-write": lambda p: os.open(f"{p}/f", os.O_WRONLY),
    "open-truncate": lambda p: os.open(f"{p}/f", os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda p: os.truncate(f"{p}/f", 0),
    "mkdir": lambda p: os.mkdir(f"{p}/new"),
    "rmdir": lambda p: os.rmdir(f"{p}/d"),
    "unlink": lambda p: os.unlink(f"{p}/f"),
    "rename": lambda p: os.rename(f"{p}/f", f"{p}/g"),
    "exchange": lambda p: renameat2(f"{p}/f", f"{p}/d", EXCHANGE),
    "link": lambda p: os.link(f"{p}/f", f"{p}/g"),
    "symlink": lambda p: os.symlink("x", f"{p}/g"),
    "mkfifo": lambda p: os.mkfifo(f"{p}/g"),
    "mknod": lambda p: os.mknod(f"{p}/g"),
    "chmod": lambda p: os.chmod(f"{p}/f", 0o600),
    "chown": lambda p: os.chown(f"{p}/f", 1, 1),
    "utime": lambda p: os.utime(f"{p}/f", (1, 1)),
    "setxattr": lambda p: os.setxattr(f"{p}/f", "user.x", b""),
    "mkdir-bucket": lambda p: os.mkdir(f"{p}/../new"),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_change_is_refused(locked: Path, name: str) -> None:
    with pytest.raises(OSError, match=r".*") as caught:
        CALLS[name](str(locked))
    assert caught.value.errno == errno.EROFS


def test_reading_works(locked: Path) -> None:
    assert (locked / "f").read_text() == "content"
    assert sorted(os.listdir(locked)) == ["d", "f"]
    assert not os.access(locked / "f", os.W_OK)

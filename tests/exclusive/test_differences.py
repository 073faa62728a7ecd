"""What `-o exclusive` does otherwise than docs/SEMANTICS.md promises for every mount, and what it
does although the kernel has the writes first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.mount.mounting import MountedFilesystem
from tests.posix.clock import wait_for
from tests.posix.users import NOBODY, SOMEBODY, User
from tests.server.running import RunningServer

BEYOND = (16 << 40) + 1


def test_close_and_fsync_still_mean_it(mount: MountedFilesystem, bucket: Path) -> None:
    """What the kernel has gathered is on the server before they return, not when it likes."""
    data = os.urandom(300_000)
    with (bucket / "closed").open("wb", buffering=4096) as file:
        file.write(data)
    held = os.open(bucket / "synced", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(held, data)
        os.fsync(held)
        mount.kill()
    finally:
        with contextlib.suppress(OSError):  # there is nobody behind it any more
            os.close(held)
    mount.start()
    assert [(bucket / name).read_bytes() == data for name in ("closed", "synced")] == [True] * 2


def test_too_large_is_told_by_close(bucket: Path) -> None:
    """As EIO: for an error of writes that it gathered the kernel has that one and ENOSPC."""
    path = bucket / "file"
    path.write_bytes(b"as it was")
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"x", BEYOND)
    with pytest.raises(OSError, match="Input/output error") as refused:
        os.close(descriptor)
    assert refused.value.errno == errno.EIO


def test_times_beyond_what_is_held_show_after_a_remount(
    mount: MountedFilesystem, bucket: Path
) -> None:
    path = bucket / "file"
    path.touch()
    far = int(datetime(2400, 6, 1, tzinfo=UTC).timestamp())
    os.utime(path, (far, far))
    assert path.stat().st_mtime == far
    mount.remount()
    assert datetime.fromtimestamp(path.stat().st_mtime, UTC).year == 2262


def test_a_written_mode_shows_at_close(bucket: Path) -> None:
    path = bucket / "file"
    path.touch()
    os.chown(path, NOBODY, NOBODY + 1)
    path.chmod(0o2777)  # and who writes is no member of its group

    stranger = User(bucket, SOMEBODY)
    try:
        stranger.run(Path("file").write_bytes, b"x")
    finally:
        stranger.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


def test_ctime_is_the_kernels_until_the_next_mount(mount: MountedFilesystem, bucket: Path) -> None:
    path = bucket / "file"
    path.write_bytes(b"content")
    path.rename(bucket / "other")
    told = (bucket / "other").stat()
    mount.remount()
    found = (bucket / "other").stat()
    assert found.st_mtime_ns == told.st_mtime_ns
    assert abs(found.st_ctime_ns - told.st_ctime_ns) < 10**9


def test_what_another_client_changes_has_a_new_inode(bucket: Path, elsewhere: Path) -> None:
    """The kernel would keep the size and times of the one that it knows."""
    path, link = bucket / "file", bucket / "link"
    path.write_bytes(b"short")
    os.link(path, link)
    before = path.stat()
    with path.open("rb") as held:
        there = elsewhere / "file"
        there.write_bytes(b"not so short")
        wait_for(lambda: path.stat().st_size == 12, 5)
        assert (path.read_bytes(), link.read_bytes(), held.read()) == (
            *[b"not so short"] * 2,
            b"short",
        )
        assert path.stat().st_ino == link.stat().st_ino != before.st_ino
        os.utime(there, ns=(7, 7))
        wait_for(lambda: path.stat().st_mtime_ns == 7, 5)


def test_a_writer_whose_file_another_client_changed_closes_last_and_wins(
    bucket: Path, elsewhere: Path
) -> None:
    """Also while all that it wrote is the kernel's alone."""
    path = bucket / "file"
    path.write_bytes(b"0" * 10)
    there = elsewhere / "file"
    with path.open("r+b", buffering=0) as file:
        file.write(b"ours")
        there.write_bytes(b"theirs")
        wait_for(lambda: path.stat().st_size == 6, 5)
    assert there.read_bytes() == path.read_bytes() == b"ours000000"


def test_a_rename_sends_no_times(server: RunningServer, bucket: Path) -> None:
    """The kernel tells them to the mount again after each rename and link."""
    path = bucket / "file"
    path.write_bytes(b"content")
    path.rename(bucket / "other")
    os.link(bucket / "other", path)
    (bucket / "last").write_bytes(b"")

    def changes() -> int:
        lines = server.log().splitlines()
        return sum('"PATCH"' in line and f"/{bucket.name}/" in line for line in lines)

    wait_for(lambda: f"/{bucket.name}/last" in server.log(), 10)
    assert changes() == 0
    os.utime(path, ns=(1, 1))
    wait_for(lambda: changes() == 1, 10)

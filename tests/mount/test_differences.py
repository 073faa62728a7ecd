"""Where the mount differs from POSIX and from local file systems: it does so as docs/SEMANTICS.md
says. tmpfs fails these.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.mount.places import ELSEWHERE
from tests.mount.test_basics import run
from tests.posix.calls import NOREPLACE, renameat2
from tests.posix.clock import wait_for
from tests.posix.users import NOBODY, User

if TYPE_CHECKING:
    from tests.server.running import RunningServer

pytestmark = pytest.mark.skipif(bool(ELSEWHERE), reason="about what only the mount does")


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r".*") as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


@pytest.fixture(scope="module")
def other(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedFilesystem]:
    """A second mount, without extended attributes."""
    with mounted(server.url, tmp_path_factory.mktemp("other")) as it:
        yield it


@pytest.fixture
def there(place: Path, other: MountedFilesystem) -> Path:
    """The same directory in the other mount."""
    path = other.path / place.name
    wait_for(path.is_dir, 5)
    return path


def test_reading_leaves_atime(place: Path) -> None:
    (place / "f").write_text("content")
    os.utime(place / "f", ns=(5, 7))
    assert (place / "f").read_text() == "content"
    os.listdir(place)
    assert (place / "f").stat().st_atime_ns == 5


def test_buckets_are_not_renamed_and_mv_copies(mount: MountedFilesystem) -> None:
    one, two = mount.path / "named-one", mount.path / "named-two"
    one.mkdir()
    (one / "f").write_text("content")
    assert failure(lambda: one.rename(two)) == "EXDEV"
    assert failure(lambda: one.rename(mount.path / "named-one" / "x")) == "EINVAL"
    run("mv", one, two)
    assert (two / "f").read_text() == "content"
    assert not one.exists()


def test_extended_attributes_are_refused_without_the_option(place: Path, there: Path) -> None:
    (place / "f").write_text("content")
    assert failure(lambda: os.setxattr(there / "f", "user.x", b"1")) == "ENOTSUP"
    assert failure(lambda: os.getxattr(there / "f", "user.x")) == "ENOTSUP"
    assert failure(lambda: os.listxattr(there / "f")) == "ENOTSUP"


def test_extended_attributes_have_64_kib_an_entry(place: Path) -> None:
    (place / "f").write_text("content")
    os.setxattr(place / "f", "user.one", b"x" * 40_000)
    assert failure(lambda: os.setxattr(place / "f", "user.two", b"x" * 40_000)) == "ENOSPC"
    os.setxattr(place / "f", "user.one", b"x")
    os.setxattr(place / "f", "user.two", b"x" * 40_000)


def test_who_opened_counts_for_setuid_as_who_writes_does(place: Path) -> None:
    (place / "f").write_text("content")
    user = User(place, NOBODY)
    for by_root in (False, True):
        (place / "f").chmod(0o4777)
        if by_root:
            number = os.open(place / "f", os.O_WRONLY)
            user.run(os.write, number, b"theirs")
        else:
            number = user.run(os.open, "f", os.O_WRONLY)
            os.write(number, b"root's")
        os.close(number)
        assert (place / "f").stat().st_mode & 0o7777 == 0o777
    user.close()


def test_a_link_count_that_others_changed_is_right_at_the_next_lookup(
    place: Path, there: Path
) -> None:
    (place / "one").write_text("content")
    os.link(place / "one", place / "two")
    with (place / "one").open() as stream:
        (there / "two").unlink()
        wait_for(lambda: not (place / "two").exists(), 5)
        wait_for(lambda: (place / "one").stat().st_nlink == 1, 5)
        assert os.fstat(stream.fileno()).st_nlink in (1, 2)


def test_directories_have_no_size(place: Path) -> None:
    (place / "d").mkdir()
    for index in range(50):
        (place / f"d/{index}").touch()
    assert ((place / "d").stat().st_size, (place / "d").stat().st_blocks) == (0, 0)


def test_locks_end_at_the_mount(place: Path, there: Path) -> None:
    (place / "f").write_text("content")
    with (place / "f").open("r+") as here, (there / "f").open("r+") as elsewhere:
        for stream in (here, elsewhere):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_noreplace_takes_a_name_once_among_mounts(place: Path, there: Path) -> None:
    won = []
    for index, folder in enumerate((place, there) * 4):
        mine = folder / f"mine-{index}"
        mine.write_text(str(index))
        try:
            renameat2(str(mine), str(folder / "lock"), NOREPLACE)
        except FileExistsError:
            mine.unlink()
        else:
            won.append(index)
    assert won == [0]
    assert (place / "lock").read_text() == "0"
    assert sorted(os.listdir(place)) == ["lock"]


def test_close_tells_that_the_server_did_not_take_it(tmp_path: Path) -> None:
    from tests.server.running import running_server

    with (
        running_server(tmp_path / "data") as server,
        mounted(server.url, tmp_path, "timeout=2") as mount,
    ):
        (mount.path / "b").mkdir()
        stream = (mount.path / "b/f").open("wb", buffering=0)
        stream.write(b"content")
        server.kill()
        assert failure(stream.close) == "EIO"
        server.start()
        done = subprocess.run(["cp", "/bin/true", mount.path / "b/g"], timeout=60, check=False)
        assert done.returncode == 0


# Type, permissions, who: the owner all, user 64999 reads and writes.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 7, 0xFFFFFFFF), (2, 6, 64999), *((t, 6, 0xFFFFFFFF) for t in (4, 16, 32)))
)


def test_registered_locations_say_what_they_cannot(tmp_path: Path) -> None:
    from tests.server.running import running_server

    (tmp_path / "root/desk/sub").mkdir(parents=True)
    with running_server(tmp_path / "data", file_root=[str(tmp_path / "root")]) as server:
        uri = quote(f"file://{tmp_path}/root/desk", safe="")
        with httpx.Client(trust_env=False) as client:
            client.put(f"{server.url}/v1/files/{uri}?mode=rw").raise_for_status()
        for source, below in ((server.url, "desk/sub"), (f"{server.url}/desk/sub", "")):
            with mounted(source, tmp_path, "xattr", "allow_other") as mount:
                _refuses(mount.path / below)


def _refuses(folder: Path) -> None:
    (folder / "f").write_text("content")
    for refused, call in (
        ("EXDEV", lambda: (folder / "f").rename(folder / "g")),
        ("EPERM", lambda: os.link(folder / "f", folder / "g")),
        ("ENOTSUP", lambda: (folder / "g").symlink_to("f")),
        ("ENOTSUP", lambda: os.mkfifo(folder / "g")),
        ("ENOTSUP", lambda: os.setxattr(folder / "f", "user.x", b"1")),
        ("ENOTSUP", lambda: os.setxattr(folder / "f", "system.posix_acl_access", ACL)),
        ("ENOTSUP", lambda: os.setxattr(folder, "system.posix_acl_default", ACL)),
    ):
        assert failure(call) == refused
    with (folder / "f").open("w") as stream:
        stream.write("written")
        assert failure(lambda: os.setxattr(stream.fileno(), "user.x", b"1")) == "ENOTSUP"
    with (folder / "new").open("w") as stream:
        stream.write("new")
        assert failure(lambda: os.setxattr(stream.fileno(), "user.x", b"1")) == "ENOTSUP"
    assert (folder / "f").read_text() == "written"
    assert (folder / "new").read_text() == "new"
    (folder / "f").unlink()
    (folder / "new").unlink()

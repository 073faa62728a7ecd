"""Tools that carry access control lists: with `-o xattr` they are kept and shared, without it they
are refused as the tools expect it.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.mount.test_basics import run
from tests.mount.test_tools import need
from tests.posix.clock import wait_for
from tests.posix.users import SOMEBODY, User
from tests.server.running import RunningServer

ACCESS = "system.posix_acl_access"


@pytest.fixture(autouse=True)
def _tools() -> None:
    need("setfacl")


@pytest.fixture
def source(place: Path) -> Path:
    """A tree with lists, on the mount."""
    root = place / "source"
    (root / "d").mkdir(parents=True)
    run("setfacl", "-d", "-m", "u:64999:rwX,g:4242:rX", root / "d")
    (root / "d/inherits").write_text("content")
    (root / "f").write_text("content")
    run("setfacl", "-m", "u:64999:rw,g:4242:r,m::rw", root / "f")
    return root


def lists(root: Path) -> str:
    return run("getfacl", "-R", "-n", ".", cwd=root)


def test_getfacl_shows_what_setfacl_set(source: Path) -> None:
    told = run("getfacl", "-n", "-c", "f", cwd=source).split()
    expected = ["user::rw-", "user:64999:rw-", "group::r--", "group:4242:r--", "mask::rw-"]
    assert told == [*expected, "other::r--"]
    assert "user:64999:rwx" in run("getfacl", "-n", "d/inherits", cwd=source)
    assert "mask::rw-" in run("getfacl", "-n", "d/inherits", cwd=source)
    run("setfacl", "-R", "-b", source)
    assert "64999" not in lists(source)


@pytest.mark.parametrize("tool", ["cp", "rsync", "tar"])
def test_copies_keep_lists(place: Path, source: Path, tool: str, tmp_path: Path) -> None:
    copy = place / "copy"
    if tool == "cp":
        run("cp", "-a", source, copy)
    elif tool == "rsync":
        need("rsync")
        run("rsync", "-aAX", f"{source}/", copy)
        told = run("rsync", "-aAXi", f"{source}/", copy)
        assert told == ""
    else:
        copy.mkdir()
        run("tar", "--acls", "-cf", tmp_path / "t.tar", "-C", source, ".")
        run("tar", "--acls", "-xpf", tmp_path / "t.tar", "-C", copy)
    assert lists(copy) == lists(source)


def test_another_mount_enforces_them_at_once(
    server: RunningServer, mount: MountedFilesystem, place: Path, tmp_path: Path
) -> None:
    with mounted(server.url, tmp_path, "allow_other", "xattr") as other:
        folder = other.path / place.name
        (place / "f").write_text("content")
        (place / "f").chmod(0o600)
        somebody = User(folder, SOMEBODY)

        def may_read() -> bool:
            return somebody.run(os.access, "f", os.R_OK)

        assert not may_read()
        run("setfacl", "-m", f"u:{SOMEBODY}:r", place / "f")
        wait_for(may_read, 5)
        (folder / "f").chmod(0o600)  # the mask
        assert not may_read()
        assert "#effective:---" in run("getfacl", "-n", "-e", place / "f")
        somebody.close()


# -- without -o xattr -----------------------------------------------------------------------------
@pytest.fixture
def plain(server: RunningServer, place: Path, tmp_path: Path) -> Iterator[Path]:
    """The same directory on a mount without extended attributes."""
    with mounted(server.url, tmp_path, "allow_other") as other:
        yield other.path / place.name


def test_tools_are_told_that_there_are_none(source: Path, plain: Path) -> None:
    done = subprocess.run(
        ["setfacl", "-m", "u:64999:rw", plain / "source/f"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("Operation not supported\n")
    with pytest.raises(OSError, match=r".*") as caught:
        os.getxattr(plain / "source/f", ACCESS)
    assert caught.value.errno == errno.ENODATA
    run("setfacl", "-R", "-b", source)
    run("cp", "-a", source, plain / "copy")  # keeps modes, says nothing
    for name in ("d", "f", "d/inherits"):
        assert (plain / "copy" / name).stat().st_mode == (source / name).stat().st_mode


def test_chmod_where_nobody_enforces_changes_the_list(source: Path, plain: Path) -> None:
    (plain / "source/f").chmod(0o640)
    wait_for(lambda: "mask::r--" in run("getfacl", "-n", source / "f"), 5)
    (plain / "source/d/late").write_text("content")
    assert "user:64999:rwx" in run("getfacl", "-n", source / "d/late")  # inherited there too


# -- the mount itself -----------------------------------------------------------------------------
@pytest.mark.parametrize("end", ["umount", "SIGTERM", "busy"])
def test_such_a_mount_ends_as_others_do(server: RunningServer, tmp_path: Path, end: str) -> None:
    with mounted(server.url, tmp_path, "xattr", "noexec") as mount:
        with Path("/proc/mounts").open() as table:
            (line,) = (line for line in table if f" {mount.path} " in line)
        assert line.split()[2] == "fuse.filesfs"
        assert {"nosuid", "nodev", "noexec"} <= set(line.split()[3].split(","))
        (mount.path / "bucket").mkdir(exist_ok=True)
        assert mount.process is not None
        if end == "umount":
            mount.unmount()
        elif end == "SIGTERM":
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(30) == 0
        else:
            held = os.open(mount.path / "bucket", os.O_RDONLY)
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(60) == 0
            os.close(held)
        assert not os.path.ismount(mount.path)

"""Access control lists (the mount has `-o xattr`, and root mounted it): kept, and enforced."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.places import ELSEWHERE
from tests.posix.users import NOBODY, SOMEBODY, User

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
TEAM = 4242
ANYBODY = 0xFFFFFFFF


def listed(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    """The form that extended attributes have, of (tag, permissions) or (tag, permissions, who)."""
    whole = [entry if len(entry) == 3 else (*entry, ANYBODY) for entry in entries]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in whole)


def told(path: Path, name: str = ACCESS) -> list[tuple[int, int, int]]:
    return list(struct.iter_unpack("<HHI", os.getxattr(path, name)[4:]))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r".*") as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


# The owner all, SOMEBODY reads and writes, the file's group and the team read.
SHARED = listed(
    (OWNER, 7), (USER, 6, SOMEBODY), (GROUP, 4), (NAMED_GROUP, 4, TEAM), (MASK, 6), (OTHER, 0)
)


@pytest.fixture
def somebody(place: Path) -> Iterator[User]:
    user = User(place, SOMEBODY)
    yield user
    user.close()


@pytest.fixture
def nobody(place: Path) -> Iterator[User]:
    user = User(place, NOBODY)
    yield user
    user.close()


@pytest.fixture
def member(place: Path) -> Iterator[User]:
    user = User(place, 64123, groups=(TEAM,))
    yield user
    user.close()


@pytest.fixture
def shared(place: Path) -> Path:
    path = place / "f"
    path.write_text("content")
    os.setxattr(path, ACCESS, SHARED)
    return path


def test_the_kernel_enforces_a_list(
    shared: Path, somebody: User, member: User, nobody: User
) -> None:
    assert somebody.run(lambda: Path("f").read_text()) == "content"
    somebody.run(lambda: Path("f").write_text("theirs"))
    assert member.run(lambda: Path("f").read_text()) == "theirs"
    assert errno_of(lambda: member.run(lambda: Path("f").write_text("x"))) == "EACCES"
    assert errno_of(lambda: nobody.run(lambda: Path("f").read_text())) == "EACCES"
    assert shared.read_text() == "theirs"


def test_a_list_sets_the_mode(shared: Path) -> None:
    assert mode_of(shared) == 0o760
    os.setxattr(shared, ACCESS, listed((OWNER, 6), (GROUP, 4), (OTHER, 4)))
    assert mode_of(shared) == 0o644  # which says it all
    assert errno_of(lambda: os.getxattr(shared, ACCESS)) == "ENODATA"
    assert ACCESS not in os.listxattr(shared)


def test_chmod_changes_the_mask(shared: Path, somebody: User) -> None:
    shared.chmod(0o640)
    assert (MASK, 4, ANYBODY) in told(shared)
    assert (USER, 6, SOMEBODY) in told(shared)
    assert (OWNER, 6, ANYBODY) in told(shared)
    assert errno_of(lambda: somebody.run(lambda: Path("f").write_text("x"))) == "EACCES"
    assert somebody.run(lambda: Path("f").read_text()) == "content"
    shared.chmod(0o600)
    assert errno_of(lambda: somebody.run(lambda: Path("f").read_text())) == "EACCES"


def test_a_list_that_goes(shared: Path, somebody: User) -> None:
    os.removexattr(shared, ACCESS)
    assert errno_of(lambda: somebody.run(lambda: Path("f").write_text("x"))) == "EACCES"
    os.removexattr(shared, ACCESS)  # once more is no error
    assert mode_of(shared) == 0o760


def test_only_the_owner_sets_it(shared: Path, somebody: User) -> None:
    assert errno_of(lambda: somebody.run(os.setxattr, "f", ACCESS, SHARED)) == "EPERM"
    assert errno_of(lambda: somebody.run(os.removexattr, "f", ACCESS)) == "EPERM"
    assert errno_of(lambda: os.setxattr(shared, ACCESS, b"nonsense")) in ("EINVAL", "ENOTSUP")
    assert errno_of(lambda: os.setxattr(shared, DEFAULT, SHARED)) == "EACCES"


@pytest.mark.parametrize("kind", ["file", "exclusive", "folder", "fifo"])
@pytest.mark.parametrize("asked", [0o777, 0o666, 0o600, 0o640])
def test_what_is_created_inherits(place: Path, kind: str, asked: int) -> None:
    """The list takes the umask's place; what the caller does not ask for is not given."""
    os.setxattr(place, DEFAULT, SHARED)
    path = place / "new"
    old = os.umask(0o027)
    try:
        if kind == "folder":
            path.mkdir(asked)
        elif kind == "fifo":
            os.mkfifo(path, asked)
        else:
            flags = os.O_CREAT | os.O_WRONLY | (os.O_EXCL if kind == "exclusive" else 0)
            os.close(os.open(path, flags, asked))
    finally:
        os.umask(old)
    assert mode_of(path) == asked & 0o760
    assert (MASK, asked >> 3 & 6, ANYBODY) in told(path)
    assert (USER, 6, SOMEBODY) in told(path)
    if kind == "folder":
        assert told(path, DEFAULT) == told(place, DEFAULT)
    else:
        assert errno_of(lambda: os.getxattr(path, DEFAULT)) == "ENODATA"


def test_a_default_that_a_mode_can_say(place: Path) -> None:
    os.setxattr(place, DEFAULT, listed((OWNER, 7), (GROUP, 7), (OTHER, 0)))
    (place / "f").touch(0o666)
    assert mode_of(place / "f") == 0o660
    assert errno_of(lambda: os.getxattr(place / "f", ACCESS)) == "ENODATA"
    (place / "link").symlink_to("f")
    assert stat.S_IMODE((place / "link").lstat().st_mode) == 0o777


def test_without_a_default_the_umask_holds(place: Path) -> None:
    old = os.umask(0o027)
    (place / "f").touch(0o666)
    (place / "d").mkdir()
    os.umask(old)
    assert [mode_of(place / name) for name in "fd"] == [0o640, 0o750]


def test_setgid_goes_when_one_outside_the_group_sets_a_list(place: Path) -> None:
    for name, group, kept in (("in", NOBODY, 0o2000), ("team", TEAM, 0o2000), ("out", 77, 0)):
        (place / name).touch()
        os.chown(place / name, NOBODY, group)
        (place / name).chmod(0o2770)
        user = User(place, NOBODY, groups=(TEAM,))
        user.run(os.setxattr, name, ACCESS, SHARED)
        user.close()
        assert mode_of(place / name) == 0o760 | kept, name


def test_a_list_on_a_file_that_is_being_written(place: Path, somebody: User) -> None:
    with (place / "f").open("w") as stream:
        os.setxattr(stream.fileno(), ACCESS, SHARED)
        stream.write("content")
    assert told(place / "f")[1] == (USER, 6, SOMEBODY)
    assert somebody.run(lambda: Path("f").read_text()) == "content"


def test_a_list_of_many(place: Path, request: pytest.FixtureRequest) -> None:
    """As many as fit into what the kernel takes from FUSE, a page; also over a remount."""
    users = [(USER, 4, 10_000 + index) for index in range(500)]
    acl = listed((OWNER, 7), *users, (GROUP, 4), (MASK, 7), (OTHER, 0))
    os.setxattr(place, DEFAULT, acl)
    os.setxattr(place, ACCESS, acl)
    (place / "d").mkdir()
    (place / "d/f").write_text("content")
    for _ in range(2):
        assert len(told(place / "d", DEFAULT)) == len(told(place / "d/f")) == 504
        if not ELSEWHERE:
            request.getfixturevalue("mount").remount()

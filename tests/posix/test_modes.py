"""Modes and owners: umask, setuid and setgid, sticky, inheritance, several users, groups."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.users import NOBODY, SOMEBODY, User


@pytest.fixture
def user(place: Path) -> Iterator[User]:
    place.chmod(0o777)
    user = User(place, NOBODY)
    yield user
    user.close()


@pytest.fixture
def other(place: Path) -> Iterator[User]:
    user = User(place, SOMEBODY)
    yield user
    user.close()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _write(path: str, flags: int = os.O_WRONLY, data: bytes = b"x", mode: int = 0o666) -> None:
    descriptor = os.open(path, flags, mode)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _create(path: str, umask: int, mode: int) -> None:
    os.umask(umask)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))
    os.mkdir(f"{path}.d", mode)
    os.mkfifo(f"{path}.p", mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_umask(place: Path, user: User, umask: int) -> None:
    user.run(_create, "f", umask, 0o777)
    for name in ("f", "f.d", "f.p"):
        assert _mode(place / name) == 0o777 & ~umask
        assert (place / name).stat().st_uid == NOBODY
        assert (place / name).stat().st_gid == NOBODY


def test_a_symlink_is_0777(place: Path, user: User) -> None:
    user.run(os.symlink, "x", "link")
    assert _mode(place / "link") == 0o777
    assert (place / "link").lstat().st_uid == NOBODY


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o1777, 0o2755, 0o4755, 0o6777, 0o7777])
def test_chmod_keeps_twelve_bits(place: Path, mode: int) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    for name in ("f", "d"):
        (place / name).chmod(mode)
        assert _mode(place / name) == mode


def test_chown_of_all_kinds(place: Path) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "l").symlink_to("f")
    os.mkfifo(place / "p")
    for index, name in enumerate(("f", "d", "l", "p")):
        os.chown(place / name, 100 + index, 200 + index, follow_symlinks=False)
    for index, name in enumerate(("f", "d", "l", "p")):
        status = (place / name).lstat()
        assert (status.st_uid, status.st_gid) == (100 + index, 200 + index)


def test_chown_of_one_leaves_the_other(place: Path) -> None:
    (place / "f").touch()
    os.chown(place / "f", 5, 6)
    os.chown(place / "f", 7, -1)
    os.chown(place / "f", -1, 8)
    assert ((place / "f").stat().st_uid, (place / "f").stat().st_gid) == (7, 8)


def _setid(place: Path, mode: int) -> Path:
    path = place / "f"
    path.write_text("content")
    os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("mode", "left"),
    [(0o4755, 0o0755), (0o2755, 0o0755), (0o6775, 0o0775), (0o1755, 0o1755), (0o2745, 0o2745)],
)
def test_chown_by_root_clears_setid(place: Path, mode: int, left: int) -> None:
    path = _setid(place, mode)
    os.chown(path, 1, 1)
    assert _mode(path) == left


def test_chown_to_itself_by_the_owner_clears_setid(place: Path, user: User) -> None:
    path = _setid(place, 0o6755)
    user.run(os.chown, "f", NOBODY, NOBODY)
    assert _mode(path) == 0o755


def test_chown_of_a_directory_keeps_setid(place: Path) -> None:
    (place / "d").mkdir()
    (place / "d").chmod(0o6755)
    os.chown(place / "d", 1, 1)
    assert _mode(place / "d") == 0o6755


@pytest.mark.parametrize(
    ("mode", "left"), [(0o4777, 0o777), (0o2777, 0o777), (0o6777, 0o777), (0o1777, 0o1777)]
)
def test_a_write_by_a_user_clears_setid(place: Path, user: User, mode: int, left: int) -> None:
    path = _setid(place, mode)
    user.run(_write, "f")
    assert _mode(path) == left


def test_a_write_by_a_user_keeps_setgid_without_execution(
    place: Path, other: User, user: User
) -> None:
    path = _setid(place, 0o2766)
    user.run(_write, "f")
    assert _mode(path) == 0o2766


def test_a_write_by_root_keeps_setid(place: Path) -> None:
    path = _setid(place, 0o6777)
    _write(str(path))
    assert _mode(path) == 0o6777


def test_truncate_by_a_user_clears_setid(place: Path, user: User) -> None:
    path = _setid(place, 0o6777)
    user.run(os.truncate, "f", 2)
    assert _mode(path) == 0o777


def test_truncation_at_open_by_a_user_clears_setid(place: Path, user: User) -> None:
    path = _setid(place, 0o6777)
    user.run(_write, "f", os.O_WRONLY | os.O_TRUNC, b"")
    assert _mode(path) == 0o777


def test_truncate_by_root_keeps_setid(place: Path) -> None:
    path = _setid(place, 0o6777)
    os.truncate(path, 2)
    assert _mode(path) == 0o6777


def test_chmod_by_a_stranger_to_the_group_clears_setgid(place: Path, user: User) -> None:
    (place / "f").touch()
    os.chown(place / "f", NOBODY, 1)  # the owner is not in the group
    user.run(os.chmod, "f", 0o2755)
    assert _mode(place / "f") == 0o755


def test_setgid_directory_hands_down_its_group(place: Path, user: User) -> None:
    folder = place / "d"
    folder.mkdir()
    os.chown(folder, 0, 77)
    folder.chmod(0o2777)
    user.run(_write, "d/f", os.O_WRONLY | os.O_CREAT)
    user.run(os.mkdir, "d/sub")
    user.run(os.symlink, "x", "d/link")
    user.run(os.mkfifo, "d/fifo")
    for name in ("f", "sub", "link", "fifo"):
        assert (folder / name).lstat().st_gid == 77, name
        assert (folder / name).lstat().st_uid == NOBODY
    assert _mode(folder / "sub") == 0o2755
    assert _mode(folder / "f") == 0o644


def test_setgid_of_a_new_file_in_a_strangers_group_is_cleared(place: Path, user: User) -> None:
    folder = place / "d"
    folder.mkdir()
    os.chown(folder, 0, 77)
    folder.chmod(0o2777)
    user.run(_create, "d/f", 0, 0o2777)
    assert _mode(folder / "f") == 0o777


def test_groups(place: Path) -> None:
    folder = place / "team"
    folder.mkdir()
    os.chown(folder, 0, 4242)
    folder.chmod(0o770)
    member = User(place, NOBODY, groups=(4242,))
    stranger = User(place, NOBODY)
    member.run(_write, "team/f", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(PermissionError):
        stranger.run(os.stat, "team/f")
    member.run(os.chown, "team/f", -1, 4242)  # to a group one belongs to
    assert (folder / "f").stat().st_gid == 4242
    member.close()
    stranger.close()


def test_sticky_lets_each_remove_its_own(place: Path, user: User, other: User) -> None:
    folder = place / "d"
    folder.mkdir()
    folder.chmod(0o1777)
    user.run(_write, "d/u", os.O_WRONLY | os.O_CREAT)
    other.run(_write, "d/o", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(PermissionError):
        other.run(os.unlink, "d/u")
    for old, new in (("d/u", "d/x"), ("d/o", "d/u")):
        with pytest.raises(PermissionError):
            other.run(os.rename, old, new)
    user.run(os.unlink, "d/u")
    other.run(os.rename, "d/o", "d/x")
    assert os.listdir(folder) == ["x"]


def test_a_file_of_no_mode_is_written_through_its_descriptor(place: Path, user: User) -> None:
    """Permission is checked at open: creating with mode 0 still gives a writable descriptor."""
    user.run(_write, "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, b"secret", 0)
    assert _mode(place / "f") == 0
    assert (place / "f").read_bytes() == b"secret"
    with pytest.raises(PermissionError):
        user.run(os.open, "f", os.O_RDONLY)


def test_chmod_of_an_open_file_leaves_the_descriptor(place: Path, user: User) -> None:
    user.run(_write, "f", os.O_WRONLY | os.O_CREAT)
    descriptor = user.run(os.open, "f", os.O_RDWR)
    (place / "f").chmod(0)
    assert user.run(os.pread, descriptor, 1, 0) == b"x"
    assert user.run(os.pwrite, descriptor, b"y", 0) == 1
    user.run(os.close, descriptor)
    assert (place / "f").read_bytes() == b"y"


def test_another_users_change_of_mode_is_seen_at_once(place: Path, user: User, other: User) -> None:
    user.run(_write, "f", os.O_WRONLY | os.O_CREAT)
    os.close(other.run(os.open, "f", os.O_RDONLY))
    user.run(os.chmod, "f", 0o600)
    with pytest.raises(PermissionError):
        other.run(os.open, "f", os.O_RDONLY)


def test_attributes_at_birth_are_the_callers(place: Path, user: User) -> None:
    user.run(_create, "f", 0o027, 0o666)
    assert _mode(place / "f") == 0o640
    assert _mode(place / "f.d") == 0o640
    user.run(_write, "g", os.O_WRONLY | os.O_CREAT | os.O_EXCL, b"", 0o600)
    assert _mode(place / "g") == 0o600

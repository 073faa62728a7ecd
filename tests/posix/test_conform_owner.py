"""chmod and chown of every kind of file, by root, owner and stranger, also through links."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from errno import EACCES, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest

from tests.posix.beside import FOLLOWED, ROOT, Error, Sides, Who, plant_kinds, sides_in
from tests.posix.calls import lchmod
from tests.posix.twins import KINDS
from tests.posix.users import NOBODY

LINKS = tuple(f"to-{kind}" for kind in FOLLOWED)
GROUP = 65533
OWNER = Who(NOBODY, 65532, (65532, 65531))  # of what `_give` gave away, and not in its group
MEMBER = Who(NOBODY, 65532, (GROUP,))
STRANGER = Who(64999)
REFUSED = Error(EPERM)


@pytest.fixture
def sides(module_place: Path) -> Iterator[Sides]:
    with sides_in(module_place) as both:
        both.do(ROOT, plant_kinds)
        yield both


def _chmod(mode: int) -> Callable[[str], object]:
    return lambda name: os.chmod(name, mode)


def _chown(uid: int, gid: int) -> Callable[[str], object]:
    return lambda name: os.chown(name, uid, gid)


def _lchown(uid: int, gid: int) -> Callable[[str], object]:
    return lambda name: os.lchown(name, uid, gid)


def _give(sides: Sides, mode: int | None = None) -> None:
    """All to the owner, in a group that is not his."""
    sides.do(ROOT, _lchown(NOBODY, GROUP), KINDS)
    if mode is not None:
        sides.do(ROOT, _chmod(mode), FOLLOWED)


def _modes(sides: Sides, names: tuple[str, ...]) -> set[str]:
    return {sides.shown(name)[1] for name in names}


def _owners(sides: Sides, names: tuple[str, ...]) -> set[tuple[int, int]]:
    return {sides.shown(name)[2:] for name in names}


def test_chmod_by_root(sides: Sides) -> None:
    for mode in ("0111", "0642", "1621", "6555"):
        sides.do(ROOT, _chmod(int(mode, 8)), FOLLOWED)
        assert _modes(sides, FOLLOWED) == {mode}
    sides.do(ROOT, _chmod(0o1700), LINKS)
    assert _modes(sides, FOLLOWED) == {"1700"}
    assert _modes(sides, LINKS) == {"0777"}


@pytest.mark.parametrize("owner", [OWNER, MEMBER])
def test_chmod_by_the_owner(sides: Sides, owner: Who) -> None:
    _give(sides)
    for mode in (0o642, 0o1644, 0o2755, 0o4755):
        sides.do(owner, _chmod(mode), FOLLOWED)
        sides.do(owner, _chmod(0o640), LINKS)
    sides.do(owner, _chmod(0o7777), LINKS)


def test_chmod_that_follows_no_link(sides: Sides) -> None:
    """A symbolic link has no mode of its own on Linux."""
    for who, answer in ((OWNER, REFUSED), (ROOT, None)):
        sides.do(who, lambda name: lchmod(name, 0o1621), FOLLOWED, answer)
        sides.do(who, lambda name: lchmod(name, 0o1621), ("symlink", *LINKS), Error(EOPNOTSUPP))
    assert _modes(sides, FOLLOWED) == {"1621"}


def test_chmod_by_a_stranger(sides: Sides) -> None:
    for mode in (0o644, 0o6777):
        _give(sides, mode)
        sides.do(STRANGER, _chmod(0o111), FOLLOWED + LINKS, REFUSED)
    sides.do(ROOT, _chown(0, 0), FOLLOWED)
    sides.do(OWNER, _chmod(0o111), FOLLOWED + LINKS, REFUSED)


def test_chown_by_root(sides: Sides) -> None:
    for names in (FOLLOWED, LINKS):
        sides.do(ROOT, _chown(123, 456), names)
        assert _owners(sides, FOLLOWED) == {(123, 456)}
        assert _owners(sides, LINKS) == {(0, 0)}
        for ids in ((0, -1), (-1, 0)):
            sides.do(ROOT, _chown(*ids), names)
        assert _owners(sides, FOLLOWED) == {(0, 0)}
    sides.do(ROOT, _lchown(123, 456), KINDS + LINKS)
    assert _owners(sides, KINDS + LINKS) == {(123, 456)}


def test_chown_by_root_and_setid(sides: Sides) -> None:
    for mode in (0o6555, 0o6666, 0o2745, 0o7777):
        for number, names in enumerate((FOLLOWED, LINKS)):
            sides.do(ROOT, _chmod(mode), FOLLOWED)
            sides.do(ROOT, _chown(number, number), names)


@pytest.mark.parametrize("owner", [OWNER, Who(NOBODY, 65532, (GROUP, 65532, 65531))])
def test_chown_by_the_owner_to_his_groups(sides: Sides, owner: Who) -> None:
    """Also when he is in the group that the file had."""
    for mode in (0o644, 0o6555, 0o6666, 0o2745):
        _give(sides, mode)
        sides.do(owner, _chown(-1, 65532), FOLLOWED)
        assert _owners(sides, FOLLOWED) == {(NOBODY, 65532)}
        sides.do(ROOT, _chmod(mode), FOLLOWED)
        sides.do(owner, _chown(NOBODY, 65531), LINKS)
        assert _owners(sides, FOLLOWED) == {(NOBODY, 65531)}
    sides.do(owner, _lchown(-1, 65532), KINDS)
    sides.do(owner, _lchown(NOBODY, 65531), KINDS)
    assert _owners(sides, KINDS) == {(NOBODY, 65531)}


def test_chown_that_asks_for_nothing(sides: Sides) -> None:
    """Linux moves ctime for it; POSIX does not ask for that, and it would be a request."""
    _give(sides)
    for mode in (0o644, 0o6555, 0o6666):
        for who in (ROOT, OWNER):
            sides.do(ROOT, _chmod(mode), FOLLOWED)
            sides.do(who, _chown(-1, -1), FOLLOWED, but="ctime")
            sides.do(who, _chown(-1, -1), LINKS, but="ctime")
            sides.do(who, _lchown(-1, -1), KINDS + LINKS, but="ctime")


def test_chown_of_others_that_asks_for_nothing(sides: Sides) -> None:
    before = [(sides.roots[0] / name).lstat() for name in KINDS]
    sides.do(STRANGER, _chown(-1, -1), FOLLOWED + LINKS, but="ctime")
    sides.do(STRANGER, _lchown(-1, -1), KINDS, but="ctime")
    assert [(sides.roots[0] / name).lstat() for name in KINDS] == before


def test_chown_by_those_who_may_not(sides: Sides) -> None:
    for ids in ((NOBODY, -1), (-1, 65532), (NOBODY, 65532)):  # root's to oneself
        sides.do(OWNER, _chown(*ids), FOLLOWED + LINKS, REFUSED)
        sides.do(OWNER, _lchown(*ids), KINDS, REFUSED)
    _give(sides)
    for ids in ((65530, 65530), (-1, 65530), (65530, -1)):  # one's own to others
        sides.do(OWNER, _chown(*ids), FOLLOWED + LINKS, REFUSED)
        sides.do(OWNER, _lchown(*ids), KINDS, REFUSED)
    for ids in ((64999, 64999), (NOBODY, GROUP), (-1, 64999)):
        sides.do(STRANGER, _chown(*ids), FOLLOWED + LINKS, REFUSED)
        sides.do(STRANGER, _lchown(*ids), KINDS, REFUSED)


@pytest.mark.parametrize("call", [_chmod(0o620), _chown(-1, 65531), _lchown(-1, 65531)])
def test_in_a_directory_that_is_closed(sides: Sides, call: Callable[[str], object]) -> None:
    """Its search permission is taken away and given back by root, meanwhile."""
    sides.do(ROOT, lambda name: os.close(os.open(name, os.O_CREAT)), ["directory/f"])
    sides.do(ROOT, _chown(NOBODY, 65532), ["directory/f", "directory"])
    for mode, answer in ((0o755, None), (0o644, Error(EACCES)), (0o755, None)):
        sides.do(ROOT, _chmod(mode), ["directory"])
        sides.do(OWNER, call, ["directory/f"], answer)


@pytest.mark.parametrize("who", [ROOT, OWNER, MEMBER, STRANGER])
def test_a_change_of_content_and_setid(module_place: Path, who: Who) -> None:
    def write(name: str) -> object:
        descriptor = os.open(name, os.O_WRONLY)
        os.write(descriptor, b"x")
        shown = os.fstat(descriptor).st_mode
        os.close(descriptor)
        return shown == os.stat(name).st_mode

    names = [f"{mode:04o}" for mode in (0o4777, 0o2777, 0o6777, 0o2766, 0o6766, 0o2767)]
    with sides_in(module_place) as sides:
        sides.do(ROOT, lambda name: os.close(os.open(name, os.O_CREAT)), names)
        sides.do(ROOT, _chown(NOBODY, GROUP), names)
        for call, answer in (
            (write, True),
            (lambda name: os.truncate(name, 5), None),
            (lambda name: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)), None),
        ):
            sides.do(ROOT, lambda name: os.chmod(name, int(name, 8)), names)
            sides.do(who, call, names, answer)

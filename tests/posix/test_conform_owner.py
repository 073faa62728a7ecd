"""chmod and chown of every kind of file, by root, owner and stranger, also through links."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.posix.beside import Twins
from tests.posix.calls import lchmod
from tests.posix.kinds import FOLLOWED, KINDS, plant_kinds
from tests.posix.users import NOBODY, ROOT, Who

LINKS = tuple(f"to-{kind}" for kind in FOLLOWED)
GROUP = 65533
OWNER = Who(NOBODY, 65532, (65532, 65531))  # of what `_give` gave away, and not in its group
MEMBER = Who(NOBODY, 65532, (GROUP,))
STRANGER = Who(64999)
REFUSED = "EPERM"


@pytest.fixture
def twins(twins_below: Twins) -> Twins:
    twins_below(None, plant_kinds)
    return twins_below


def _give(twins: Twins, mode: int | None = None) -> None:
    """All to the owner, in a group that is not his."""
    twins.each(None, os.lchown, KINDS, NOBODY, GROUP)
    if mode is not None:
        twins.each(None, os.chmod, FOLLOWED, mode)


def _modes(twins: Twins, names: tuple[str, ...]) -> set[str]:
    return {twins.shown(name)[1] for name in names}


def _owners(twins: Twins, names: tuple[str, ...]) -> set[tuple[int, int]]:
    return {twins.shown(name)[2:] for name in names}


def test_chmod_by_root(twins: Twins) -> None:
    for mode in ("0111", "0642", "1621", "6555"):
        twins.each(None, os.chmod, FOLLOWED, int(mode, 8))
        assert _modes(twins, FOLLOWED) == {mode}
    twins.each(None, os.chmod, LINKS, 0o1700)
    assert _modes(twins, FOLLOWED) == {"1700"}
    assert _modes(twins, LINKS) == {"0777"}


@pytest.mark.parametrize("owner", [OWNER, MEMBER])
def test_chmod_by_the_owner(twins: Twins, owner: Who) -> None:
    _give(twins)
    for mode in (0o642, 0o1644, 0o2755, 0o4755):
        twins.each(None, os.chmod, FOLLOWED, mode, who=owner)
        twins.each(None, os.chmod, LINKS, 0o640, who=owner)
    twins.each(None, os.chmod, LINKS, 0o7777, who=owner)


def test_chmod_that_follows_no_link(twins: Twins) -> None:
    """A symbolic link has no mode of its own on Linux."""
    for who, answer in ((OWNER, REFUSED), (ROOT, None)):
        twins.each(answer, lchmod, FOLLOWED, 0o1621, who=who)
        twins.each("EOPNOTSUPP", lchmod, ("symlink", *LINKS), 0o1621, who=who)
    assert _modes(twins, FOLLOWED) == {"1621"}


def test_chmod_by_a_stranger(twins: Twins) -> None:
    for mode in (0o644, 0o6777):
        _give(twins, mode)
        twins.each(REFUSED, os.chmod, FOLLOWED + LINKS, 0o111, who=STRANGER)
    twins.each(None, os.chown, FOLLOWED, 0, 0)
    twins.each(REFUSED, os.chmod, FOLLOWED + LINKS, 0o111, who=OWNER)


def test_chown_by_root(twins: Twins) -> None:
    for names in (FOLLOWED, LINKS):
        twins.each(None, os.chown, names, 123, 456)
        assert _owners(twins, FOLLOWED) == {(123, 456)}
        assert _owners(twins, LINKS) == {(0, 0)}
        for ids in ((0, -1), (-1, 0)):
            twins.each(None, os.chown, names, *ids)
        assert _owners(twins, FOLLOWED) == {(0, 0)}
    twins.each(None, os.lchown, KINDS + LINKS, 123, 456)
    assert _owners(twins, KINDS + LINKS) == {(123, 456)}


def test_chown_by_root_and_setid(twins: Twins) -> None:
    for mode in (0o6555, 0o6666, 0o2745, 0o7777):
        for number, names in enumerate((FOLLOWED, LINKS)):
            twins.each(None, os.chmod, FOLLOWED, mode)
            twins.each(None, os.chown, names, number, number)


@pytest.mark.parametrize("owner", [OWNER, Who(NOBODY, 65532, (GROUP, 65532, 65531))])
def test_chown_by_the_owner_to_his_groups(twins: Twins, owner: Who) -> None:
    """Also when he is in the group that the file had."""
    for mode in (0o644, 0o6555, 0o6666, 0o2745):
        _give(twins, mode)
        twins.each(None, os.chown, FOLLOWED, -1, 65532, who=owner)
        assert _owners(twins, FOLLOWED) == {(NOBODY, 65532)}
        twins.each(None, os.chmod, FOLLOWED, mode)
        twins.each(None, os.chown, LINKS, NOBODY, 65531, who=owner)
        assert _owners(twins, FOLLOWED) == {(NOBODY, 65531)}
    twins.each(None, os.lchown, KINDS, -1, 65532, who=owner)
    twins.each(None, os.lchown, KINDS, NOBODY, 65531, who=owner)
    assert _owners(twins, KINDS) == {(NOBODY, 65531)}


def test_chown_that_asks_for_nothing(twins: Twins) -> None:
    """Linux moves ctime for it; POSIX does not ask for that, and it would be a request."""
    _give(twins)
    for mode in (0o644, 0o6555, 0o6666):
        for who in (ROOT, OWNER):
            twins.each(None, os.chmod, FOLLOWED, mode)
            twins.each(None, os.chown, FOLLOWED, -1, -1, who=who, but=("ctime",))
            twins.each(None, os.chown, LINKS, -1, -1, who=who, but=("ctime",))
            twins.each(None, os.lchown, KINDS + LINKS, -1, -1, who=who, but=("ctime",))


def test_chown_of_others_that_asks_for_nothing(twins: Twins) -> None:
    before = [(twins.roots[0] / name).lstat() for name in KINDS]
    twins.each(None, os.chown, FOLLOWED + LINKS, -1, -1, who=STRANGER, but=("ctime",))
    twins.each(None, os.lchown, KINDS, -1, -1, who=STRANGER, but=("ctime",))
    assert [(twins.roots[0] / name).lstat() for name in KINDS] == before


def test_chown_by_those_who_may_not(twins: Twins) -> None:
    for ids in ((NOBODY, -1), (-1, 65532), (NOBODY, 65532)):  # root's to oneself
        twins.each(REFUSED, os.chown, FOLLOWED + LINKS, *ids, who=OWNER)
        twins.each(REFUSED, os.lchown, KINDS, *ids, who=OWNER)
    _give(twins)
    for ids in ((65530, 65530), (-1, 65530), (65530, -1)):  # one's own to others
        twins.each(REFUSED, os.chown, FOLLOWED + LINKS, *ids, who=OWNER)
        twins.each(REFUSED, os.lchown, KINDS, *ids, who=OWNER)
    for ids in ((64999, 64999), (NOBODY, GROUP), (-1, 64999)):
        twins.each(REFUSED, os.chown, FOLLOWED + LINKS, *ids, who=STRANGER)
        twins.each(REFUSED, os.lchown, KINDS, *ids, who=STRANGER)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [(os.chmod, (0o620,)), (os.chown, (-1, 65531)), (os.lchown, (-1, 65531))],
)
def test_in_a_directory_that_is_closed(
    twins: Twins, call: Callable[..., object], arguments: tuple[int, ...]
) -> None:
    """Its search permission is taken away and given back by root, meanwhile."""
    twins(None, lambda name: os.close(os.open(name, os.O_CREAT)), "directory/f")
    twins.each(None, os.chown, ["directory/f", "directory"], NOBODY, 65532)
    for mode, answer in ((0o755, None), (0o644, "EACCES"), (0o755, None)):
        twins(None, os.chmod, "directory", mode)
        twins(answer, call, "directory/f", *arguments, who=OWNER)


@pytest.mark.parametrize("who", [ROOT, OWNER, MEMBER, STRANGER])
def test_a_change_of_content_and_setid(twins_below: Twins, who: Who) -> None:
    def write(name: str) -> object:
        descriptor = os.open(name, os.O_WRONLY)
        os.write(descriptor, b"x")
        shown = os.fstat(descriptor).st_mode
        os.close(descriptor)
        return shown == os.stat(name).st_mode

    names = [f"{mode:04o}" for mode in (0o4777, 0o2777, 0o6777, 0o2766, 0o6766, 0o2767)]
    twins_below.each(None, lambda name: os.close(os.open(name, os.O_CREAT)), names)
    twins_below.each(None, os.chown, names, NOBODY, GROUP)
    for call, answer in (
        (write, True),
        (lambda name: os.truncate(name, 5), None),
        (lambda name: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)), None),
    ):
        twins_below.each(None, lambda name: os.chmod(name, int(name, 8)), names)
        twins_below.each(answer, call, names, who=who)

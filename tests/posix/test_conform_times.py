"""utimensat: of every kind of file, by whom, now and omitted, through links and descriptors."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.posix.beside import Twins
from tests.posix.calls import UTIME_NOW, UTIME_OMIT, utimensat
from tests.posix.kinds import FOLLOWED, KINDS, plant_kinds
from tests.posix.users import NOBODY, ROOT, Who

OWNER, STRANGER = Who(NOBODY), Who(64999)
LINKS = tuple(f"to-{kind}" for kind in FOLLOWED)
NOW, OMIT = (0, UTIME_NOW), (0, UTIME_OMIT)
FIRST, SECOND = (1_900_000_000, 0), (1_950_000_000, 100_000_000)
Time = tuple[int, int]


@pytest.fixture
def twins(twins_below: Twins) -> Twins:
    twins_below(None, plant_kinds)
    return twins_below


def _set(accessed: Time, modified: Time) -> Callable[[str], object]:
    return lambda name: utimensat(name, accessed, modified)


def _set_links_own(accessed: int, modified: int) -> Callable[[str], object]:
    times = (accessed * 10**9, modified * 10**9)
    return lambda name: os.utime(name, ns=times, follow_symlinks=False)


def _times(name: str) -> object:
    status = os.lstat(name)
    return status.st_atime_ns, status.st_mtime_ns


@pytest.mark.parametrize(
    ("accessed", "modified"),
    [
        (FIRST, SECOND),
        (SECOND, FIRST),
        ((100_000_000, 100_000_000), (200_000_000, 200_000_000)),
        ((1 << 31, 0), (1 << 32, 0)),
        ((-1, 999_999_999), (0, 0)),
    ],
)
def test_times_of_every_kind(twins: Twins, accessed: Time, modified: Time) -> None:
    """Either may be the later one, and both beyond the year 2038 or before 1970."""
    expected = tuple(seconds * 10**9 + rest for seconds, rest in (accessed, modified))
    twins.each(None, _set(accessed, modified), FOLLOWED)
    twins.each(expected, _times, FOLLOWED)
    twins.each(None, _set(modified, accessed), LINKS)
    twins.each(expected[::-1], _times, FOLLOWED)


@pytest.mark.parametrize("who", [ROOT, OWNER])
def test_now_and_omitted(twins: Twins, who: Who) -> None:
    if who is OWNER:
        twins.each(None, os.lchown, KINDS, NOBODY, NOBODY)
        twins.each(None, os.chmod, FOLLOWED, 0o444)
    for accessed, modified in (
        (NOW, NOW),
        (FIRST, OMIT),
        (OMIT, SECOND),
        (OMIT, OMIT),
        (NOW, OMIT),
        (OMIT, NOW),
        (FIRST, NOW),
        (NOW, SECOND),
    ):
        for names in (FOLLOWED, LINKS):
            twins.each(None, _set(accessed, modified), names, who=who)
    twins.each(None, os.utime, FOLLOWED, who=who)


def test_times_of_a_link(twins: Twins) -> None:
    """Its own where it is not followed, and those of what it leads to stay; else the reverse."""
    twins.each(None, _set(FIRST, SECOND), FOLLOWED)
    for who in (ROOT, OWNER):
        names = ("symlink", *LINKS)
        twins.each(None, _set_links_own(1_960_000_000, 1_970_000_000), names, who=who)
        expected = (1_960_000_000 * 10**9, 1_970_000_000 * 10**9)
        assert {_times(str(twins.roots[0] / name)) for name in names} == {expected}
        twins.each(None, _set((1_980_000_000, 0), (1_990_000_000, 0)), LINKS, who=who)
        assert {(twins.roots[0] / name).lstat().st_mtime for name in names} == {1_970_000_000}
        twins.each(None, os.lchown, KINDS + LINKS, NOBODY, NOBODY)


def test_who_may(twins: Twins) -> None:
    """Who may write may set now, and only that; a mode keeps neither owner nor root out."""
    twins.each(None, os.chmod, FOLLOWED, 0o644)
    refused = ((OMIT, SECOND), (FIRST, OMIT), (FIRST, SECOND), (NOW, OMIT), (FIRST, NOW))
    for names in (FOLLOWED, LINKS):
        twins.each("EACCES", _set(NOW, NOW), names, who=STRANGER)
        twins.each(None, _set(OMIT, OMIT), names, who=STRANGER)
        for times in refused:
            twins.each("EPERM", _set(*times), names, who=STRANGER)
    twins.each("EPERM", _set_links_own(1, 1), KINDS, who=STRANGER)
    twins.each(None, os.chmod, FOLLOWED, 0o666)
    twins.each(None, _set(NOW, NOW), FOLLOWED, who=STRANGER)
    twins.each(None, _set(NOW, NOW), LINKS, who=STRANGER)
    for times in refused:
        twins.each("EPERM", _set(*times), FOLLOWED, who=STRANGER)
    twins.each(None, os.lchown, KINDS, NOBODY, NOBODY)
    twins.each(None, os.chmod, FOLLOWED, 0)
    for who in (OWNER, ROOT):
        twins.each(None, _set(FIRST, SECOND), FOLLOWED, who=who)
        twins.each(None, _set(NOW, NOW), FOLLOWED, who=who)


def test_below_a_descriptor(twins: Twins) -> None:
    """Names below a directory that is open, and the descriptor's own file."""

    def at(name: str) -> None:
        folder = os.open(".", os.O_RDONLY)
        try:
            os.utime(name, ns=(3, 4), dir_fd=folder)
        finally:
            os.close(folder)

    def own(name: str) -> None:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.utime(descriptor, ns=(5, 6))
        finally:
            os.close(descriptor)

    twins.each(None, at, FOLLOWED)
    twins.each((3, 4), _times, FOLLOWED)
    twins.each(None, own, ["file", "directory"])
    twins.each("EPERM", own, ["file", "directory"], who=STRANGER)

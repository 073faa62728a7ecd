"""utimensat: of every kind of file, by whom, now and omitted, through links and descriptors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from errno import EACCES, EPERM
from pathlib import Path

import pytest

from tests.posix.beside import FOLLOWED, ROOT, Error, Sides, Who, plant_kinds, sides_in
from tests.posix.calls import UTIME_NOW, UTIME_OMIT, utimensat
from tests.posix.twins import KINDS
from tests.posix.users import NOBODY

OWNER, STRANGER = Who(NOBODY), Who(64999)
LINKS = tuple(f"to-{kind}" for kind in FOLLOWED)
NOW, OMIT = (0, UTIME_NOW), (0, UTIME_OMIT)
FIRST, SECOND = (1_900_000_000, 0), (1_950_000_000, 100_000_000)
Time = tuple[int, int]


@pytest.fixture
def sides(module_place: Path) -> Iterator[Sides]:
    with sides_in(module_place) as both:
        both.do(ROOT, plant_kinds)
        yield both


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
def test_times_of_every_kind(sides: Sides, accessed: Time, modified: Time) -> None:
    """Either may be the later one, and both beyond the year 2038 or before 1970."""
    expected = tuple(seconds * 10**9 + rest for seconds, rest in (accessed, modified))
    sides.do(ROOT, _set(accessed, modified), FOLLOWED)
    sides.do(ROOT, _times, FOLLOWED, expected)
    sides.do(ROOT, _set(modified, accessed), LINKS)
    sides.do(ROOT, _times, FOLLOWED, expected[::-1])


@pytest.mark.parametrize("who", [ROOT, OWNER])
def test_now_and_omitted(sides: Sides, who: Who) -> None:
    if who is OWNER:
        sides.do(ROOT, lambda name: os.lchown(name, NOBODY, NOBODY), KINDS)
        sides.do(ROOT, lambda name: os.chmod(name, 0o444), FOLLOWED)
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
            sides.do(who, _set(accessed, modified), names)
    sides.do(who, lambda name: os.utime(name), FOLLOWED)


def test_times_of_a_link(sides: Sides) -> None:
    """Its own where it is not followed, and those of what it leads to stay; else the reverse."""
    sides.do(ROOT, _set(FIRST, SECOND), FOLLOWED)
    for who in (ROOT, OWNER):
        names = ("symlink", *LINKS)
        sides.do(who, _set_links_own(1_960_000_000, 1_970_000_000), names)
        expected = (1_960_000_000 * 10**9, 1_970_000_000 * 10**9)
        assert {_times(str(sides.roots[0] / name)) for name in names} == {expected}
        sides.do(who, _set((1_980_000_000, 0), (1_990_000_000, 0)), LINKS)
        assert {(sides.roots[0] / name).lstat().st_mtime for name in names} == {1_970_000_000}
        sides.do(ROOT, lambda name: os.lchown(name, NOBODY, NOBODY), KINDS + LINKS)


def test_who_may(sides: Sides) -> None:
    """Who may write may set now, and only that; a mode keeps neither owner nor root out."""
    sides.do(ROOT, lambda name: os.chmod(name, 0o644), FOLLOWED)
    refused = ((OMIT, SECOND), (FIRST, OMIT), (FIRST, SECOND), (NOW, OMIT), (FIRST, NOW))
    for names in (FOLLOWED, LINKS):
        sides.do(STRANGER, _set(NOW, NOW), names, Error(EACCES))
        sides.do(STRANGER, _set(OMIT, OMIT), names)
        for times in refused:
            sides.do(STRANGER, _set(*times), names, Error(EPERM))
    sides.do(STRANGER, _set_links_own(1, 1), KINDS, Error(EPERM))
    sides.do(ROOT, lambda name: os.chmod(name, 0o666), FOLLOWED)
    sides.do(STRANGER, _set(NOW, NOW), FOLLOWED)
    sides.do(STRANGER, _set(NOW, NOW), LINKS)
    for times in refused:
        sides.do(STRANGER, _set(*times), FOLLOWED, Error(EPERM))
    sides.do(ROOT, lambda name: os.lchown(name, NOBODY, NOBODY), KINDS)
    sides.do(ROOT, lambda name: os.chmod(name, 0), FOLLOWED)
    for who in (OWNER, ROOT):
        sides.do(who, _set(FIRST, SECOND), FOLLOWED)
        sides.do(who, _set(NOW, NOW), FOLLOWED)


def test_below_a_descriptor(sides: Sides) -> None:
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

    sides.do(ROOT, at, FOLLOWED)
    sides.do(ROOT, _times, FOLLOWED, (3, 4))
    sides.do(ROOT, own, ["file", "directory"])
    sides.do(STRANGER, own, ["file", "directory"], Error(EPERM))

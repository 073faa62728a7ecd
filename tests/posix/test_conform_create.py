"""open with O_CREAT, mkdir, mkfifo and mknod: mode, owner and times of what is made and of its
directory, the longest names, and what they answer where something or nobody's permission is in
the way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from errno import EACCES, EEXIST, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM
from pathlib import Path

import pytest

from tests.posix.beside import (
    FOLLOWED,
    ROOT,
    Error,
    Sides,
    Who,
    plant_kinds,
    sides_in,
)
from tests.posix.twins import KINDS, remove
from tests.posix.users import NOBODY

OWNER = Who(NOBODY)
Maker = Callable[[str, int], object]


def _create(flags: int) -> Maker:
    return lambda name, mode: os.close(os.open(name, os.O_CREAT | flags, mode))


def _node(kind: int, device: tuple[int, int] = (1, 2)) -> Maker:
    return lambda name, mode: os.mknod(name, kind | mode, os.makedev(*device))


MAKERS: dict[str, tuple[str, Maker]] = {  # how stat tells it, and how it is made
    "open": ("-", _create(os.O_WRONLY)),
    "open-exclusive": ("-", _create(os.O_RDWR | os.O_EXCL)),
    "open-to-read": ("-", _create(os.O_RDONLY)),
    "mkdir": ("d", os.mkdir),
    "mkfifo": ("p", os.mkfifo),
    "mknod-file": ("-", _node(stat.S_IFREG, (0, 0))),
    "mknod-fifo": ("p", _node(stat.S_IFIFO, (0, 0))),
    "mknod-socket": ("s", _node(stat.S_IFSOCK, (0, 0))),
    "mknod-char": ("c", _node(stat.S_IFCHR)),
    "mknod-block": ("b", _node(stat.S_IFBLK)),
}
ROOTS_ALONE = ("mknod-char", "mknod-block")
ANYBODYS = tuple(name for name in MAKERS if name not in ROOTS_ALONE)


@pytest.fixture
def sides(module_place: Path) -> Iterator[Sides]:
    with sides_in(module_place) as both:
        yield both


def _make(mode: int = 0o755, umask: int = 0o022) -> Callable[[str], object]:
    """Makes PATH/KIND as its kind is made; what follows a dot only tells several apart."""

    def make(name: str) -> object:
        os.umask(umask)
        return MAKERS[os.path.basename(name).partition(".")[0]][1](name, mode)

    return make


def _make_at(kind: str) -> Callable[[str], object]:
    return lambda path: MAKERS[kind][1](path, 0o755)


def _chmod(mode: int) -> Callable[[str], object]:
    return lambda name: os.chmod(name, mode)


def _chown(uid: int, gid: int) -> Callable[[str], object]:
    return lambda name: os.chown(name, uid, gid)


@pytest.mark.parametrize(
    ("umask", "mode"),
    [(0o022, 0o755), (0o022, 0o151), (0o077, 0o151), (0o070, 0o345), (0o501, 0o345), (0, 0)],
)
def test_the_mode_is_what_was_asked_for_without_the_umask(
    sides: Sides, umask: int, mode: int
) -> None:
    """And owner and group are root's, and the directory's times move with those of what is made."""
    sides.do(ROOT, _make(mode, umask), MAKERS)
    for name, (letter, _) in MAKERS.items():
        assert sides.shown(name) == (letter, f"{mode & ~umask:04o}", 0, 0)


def test_what_is_made_setuid_setgid_or_sticky(sides: Sides) -> None:
    for number, mode in enumerate([0o1777, 0o2755, 0o7777]):
        sides.do(ROOT, _make(mode, 0), [f"{name}.{number}" for name in MAKERS])


def test_the_owner_is_who_makes_it(sides: Sides) -> None:
    """In a directory of one's own and in one of others; in one with setgid, of another group."""
    steps = (
        ((NOBODY, NOBODY), OWNER, (NOBODY, NOBODY)),
        ((NOBODY, NOBODY), Who(NOBODY, 65533), (NOBODY, 65533)),
        ((0, 0), Who(65533, 65532), (65533, 65532)),
    )
    for ids, who, expected in steps:
        sides.do(ROOT, _chown(*ids), ["."])
        sides.do(ROOT, _chmod(0o755 if ids[0] else 0o777), ["."])
        sides.do(who, _make(), ANYBODYS)
        sides.do(who, _make(), ROOTS_ALONE, Error(EPERM))
        assert {sides.shown(name)[2:] for name in ANYBODYS} == {expected}
        sides.do(who, remove, ANYBODYS)


@pytest.mark.parametrize("mode", [0o755, 0o2775, 0o2765])
def test_the_group_comes_from_a_setgid_directory(sides: Sides, mode: int) -> None:
    sides.do(ROOT, _chown(0, NOBODY), ["."])
    sides.do(ROOT, _chmod(0o2777), ["."])
    for groups in ((), (NOBODY,)):
        sides.do(Who(65533, 65532, groups), _make(mode), ANYBODYS)
        assert {sides.shown(name)[3] for name in ANYBODYS} == {NOBODY}
        sides.do(ROOT, remove, ANYBODYS)


def _told(path: str) -> object:
    status = os.lstat(path)
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_the_longest_names_and_paths(sides: Sides) -> None:
    deep = "/".join(["d" * 120] * 33)
    sides.do(ROOT, os.makedirs, [deep])
    for name in MAKERS:
        short = f"{name}." + "n" * (254 - len(name))
        long = f"{deep}/{name}." + "n" * (4_093 - len(deep) - len(name))
        assert (len(short), len(long)) == (255, 4_095)  # and a NUL
        both = (short, long)
        sides.do(ROOT, _make(0o620), both)
        sides.do(ROOT, _chmod(0o642), both)
        sides.do(ROOT, _chown(5, 6), both)
        sides.do(ROOT, lambda path: os.lchown(path, 7, 8), both)
        sides.do(ROOT, _told, both, (0o642, 7, 8))
        if name == "open":
            sides.do(ROOT, lambda path: os.truncate(path, 123), both)
            sides.do(ROOT, os.path.getsize, both, 123)
        sides.do(ROOT, remove, both)
        sides.do(ROOT, _make(), [f"{path}x" for path in both], Error(ENAMETOOLONG))


def test_over_what_is_there(sides: Sides) -> None:
    sides.do(ROOT, plant_kinds)
    names = (*KINDS, "to-file", "to-directory")
    for kind in MAKERS:
        if kind not in ("open", "open-to-read"):
            for who in (ROOT, OWNER):
                sides.do(who, _make_at(kind), names, Error(EEXIST))


def test_below_what_is_no_directory(sides: Sides) -> None:
    sides.do(ROOT, plant_kinds)
    places = [name for kind in FOLLOWED for name in (kind, f"to-{kind}") if kind != "directory"]
    for who in (ROOT, OWNER):
        for name in MAKERS:
            sides.do(who, _make(), [f"{place}/{name}" for place in places], Error(ENOTDIR))
        sides.do(who, _make(), [f"missing/{name}" for name in MAKERS], Error(ENOENT))
        sides.do(who, _make(), [f"symlink/{name}" for name in MAKERS], Error(ENOENT))


def test_links_in_a_circle(sides: Sides) -> None:
    sides.do(ROOT, lambda name: os.symlink("b" if name == "a" else "a", name), ["a", "b"])
    for who in (ROOT, OWNER):
        sides.do(who, _make(), [f"{link}/{name}" for link in "ab" for name in MAKERS], Error(ELOOP))


def test_where_permission_comes_and_goes(sides: Sides) -> None:
    """Search or write permission of the directory is taken away and given back by root."""
    sides.do(ROOT, os.mkdir, ["d"])
    sides.do(ROOT, _chown(NOBODY, NOBODY), ["d"])
    names = [f"d/{name}" for name in ANYBODYS]
    for mode in (0o755, 0o644, 0o755, 0o555, 0o755):
        sides.do(ROOT, _chmod(mode), ["d"])
        sides.do(OWNER, _make(), names, None if mode == 0o755 else Error(EACCES))
        if mode == 0o755:
            sides.do(OWNER, remove, names)
    sides.do(Who(64999), _make(), names, Error(EACCES))


@pytest.mark.parametrize("call", [lambda p: os.chmod(p, 0o600), lambda p: os.chown(p, 1, 1)])
def test_change_below_what_is_no_directory(sides: Sides, call: Callable[[str], object]) -> None:
    sides.do(ROOT, plant_kinds)
    below = [f"{name}/x" for name in FOLLOWED if name != "directory"]
    for who in (ROOT, OWNER):
        for other in (call, lambda p: os.lchown(p, 1, 1), lambda p: os.truncate(p, 1)):
            sides.do(who, other, below, Error(ENOTDIR))
        sides.do(who, lambda p: os.close(os.open(p, os.O_RDONLY)), below, Error(ENOTDIR))


def test_device_numbers(sides: Sides) -> None:
    for type_ in (stat.S_IFCHR, stat.S_IFBLK):
        for device in ((0, 0), (1, 2), (255, 255), (4095, 4095), (4095, 1048575)):
            node, other = _node(type_, device), _node(type_, (3, 4))
            sides.do(ROOT, lambda name, made=node: made(name, 0o755))  # type: ignore[misc]
            shown = (sides.roots[0] / "x").lstat().st_rdev
            assert (os.major(shown), os.minor(shown)) == device
            sides.do(ROOT, lambda name, made=other: made(name, 0o777), expected=Error(EEXIST))  # type: ignore[misc]
            sides.do(ROOT, remove)


def test_an_existing_file_that_is_opened_to_be_made(sides: Sides) -> None:
    """O_CREAT changes neither it nor its directory, whatever mode it asks for."""
    sides.do(ROOT, _make(0o644), ["open.x"])
    for kind in ("open", "open-to-read"):
        sides.do(ROOT, lambda name, how=kind: MAKERS[how][1](name, 0o777), ["open.x"])  # type: ignore[misc]
    sides.do(OWNER, lambda name: MAKERS["open-to-read"][1](name, 0o777), ["open.x"])
    sides.do(OWNER, _make(0o777), ["open.x"], Error(EACCES))
    sides.do(ROOT, lambda name: Path(name).write_bytes(b"test"), ["open.x"], 4)
    sides.do(ROOT, lambda name: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)), ["open.x"])

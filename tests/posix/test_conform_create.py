"""open with O_CREAT, mkdir, mkfifo and mknod: mode, owner and times of what is made and of its
directory, the longest names, and what they answer where something or nobody's permission is in
the way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.beside import Twins
from tests.posix.kinds import FOLLOWED, KINDS, plant_kinds, remove
from tests.posix.users import NOBODY, ROOT, Who

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
def twins(twins_below: Twins) -> Twins:
    return twins_below


def _make(mode: int = 0o755, umask: int = 0o022) -> Callable[[str], object]:
    """Makes PATH/KIND as its kind is made; what follows a dot only tells several apart."""

    def make(name: str) -> object:
        os.umask(umask)
        return MAKERS[os.path.basename(name).partition(".")[0]][1](name, mode)

    return make


@pytest.mark.parametrize(
    ("umask", "mode"),
    [(0o022, 0o755), (0o022, 0o151), (0o077, 0o151), (0o070, 0o345), (0o501, 0o345), (0, 0)],
)
def test_the_mode_is_what_was_asked_for_without_the_umask(
    twins: Twins, umask: int, mode: int
) -> None:
    """And owner and group are root's, and the directory's times move with those of what is made."""
    twins.each(None, _make(mode, umask), MAKERS)
    for name, (letter, _) in MAKERS.items():
        assert twins.shown(name) == (letter, f"{mode & ~umask:04o}", 0, 0)


def test_what_is_made_setuid_setgid_or_sticky(twins: Twins) -> None:
    for number, mode in enumerate([0o1777, 0o2755, 0o7777]):
        twins.each(None, _make(mode, 0), [f"{name}.{number}" for name in MAKERS])


def test_the_owner_is_who_makes_it(twins: Twins) -> None:
    """In a directory of one's own and in one of others; in one with setgid, of another group."""
    steps = (
        ((NOBODY, NOBODY), OWNER, (NOBODY, NOBODY)),
        ((NOBODY, NOBODY), Who(NOBODY, 65533), (NOBODY, 65533)),
        ((0, 0), Who(65533, 65532), (65533, 65532)),
    )
    for ids, who, expected in steps:
        twins(None, os.chown, ".", *ids)
        twins(None, os.chmod, ".", 0o755 if ids[0] else 0o777)
        twins.each(None, _make(), ANYBODYS, who=who)
        twins.each("EPERM", _make(), ROOTS_ALONE, who=who)
        assert {twins.shown(name)[2:] for name in ANYBODYS} == {expected}
        twins.each(None, remove, ANYBODYS, who=who)


@pytest.mark.parametrize("mode", [0o755, 0o2775, 0o2765])
def test_the_group_comes_from_a_setgid_directory(twins: Twins, mode: int) -> None:
    twins(None, os.chown, ".", 0, NOBODY)
    twins(None, os.chmod, ".", 0o2777)
    for groups in ((), (NOBODY,)):
        twins.each(None, _make(mode), ANYBODYS, who=Who(65533, 65532, groups))
        assert {twins.shown(name)[3] for name in ANYBODYS} == {NOBODY}
        twins.each(None, remove, ANYBODYS)


def _told(path: str) -> object:
    status = os.lstat(path)
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_the_longest_names_and_paths(twins: Twins) -> None:
    deep = "/".join(["d" * 120] * 33)
    twins(None, os.makedirs, deep)
    for name in MAKERS:
        short = f"{name}." + "n" * (254 - len(name))
        long = f"{deep}/{name}." + "n" * (4_093 - len(deep) - len(name))
        assert (len(short), len(long)) == (255, 4_095)  # and a NUL
        both = (short, long)
        twins.each(None, _make(0o620), both)
        twins.each(None, os.chmod, both, 0o642)
        twins.each(None, os.chown, both, 5, 6)
        twins.each(None, os.lchown, both, 7, 8)
        twins.each((0o642, 7, 8), _told, both)
        if name == "open":
            twins.each(None, os.truncate, both, 123)
            twins.each(123, os.path.getsize, both)
        twins.each(None, remove, both)
        twins.each("ENAMETOOLONG", _make(), [f"{path}x" for path in both])


def test_over_what_is_there(twins: Twins) -> None:
    twins(None, plant_kinds)
    names = (*KINDS, "to-file", "to-directory")
    for kind in MAKERS:
        if kind not in ("open", "open-to-read"):
            for who in (ROOT, OWNER):
                twins.each("EEXIST", MAKERS[kind][1], names, 0o755, who=who)


def test_below_what_is_no_directory(twins: Twins) -> None:
    twins(None, plant_kinds)
    places = [name for kind in FOLLOWED for name in (kind, f"to-{kind}") if kind != "directory"]
    for who in (ROOT, OWNER):
        for name in MAKERS:
            twins.each("ENOTDIR", _make(), [f"{place}/{name}" for place in places], who=who)
        twins.each("ENOENT", _make(), [f"missing/{name}" for name in MAKERS], who=who)
        twins.each("ENOENT", _make(), [f"symlink/{name}" for name in MAKERS], who=who)


def test_links_in_a_circle(twins: Twins) -> None:
    twins.each(None, lambda name: os.symlink("b" if name == "a" else "a", name), ["a", "b"])
    for who in (ROOT, OWNER):
        twins.each(
            "ELOOP", _make(), [f"{link}/{name}" for link in "ab" for name in MAKERS], who=who
        )


def test_where_permission_comes_and_goes(twins: Twins) -> None:
    """Search or write permission of the directory is taken away and given back by root."""
    twins(None, os.mkdir, "d")
    twins(None, os.chown, "d", NOBODY, NOBODY)
    names = [f"d/{name}" for name in ANYBODYS]
    for mode in (0o755, 0o644, 0o755, 0o555, 0o755):
        twins(None, os.chmod, "d", mode)
        twins.each(None if mode == 0o755 else "EACCES", _make(), names, who=OWNER)
        if mode == 0o755:
            twins.each(None, remove, names, who=OWNER)
    twins.each("EACCES", _make(), names, who=Who(64999))


@pytest.mark.parametrize("call", [lambda p: os.chmod(p, 0o600), lambda p: os.chown(p, 1, 1)])
def test_change_below_what_is_no_directory(twins: Twins, call: Callable[[str], object]) -> None:
    twins(None, plant_kinds)
    below = [f"{name}/x" for name in FOLLOWED if name != "directory"]
    for who in (ROOT, OWNER):
        for other in (call, lambda p: os.lchown(p, 1, 1), lambda p: os.truncate(p, 1)):
            twins.each("ENOTDIR", other, below, who=who)
        twins.each("ENOTDIR", lambda p: os.close(os.open(p, os.O_RDONLY)), below, who=who)


def test_device_numbers(twins: Twins) -> None:
    for type_ in (stat.S_IFCHR, stat.S_IFBLK):
        for device in ((0, 0), (1, 2), (255, 255), (4095, 4095), (4095, 1048575)):
            node, other = _node(type_, device), _node(type_, (3, 4))
            twins(None, node, "x", 0o755)
            shown = (twins.roots[0] / "x").lstat().st_rdev
            assert (os.major(shown), os.minor(shown)) == device
            twins("EEXIST", other, "x", 0o777)
            twins(None, remove, "x")


def test_an_existing_file_that_is_opened_to_be_made(twins: Twins) -> None:
    """O_CREAT changes neither it nor its directory, whatever mode it asks for."""
    twins(None, _make(0o644), "open.x")
    for kind in ("open", "open-to-read"):
        twins(None, MAKERS[kind][1], "open.x", 0o777)
    twins(None, MAKERS["open-to-read"][1], "open.x", 0o777, who=OWNER)
    twins("EACCES", _make(0o777), "open.x", who=OWNER)
    twins(4, lambda name: Path(name).write_bytes(b"test"), "open.x")
    twins(None, lambda name: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)), "open.x")

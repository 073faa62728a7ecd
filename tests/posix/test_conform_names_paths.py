"""link, rename, unlink, rmdir and symlink with paths of each kind, beside tmpfs."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.beside import Twins, tmpfs
from tests.posix.calls import NOWHERE, NULL, link, raw
from tests.posix.kinds import KINDS, make, remove
from tests.posix.users import NOBODY

NAME = "n" * 255
# The longest path: with the NUL it has PATH_MAX bytes.
_PARTS = "/".join(["p" * 127] * 31)
DEEP = f"{_PARTS}/{'q' * (4095 - len(_PARTS) - 1)}"
each_user = pytest.mark.parametrize("uid", [0, NOBODY])


@each_user
def test_the_longest_name(twins: Twins, uid: int) -> None:
    """And one byte more."""
    long = NAME + "n"
    twins("ok", os.chmod, ".", 0o777)
    for kind in KINDS[:1] + KINDS[-1:]:
        twins("ok", make, kind, NAME, uid)
        twins("ok", os.rename, NAME, "short", who=uid)
        twins("ok", os.rename, "short", NAME, who=uid)
        twins("ENAMETOOLONG", os.rename, NAME, long, who=uid)
        twins("ENAMETOOLONG", os.rename, long, NAME, who=uid)
        twins("ok", remove, NAME, who=uid)
        twins("ENOENT", os.rmdir if kind == "directory" else os.unlink, NAME, who=uid)
    twins("ok", make, "file", "short", uid)
    twins("ok", os.link, "short", NAME, who=uid)
    twins("ENAMETOOLONG", os.link, "short", long, who=uid)
    twins("ENAMETOOLONG", os.link, long, "other", who=uid)
    twins("ok", os.unlink, "short", who=uid)
    twins("ok", os.link, NAME, "short", who=uid)
    twins("ok", os.symlink, NAME, "link", who=uid)
    twins("ok", os.symlink, long, "link to none", who=uid)
    twins("ENAMETOOLONG", os.symlink, "target", long, who=uid)
    twins("ok", os.unlink, NAME, who=uid)
    twins("ok", os.symlink, "short", NAME, who=uid)
    for call in (os.unlink, os.rmdir):
        twins("ENAMETOOLONG", call, long, who=uid)


def test_the_longest_path(twins: Twins) -> None:
    """4,095 bytes below the working directory. And one byte more."""
    assert len(DEEP) == 4095
    twins.only("ok", os.makedirs, os.path.dirname(DEEP))
    twins.only("ok", make, "file", DEEP)
    twins.only("ok", os.link, DEEP, "f")
    twins.briefly("ok", os.unlink, DEEP, names=("f",))
    twins.briefly("ok", os.link, "f", DEEP, names=("f",))
    twins.briefly("ENAMETOOLONG", os.link, "f", f"{DEEP}x", names=("f",))
    twins.briefly("ENAMETOOLONG", os.link, f"{DEEP}x", "g", names=("f", "g"))
    twins.briefly("ok", os.unlink, "f", names=("f",))
    twins.briefly("ok", os.rename, DEEP, "f", names=("f",))
    twins.briefly("ok", os.rename, "f", DEEP, names=("f",))
    twins.only("ok", os.stat, DEEP)
    twins.briefly("ENAMETOOLONG", os.rename, DEEP, f"{DEEP}x", names=())
    twins.briefly("ENAMETOOLONG", os.rename, f"{DEEP}x", "f", names=("f",))
    twins.only("ok", os.unlink, DEEP)
    twins.only("ENOENT", os.unlink, DEEP)
    twins.only("ENAMETOOLONG", os.unlink, f"{DEEP}x")
    twins.only("ok", make, "directory", DEEP)
    twins.only("ok", os.rmdir, DEEP)
    twins.only("ENOENT", os.rmdir, DEEP)
    twins.only("ENAMETOOLONG", os.rmdir, f"{DEEP}x")
    twins.only("ok", os.symlink, "target", DEEP)
    twins.only("ok", os.readlink, DEEP)
    twins.only("ENAMETOOLONG", os.symlink, "target", f"{DEEP}x")
    twins.briefly("ok", os.symlink, DEEP, "to", names=("to",))
    twins.briefly("ENAMETOOLONG", os.symlink, f"{DEEP}x", "too", names=("to", "too"))


@each_user
def test_loops(twins: Twins, uid: int) -> None:
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, "file", "f", uid)
    twins("ok", os.symlink, "one", "two", who=uid)
    twins("ok", os.symlink, "two", "one", who=uid)
    for path in ("one/x", "two/x"):
        for call in (os.rename, os.link):
            twins("ELOOP", call, path, "new", who=uid)
            twins("ELOOP", call, "f", path, who=uid)
        for other in (os.unlink, os.rmdir):
            twins("ELOOP", other, path, who=uid)
        twins("ELOOP", os.symlink, "target", path, who=uid)
    twins("ok", os.link, "one", "three", who=uid)
    twins("ok", os.rename, "one", "two", who=uid)


@each_user
def test_nothing_on_the_way(twins: Twins, uid: int) -> None:
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, "directory", "d", uid)
    twins("ok", make, "file", "f", uid)
    for path in ("d/missing/x", "missing/x"):
        for call in (os.rename, os.link):
            twins("ENOENT", call, path, "new", who=uid)
            twins("ENOENT", call, "f", path, who=uid)
        for other in (os.unlink, os.rmdir):
            twins("ENOENT", other, path, who=uid)
        twins("ENOENT", os.symlink, "target", path, who=uid)


CHANGES: dict[str, tuple[Callable[..., object], tuple[str, ...]]] = {
    "rename-in": (os.rename, ("mine/f", "d/new")),
    "rename-out": (os.rename, ("d/f", "mine/new")),
    "rename-within": (os.rename, ("d/f", "d/new")),
    "rename-over": (os.rename, ("mine/f", "d/f")),
    "rename-directory-in": (os.rename, ("mine/e", "d/new")),
    "link-in": (os.link, ("mine/f", "d/new")),
    "link-out": (os.link, ("d/f", "mine/new")),
    "link-within": (os.link, ("d/f", "d/new")),
    "symlink": (os.symlink, ("target", "d/new")),
    "unlink": (os.unlink, ("d/f",)),
    "rmdir": (os.rmdir, ("d/e",)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_directories_permit(twins: Twins, name: str) -> None:
    """The user owns all: 0644 lets nobody through, 0555 lets nobody change it, 0755 lets both."""
    call, arguments = CHANGES[name]
    for folder in ("mine", "d"):
        twins.only("ok", make, "directory", folder, NOBODY)
        twins.only("ok", make, "file", f"{folder}/f", NOBODY)
        twins.only("ok", make, "directory", f"{folder}/e", NOBODY)
    for mode in (0o644, 0o444, 0o000):
        twins("ok", os.chmod, "d", mode)
        twins("EACCES", call, *arguments, who=NOBODY)
    twins("ok", os.chmod, "d", 0o555)
    reads_only = name == "link-out"  # the directory stays as it is
    twins("ok" if reads_only else "EACCES", call, *arguments, who=NOBODY)
    twins.only("ok", remove, "mine/new")
    for mode in (0o755, 0o333):
        twins.only("ok", os.chmod, "d", mode)
        twins("ok", call, *arguments, who=NOBODY)
        twins.only("ok", _restore)


def _restore() -> None:
    for folder in ("mine", "d"):
        remove(f"{folder}/new")
        for kind, name in (("file", "f"), ("directory", "e")):
            if not os.path.lexists(f"{folder}/{name}"):
                make(kind, f"{folder}/{name}", NOBODY)


@pytest.mark.parametrize("kind", KINDS)
def test_moving_what_is_anothers(twins: Twins, kind: str) -> None:
    """A directory that one cannot write stays in its parent, where it takes another name."""
    for folder in ("from", "to"):
        twins("ok", make, "directory", folder)
        twins("ok", os.chmod, folder, 0o777)
    twins("ok", make, kind, "from/x")
    twins("ok", os.rename, "from/x", "from/y", who=NOBODY)
    answer = "EACCES" if kind == "directory" else "ok"
    twins(answer, os.rename, "from/y", "to/x", who=NOBODY)
    if kind == "directory":
        twins("ok", os.chmod, "from/y", 0o777)
        twins("ok", os.rename, "from/y", "to/x", who=NOBODY)


def test_directories_in_themselves(twins: Twins) -> None:
    twins("ok", os.makedirs, "d/e")
    for uid in (0, NOBODY):
        twins("EINVAL", os.rename, "d", "d/e", who=uid)
        twins("EINVAL", os.rename, "d", "d/e/new", who=uid)
        for path in ("d/e/.", "d/e/.."):
            twins("EBUSY", os.rename, path, "new", who=uid)
            twins("EBUSY", os.rename, "d", path, who=uid)
        twins("EINVAL", os.rmdir, "d/e/.", who=uid)
        twins("ENOTEMPTY", os.rmdir, "d/e/..", who=uid)
    twins("EPERM", os.link, "d", "new")
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, "directory", "mine", NOBODY)
    twins("EPERM", os.link, "mine", "new", who=NOBODY)


def test_the_parent_of_a_moved_directory(twins: Twins) -> None:
    def parent_is(path: str, parent: str) -> bool:
        return os.lstat(f"{path}/..").st_ino == os.lstat(parent).st_ino

    twins("ok", os.makedirs, "from/d/sub")
    twins("ok", os.mkdir, "to")
    twins("ok", parent_is, "from/d", "from")
    twins("ok", os.rename, "from/d", "to/e")
    twins("ok", lambda: [parent_is("to/e", "to"), parent_is("to/e", "from")])
    twins("ok", parent_is, "to/e/sub", "to/e")
    twins("ok", os.mkdir, "from/over")
    twins("ok", os.rename, "to/e", "from/over")
    twins("ok", parent_is, "from/over", "from")


FAULTS: tuple[tuple[str, tuple[object, ...]], ...] = (
    *(("unlink", (bad,)) for bad in (NULL, NOWHERE)),
    *(("rmdir", (bad,)) for bad in (NULL, NOWHERE)),
    *(
        (call, pair)
        for call in ("link", "rename", "symlink")
        for bad in (NULL, NOWHERE)
        for pair in ((b"f", bad), (bad, b"new"), (bad, NULL), (bad, NOWHERE))
    ),
)


def test_addresses_of_nothing(twins: Twins) -> None:
    twins("ok", make, "file", "f")
    for call, arguments in FAULTS:
        twins.briefly("EFAULT", raw, call, *arguments, names=("f", "new"))


@pytest.mark.parametrize("kind", KINDS)
def test_between_file_systems(twins: Twins, kind: str) -> None:
    """As root and as a user who might. An existing name is found first by link, not by rename."""
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    there = str(elsewhere / "x")
    with tmpfs(elsewhere):
        elsewhere.chmod(0o777)
        twins.only("ok", os.chmod, ".", 0o777)
        make(kind, there, NOBODY)
        twins.only("ok", make, kind, "x", NOBODY)
        for uid in (0, NOBODY):
            for pair in (("x", f"{there}-new"), ("x", there), (there, "new"), (there, "x")):
                linked = "EEXIST" if pair[1].endswith("x") else "EXDEV"
                twins.briefly("EXDEV", os.rename, *pair, names=("x", "new"), who=uid)
                twins.briefly(linked, link, *pair, names=("x", "new"), who=uid)
        assert os.listdir(elsewhere) == ["x"]
    elsewhere.rmdir()


def test_a_mount_point_stays(place: Path) -> None:
    for name in ("point", "other"):
        (place / name).mkdir()
    with tmpfs(place / "point"):
        for call in (
            lambda: (place / "point").rmdir(),
            lambda: (place / "point").rename(place / "new"),
            lambda: (place / "other").rename(place / "point"),
        ):
            with pytest.raises(OSError, match="Errno") as caught:
                call()
            assert caught.value.errno == errno.EBUSY
    (place / "point").rmdir()

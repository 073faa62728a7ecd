"""The same calls by the same users in two directories, on the file system under test and on tmpfs
beside it: what each answers, and what it leaves, must be the same.

After each step every name in the directory is looked at: type, mode, owner, links, size, device
number, and which of its times have moved, so a change that nobody asked for is found, too.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.posix.clock import tick
from tests.posix.users import User

KINDS = ("file", "folder", "fifo", "block", "char", "socket", "symlink")
FOLLOWED = KINDS[:-1]  # each has a symbolic link to it: see `plant_kinds`
TIMES = ("atime", "mtime", "ctime")
SLACK = 10_000_000
_AROUND_NOW = 3600 * 10**9
_MOST_NAMES = 40  # a step looks at all of them, twice


@dataclass(frozen=True)
class Who:
    """A user for both sides; groups are the supplementary ones."""

    uid: int
    gid: int | None = None
    groups: tuple[int, ...] = ()


ROOT = Who(0)


class Sides:
    """Two directories that began alike, and what is done in both of them."""

    def __init__(self, here: Path, there: Path) -> None:
        self.roots = (here, there)
        self._users: dict[tuple[Path, Who], User] = {}
        self._before = [look(root) for root in self.roots]

    def close(self) -> None:
        for user in self._users.values():
            user.close()

    def do(
        self,
        who: Who,
        call: Callable[[str], object],
        names: Iterable[str] = ("x",),
        expected: object = None,
        *,
        but: str = "nothing",
    ) -> None:
        """A call for each of the names answers as expected on both sides: a value, or an OSError's
        number wrapped in `Error`; and both sides show the same afterwards, `but` for this.
        """
        before = self._before
        tick()
        for name in names:
            for root in self.roots:
                where = "tmpfs" if root is self.roots[1] else "the mount"
                seen = self._call(root, who, call, name)
                assert seen == expected, f"{name} by {who} on {where}: {seen}, not {expected}"
        self._before = after = [look(root) for root in self.roots]
        here, there = (_told(*pair, but) for pair in zip(before, after, strict=True))
        different = {name for name in (*here, *there) if here.get(name) != there.get(name)}
        assert not different, "".join(
            f"\n{name} by {who}\n on the mount {here.get(name)}\n on tmpfs     {there.get(name)}"
            for name in sorted(different)
        )

    def _call(self, root: Path, who: Who, call: Callable[[str], object], name: str) -> object:
        user = self._users.get((root, who))
        if user is None:
            user = self._users[root, who] = User(root, who.uid, who.gid, who.groups)
        try:
            return user.run(call, name)
        except OSError as error:
            return Error(error.errno or 0)

    def shown(self, name: str = "x") -> tuple[str, str, int, int]:
        """Kind, octal mode, owner and group on the file system under test, as root sees them."""
        status = (self.roots[0] / name).lstat()
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        return stat.filemode(status.st_mode)[0], mode, status.st_uid, status.st_gid


@dataclass(frozen=True)
class Error:
    """What a call that fails answers."""

    number: int

    def __repr__(self) -> str:
        return errno.errorcode.get(self.number, str(self.number))


@contextmanager
def sides_in(folder: Path) -> Iterator[Sides]:
    """An empty directory of root's, 0755, in the folder, and one on tmpfs."""
    here, there = (Path(tempfile.mkdtemp(dir=where)) for where in (folder, "/dev/shm"))
    sides = Sides(here, there)
    try:
        sides.do(ROOT, lambda name: os.chmod(name, 0o755), ["."])
        yield sides
    finally:
        sides.close()
        for root in sides.roots:
            shutil.rmtree(root)


def look(root: Path) -> dict[str, os.stat_result]:
    """Every name in the directory, the directory itself as "."."""
    names = os.listdir(root)
    assert len(names) <= _MOST_NAMES
    return {name: os.lstat(root / name) for name in (".", *sorted(names))}


def _told(
    before: dict[str, os.stat_result], after: dict[str, os.stat_result], but: str
) -> dict[str, list[str]]:
    return {
        name: [said for said in _tell(name, before.get(name), after[name]) if but not in said]
        for name in after
    }


def _tell(name: str, before: os.stat_result | None, after: os.stat_result) -> list[str]:
    times = [f"{field} {_moved(before, after, field)}" for field in TIMES]
    if name == "." or stat.S_ISLNK(after.st_mode):
        del times[0]  # tmpfs moves atime when we list or follow
    return [
        f"mode {stat.filemode(after.st_mode)}",
        f"owner {after.st_uid}, {after.st_gid}",
        f"links {after.st_nlink}",
        f"size {None if stat.S_ISDIR(after.st_mode) else after.st_size}",
        f"device {after.st_rdev}",
        *times,
    ]


def _moved(before: os.stat_result | None, after: os.stat_result, field: str) -> object:
    value = getattr(after, f"st_{field}_ns")
    if abs(value - time.time_ns()) > _AROUND_NOW:
        return value
    if before is None:
        return "now"
    return "kept" if abs(value - getattr(before, f"st_{field}_ns")) < SLACK else "now"


def plant_kinds(_: str = "") -> None:
    """In the working directory: a file of each kind, 0644 or 0755, and a link to each (to-KIND).
    The one called symlink leads nowhere.
    """
    for kind in KINDS:
        plant(kind)
    for kind in FOLLOWED:
        os.symlink(kind, f"to-{kind}")


def plant(kind: str, name: str | None = None) -> None:
    """One file of this kind, under the name of its kind if no other is given."""
    name = name or kind
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: os.close(os.open(name, os.O_CREAT | os.O_EXCL, 0o644)),
        "folder": lambda: os.mkdir(name, 0o755),
        "fifo": lambda: os.mkfifo(name, 0o644),
        "block": lambda: os.mknod(name, stat.S_IFBLK | 0o644, os.makedev(1, 2)),
        "char": lambda: os.mknod(name, stat.S_IFCHR | 0o644, os.makedev(1, 2)),
        "socket": lambda: _bind(name),
        "symlink": lambda: os.symlink("nowhere", name),
    }
    makers[kind]()


def _bind(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)


def discard(name: str) -> None:
    """Remove it, whatever it is."""
    if stat.S_ISDIR(os.lstat(name).st_mode):
        os.rmdir(name)
    else:
        os.unlink(name)

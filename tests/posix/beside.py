"""The same calls by the same users in two directories, on the file system under test and on tmpfs
beside it: what each answers, and what it leaves, must be the same.

After each step every name in the directory is looked at: type, mode, owner, links, size, device
number, and which of its times have moved, so a change that nobody asked for is found, too. Where
twins.py follows names and inodes through steps by one user or another, this is about many files at
once and users with groups.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.posix.twins import KINDS, make
from tests.posix.users import User

FOLLOWED = ("file", "directory", "fifo", "block", "char", "socket")  # what chmod and utime reach
TIMES = ("atime", "mtime", "ctime")
_AROUND_NOW = 3600 * 10**9
_CLOCK_REALTIME_COARSE = 5  # the time module leaves it out
_MOST_NAMES = 40  # a step looks at all of them


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
        self._before: dict[Path, dict[str, os.stat_result]] = {here: {}, there: {}}

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
        start = _tick()
        for name in names:
            for root in self.roots:
                where = "tmpfs" if root is self.roots[1] else "the mount"
                seen = self._call(root, who, call, name)
                assert seen == expected, f"{name} by {who} on {where}: {seen}, not {expected}"
        here, there = (self._look(root, start, but) for root in self.roots)
        different = {name for name in (*here, *there) if here.get(name) != there.get(name)}
        assert not different, "".join(
            f"\n{name} by {who}\n on the mount {here.get(name)}\n on tmpfs     {there.get(name)}"
            for name in sorted(different)
        )

    def _look(self, root: Path, start: int, but: str) -> dict[str, list[str]]:
        """Every name in the directory, the directory itself as "."."""
        names = (".", *sorted(os.listdir(root)))
        assert len(names) <= _MOST_NAMES
        before = self._before[root]
        after = self._before[root] = {name: os.lstat(root / name) for name in names}
        return {
            name: [
                said
                for said in _tell(name, before.get(name), after[name], start)
                if but not in said
            ]
            for name in names
        }

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


def _tick() -> int:
    """Later than all stamps so far, not later than those to come; some are of a coarse clock."""
    now = time.time_ns()
    while (coarse := time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)) <= now:
        time.sleep(0.0005)
    return coarse


def _tell(
    name: str, before: os.stat_result | None, status: os.stat_result, start: int
) -> list[str]:
    times = [f"{field} {_moved(f'st_{field}_ns', before, status, start)}" for field in TIMES]
    if name == "." or stat.S_ISLNK(status.st_mode):
        del times[0]  # tmpfs moves atime when we list or follow
    return [
        f"mode {stat.filemode(status.st_mode)}",
        f"owner {status.st_uid}, {status.st_gid}",
        f"links {status.st_nlink}",
        f"size {None if stat.S_ISDIR(status.st_mode) else status.st_size}",
        f"device {status.st_rdev}",
        *times,
    ]


def _moved(field: str, before: os.stat_result | None, status: os.stat_result, start: int) -> object:
    """Also what moved by itself since the last look."""
    value = getattr(status, field)
    if abs(value - start) > _AROUND_NOW:
        return value
    if value >= start:
        return "now"
    return "kept" if before is None or getattr(before, field) == value else "moved before"


def plant_kinds(_: str = "") -> None:
    """In the working directory: a file of each kind, and a link to each (to-KIND). The one called
    symlink leads nowhere.
    """
    for kind in KINDS:
        make(kind, kind)
    for kind in FOLLOWED:
        os.symlink(kind, f"to-{kind}")

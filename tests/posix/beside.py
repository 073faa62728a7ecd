"""The same calls by the same users in two directories: one on the file system under test, one on
tmpfs beside it.

What a call answers must be the same, and all that it changes, so a change that nobody asked for is
found, too: which names there are in and below the directory, and for each its mode and kind, owner,
links, size, device number, target, whether it is still the same file, and which of its three times
moved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.places import ELSEWHERE
from tests.posix.users import ROOT, User, Who

OK = "ok"
_AROUND_NOW = 3600 * 10**9
_CLOCK_REALTIME_COARSE = 5  # the time module leaves it out
_MOST_NAMES = 60  # each step looks at all of them
_Look = dict[str, dict[str, object]]  # what is told of each name


class Twins:
    """Two directories that began alike, and what is done in both. Paths are relative to them.

    An answer is an errno's name, "ok" for any value that is the same in both, or the very value.
    """

    def __init__(self, tested: Path, model: Path) -> None:
        self.roots = (tested, model)
        self._sides = (_Side(tested), _Side(model))
        self._seen = False  # whether nothing was done since the last look

    def __call__(
        self,
        answer: object,
        call: Callable[..., object],
        *arguments: object,
        who: Who | int = ROOT,
        but: tuple[str, ...] = (),
    ) -> None:
        """Both answer so, and show the same afterwards, `but` for these of what is told."""
        with self._looked_at(f"{_told(call)}{arguments} by {who}", but):
            self._answers(answer, call, *arguments, who=who)

    def each(
        self,
        answer: object,
        call: Callable[..., object],
        names: Iterable[str],
        *more: object,
        who: Who | int = ROOT,
        but: tuple[str, ...] = (),
    ) -> None:
        """As a call for each of the names, and one look when all are done."""
        with self._looked_at(f"{_told(call)}, {more} by {who}", but):
            for name in names:
                self._answers(answer, call, name, *more, who=who)

    def briefly(
        self,
        answer: object,
        call: Callable[..., object],
        *arguments: object,
        names: tuple[str, ...],
        who: Who | int = ROOT,
    ) -> None:
        """As a call, but only these names are looked at, and no times: where much is tried."""
        told = f"{_told(call)}{arguments} by {who}"
        before = [side.glance(names) for side in self._sides]
        _same(before, f"before {told}")
        self._seen = False
        self._answers(answer, call, *arguments, who=who)
        after = [side.glance(names) for side in self._sides]
        _same(after, told)
        if isinstance(answer, str) and answer != OK:
            assert after == before, told

    def only(
        self,
        answer: str,
        call: Callable[..., object],
        *arguments: object,
        who: Who | int = ROOT,
    ) -> None:
        """As a call, without a look at what changes and which value it has."""
        self._seen = False
        for side in reversed(self._sides):
            seen = side.run(who, call, *arguments)
            told = f"{_told(call)}{arguments} by {who} in {side.root}"
            assert seen == _wanted(answer, seen), f"{told}: {seen}, not {answer}"

    def shown(self, name: str) -> tuple[str, str, int, int]:
        """Kind, octal mode, owner and group on the file system under test, as root sees them."""
        status = (self.roots[0] / name).lstat()
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        return stat.filemode(status.st_mode)[0], mode, status.st_uid, status.st_gid

    def close(self) -> None:
        for side in self._sides:
            side.close()

    def _answers(
        self, answer: object, call: Callable[..., object], *arguments: object, who: Who | int
    ) -> None:
        tested, model = (side.run(who, call, *arguments) for side in self._sides)
        told = f"{_told(call)}{arguments} by {who}: "
        expected = _wanted(answer, model)
        assert model == expected, f"{told}tmpfs answers {model}, not {answer}"
        assert tested == expected, f"{told}{tested}, but tmpfs {model}"

    @contextlib.contextmanager
    def _looked_at(self, told: str, but: tuple[str, ...]) -> Iterator[None]:
        if not self._seen:
            self._look(0)
        self._seen = False
        start = _tick()
        yield
        _same(self._look(start), told, but)

    def _look(self, start: int) -> list[_Look]:
        self._seen = True
        return [side.look(start) for side in self._sides]


@dataclass(frozen=True)
class _Refused:
    """What a call that fails answers."""

    number: int

    def __repr__(self) -> str:
        return errno.errorcode.get(self.number, str(self.number))


class _Side:
    """One of the two directories, with its users."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._users: dict[Who, User] = {}
        self._before: dict[int, os.stat_result] = {}
        self._numbers: dict[int, int] = {}  # inodes as they came: 1, 2, ...
        self._count = 0

    def run(self, who: Who | int, call: Callable[..., object], *arguments: object) -> object:
        who = who if isinstance(who, Who) else Who(who)
        user = self._users.get(who)
        if user is None:
            user = self._users[who] = User(self.root, who.uid, who.gid, who.groups)
        try:
            return user.run(call, *arguments)
        except OSError as error:
            return _Refused(error.errno or 0)

    def close(self) -> None:
        for user in self._users.values():
            user.close()

    def look(self, start: int) -> _Look:
        """All that is there, and which of its times moved since the last look, or are `start`'s."""
        found: _Look = {}
        present: dict[int, os.stat_result] = {}
        for name, status, target in _walk(str(self.root)):
            before = self._before.get(status.st_ino)
            found[name] = self._shown(status, target) | _times(before, status, start)
            present[status.st_ino] = status
        assert len(found) <= _MOST_NAMES
        self._numbers = {inode: self._numbers[inode] for inode in present}
        self._before = present
        return found

    def glance(self, names: Iterable[str]) -> _Look:
        """What is at these names, without times."""
        found: _Look = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self._shown(*_status(f"{self.root}/{name}"))
        return found

    def _shown(self, status: os.stat_result, target: str | None) -> dict[str, object]:
        if status.st_ino not in self._numbers:
            self._count += 1
            self._numbers[status.st_ino] = self._count
        return {
            "mode": stat.filemode(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "links": status.st_nlink,
            "size": None if stat.S_ISDIR(status.st_mode) else status.st_size,
            "device": status.st_rdev,
            "target": target,
            "file": self._numbers[status.st_ino],
        }


def _walk(
    path: str, above: int | None = None, name: str = ""
) -> Iterator[tuple[str, os.stat_result, str | None]]:
    """(name, status, target) of a directory and all below it, by descriptors: a path may be longer
    than the kernel takes.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME, dir_fd=above)
    try:
        yield name or ".", os.fstat(folder), None
        for entry in sorted(os.listdir(folder)):
            status, target = _status(entry, folder)
            below = f"{name}/{entry}" if name else entry
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(entry, folder, below)
            else:
                yield below, status, target
    finally:
        os.close(folder)


def _status(path: str, folder: int | None = None) -> tuple[os.stat_result, str | None]:
    """The target is None, too, where POSIX_TEST_DIR says: to read it may move atime there."""
    status = os.stat(path, dir_fd=folder, follow_symlinks=False)
    is_link = stat.S_ISLNK(status.st_mode) and not ELSEWHERE
    return status, os.readlink(path, dir_fd=folder) if is_link else None


def _times(before: os.stat_result | None, status: os.stat_result, start: int) -> dict[str, object]:
    fields = {name: f"st_{name}_ns" for name in ("atime", "mtime", "ctime")}
    return {
        name: _moved(getattr(before, field, None), getattr(status, field), start)
        for name, field in fields.items()
    }


def _moved(before: int | None, value: int, start: int) -> object:
    """Also what moved by itself since the last look."""
    if abs(value - start) > _AROUND_NOW:
        return value
    if value >= start:
        return "now"
    return "kept" if before is None or before == value else "moved before"


def _tick() -> int:
    """Later than all stamps so far, not later than those to come; some are of a coarse clock."""
    now = time.time_ns()
    while (coarse := time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)) <= now:
        time.sleep(0.0005)
    return coarse


def _wanted(answer: object, seen: object) -> object:
    """What `seen` must be like."""
    if answer == OK and not isinstance(seen, _Refused):
        return seen
    return _Refused(getattr(errno, answer, 0)) if isinstance(answer, str) else answer


def _told(call: Callable[..., object]) -> str:
    return getattr(call, "__name__", str(call))


def _same(looks: list[_Look], told: str, but: tuple[str, ...] = ()) -> None:
    """The differences are told name by name."""
    tested, model = (
        {
            name: {key: value for key, value in shown.items() if key not in but}
            for name, shown in look.items()
        }
        for look in looks
    )
    lines = [
        f"{name}: {tested.get(name)},\n  but tmpfs {model.get(name)}"
        for name in sorted({*tested, *model})
        if tested.get(name) != model.get(name)
    ]
    assert not lines, "\n".join([told, *lines])


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    """Without atime, as the mount."""
    command = ["mount", "-t", "tmpfs", "-o", "noatime,size=16m", "filesfs-test", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tmpfs; when tmpfs itself is asked, another directory there."""
    if ELSEWHERE:
        yield Path(tempfile.mkdtemp(dir=ELSEWHERE))
        return
    folder = tmp_path_factory.mktemp("beside")
    with tmpfs(folder):
        yield folder


@pytest.fixture
def twins(place: Path, model: Path) -> Iterator[Twins]:
    """In a bucket of the test's own."""
    with _twins(place, model) as both:
        yield both


@pytest.fixture
def twins_below(module_place: Path, model: Path) -> Iterator[Twins]:
    """In a directory of the test's own, below the module's bucket."""
    place = Path(tempfile.mkdtemp(dir=module_place))
    place.chmod(0o755)
    with _twins(place, model) as both:
        yield both


@contextlib.contextmanager
def _twins(tested: Path, model: Path) -> Iterator[Twins]:
    both = Twins(tested, model / tested.name)
    both.roots[1].mkdir()
    both.roots[1].chmod(0o755)
    try:
        yield both
    finally:
        both.close()

"""The same calls in two directories: one on the file system under test, one on tmpfs beside it.

What a call answers must be the same, and all that it changes: which names there are, and for each
its kind, mode, owner, links, size, target, whether it is still the same file, and which of its
three times moved.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.mount.places import ELSEWHERE
from tests.posix.users import User

NO_DIRECTORIES = ("file", "fifo", "block", "char", "socket", "symlink")
KINDS = (*NO_DIRECTORIES, "directory")
NULL = ctypes.c_void_p(0)
NOWHERE = ctypes.c_void_p(0xDEADC0DE)  # mapped by nobody: it is no multiple of a page, and odd
# Where POSIX_TEST_DIR says, reading may move atime; see `beside`.
_READ = () if ELSEWHERE else (("a", "st_atime_ns"),)
_TIMES = (*_READ, ("m", "st_mtime_ns"), ("c", "st_ctime_ns"))
_COARSE = 5  # CLOCK_REALTIME_COARSE, which the time module leaves out
_libc = ctypes.CDLL(None, use_errno=True)


def make(kind: str, path: str, owner: int = 0) -> None:
    """A new file of this kind, 0644 (a directory 0755, a link 0777)."""
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)),
        "fifo": lambda: os.mkfifo(path, 0o644),
        "block": lambda: os.mknod(path, 0o644 | stat.S_IFBLK, os.makedev(1, 2)),
        "char": lambda: os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 2)),
        "socket": lambda: _bind(path),
        "symlink": lambda: os.symlink("target", path),
        "directory": lambda: os.mkdir(path, 0o755),
    }
    makers[kind]()
    if owner:
        os.lchown(path, owner, owner)


def remove(path: str) -> None:
    """What is there, if anything."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)


def raw(name: str, *arguments: bytes | ctypes.c_void_p) -> None:
    """A call of libc's, also with addresses that are none."""
    if getattr(_libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


class _Side:
    """One of the two directories, with its users."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._users: dict[int, User] = {}
        self._before: dict[int, os.stat_result] = {}
        self._numbers: dict[int, int] = {}  # inodes as they came: 1, 2, ...
        self._count = 0

    def run(self, uid: int, call: Callable[..., object], *arguments: object) -> tuple[str, object]:
        user = self._users.get(uid) or self._users.setdefault(uid, User(self.root, uid))
        try:
            return "ok", user.run(call, *arguments)
        except OSError as error:
            return errno.errorcode[error.errno or 0], None

    def close(self) -> None:
        for user in self._users.values():
            user.close()

    def look(self, start: int) -> dict[str, tuple[object, ...]]:
        """What there is, and which of its times moved since the last look, or are `start`'s."""
        found: dict[str, tuple[object, ...]] = {}
        present: dict[int, os.stat_result] = {}
        for name, path, status in self._statuses(_names(str(self.root))):
            before = self._before.get(status.st_ino)
            moved = [
                letter
                for letter, field in _TIMES
                if (now := getattr(status, field)) >= start
                or (before is not None and now != getattr(before, field))
            ]
            found[name] = (*_told(path, status), self._number(status.st_ino), "".join(moved))
            present[status.st_ino] = status
        self._numbers = {inode: self._numbers[inode] for inode in present}
        self._before = present
        return found

    def glance(self, names: Iterable[str]) -> dict[str, tuple[object, ...]]:
        """What is at these names, without times."""
        return {
            name: (*_told(path, status), self._number(status.st_ino))
            for name, path, status in self._statuses(names)
        }

    def _statuses(self, names: Iterable[str]) -> Iterator[tuple[str, str, os.stat_result]]:
        for name in names:
            path = f"{self.root}/{name}"
            with contextlib.suppress(FileNotFoundError):
                yield name, path, os.lstat(path)

    def _number(self, inode: int) -> int:
        if inode not in self._numbers:
            self._count += 1
            self._numbers[inode] = self._count
        return self._numbers[inode]


def _tick() -> int:
    """Later than all stamps so far, and earlier than those to come: some are of a coarse clock."""
    now = time.time_ns()
    while (coarse := time.clock_gettime_ns(_COARSE)) <= now:
        time.sleep(0.0005)
    return coarse


def _names(root: str) -> list[str]:
    found = ["."]
    for folder, directories, files in os.walk(root):
        below = folder[len(root) + 1 :]
        found += [os.path.join(below, name) for name in (*directories, *files)]
    return sorted(found)


def _told(path: str, status: os.stat_result) -> tuple[object, ...]:
    size = None if stat.S_ISDIR(status.st_mode) else status.st_size
    device = status.st_rdev if stat.S_IFMT(status.st_mode) in (stat.S_IFBLK, stat.S_IFCHR) else 0
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
    return oct(status.st_mode), status.st_nlink, status.st_uid, status.st_gid, size, device, target


def _differences(
    found: dict[str, tuple[object, ...]], expected: dict[str, tuple[object, ...]]
) -> list[str]:
    names = sorted({*found, *expected})
    return [
        f"{name}: {found.get(name)}, but tmpfs {expected.get(name)}"
        for name in names
        if found.get(name) != expected.get(name)
    ]


class Twins:
    """Paths are relative to the two directories."""

    def __init__(self, tested: Path, model: Path) -> None:
        self._sides = (_Side(tested), _Side(model))
        self._seen = False

    def __call__(
        self, answer: str, call: Callable[..., object], *arguments: object, uid: int = 0
    ) -> None:
        """Both answer so ("ok" or an errno's name), with the same value and the same changes."""
        if not self._seen:
            self._look(0)
        start = _tick()
        told = f"{getattr(call, '__name__', call)}{arguments} by {uid}"
        tested, model = (side.run(uid, call, *arguments) for side in self._sides)
        assert model[0] == answer, f"{told}: tmpfs answers {model}"
        assert tested == model, f"{told}: {tested}, but tmpfs {model}"
        changed, expected = self._look(start)
        assert changed == expected, "\n".join([told, *_differences(changed, expected)])

    def briefly(
        self,
        answer: str,
        call: Callable[..., object],
        *arguments: object,
        names: tuple[str, ...],
        uid: int = 0,
    ) -> None:
        """As a call, but only these names are looked at, and no times: where much is tried."""
        before = [side.glance(names) for side in self._sides]
        self.only(answer, call, *arguments, uid=uid)
        after = [side.glance(names) for side in self._sides]
        told = f"{getattr(call, '__name__', call)}{arguments} by {uid}"
        assert before[0] == before[1], "\n".join([f"before {told}", *_differences(*before)])
        assert after[0] == after[1], "\n".join([told, *_differences(*after)])
        if answer != "ok":
            assert after == before, told

    def only(
        self, answer: str, call: Callable[..., object], *arguments: object, uid: int = 0
    ) -> None:
        """As a call, without a look at what changes."""
        self._seen = False
        for side in reversed(self._sides):
            assert side.run(uid, call, *arguments)[0] == answer, (side.root, call, arguments)

    def close(self) -> None:
        for side in self._sides:
            side.close()

    def _look(self, start: int) -> list[dict[str, tuple[object, ...]]]:
        self._seen = True
        return [side.look(start) for side in self._sides]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tmpfs without atime, as the mount; when tmpfs itself is asked, another directory there."""
    if ELSEWHERE:
        yield Path(tempfile.mkdtemp(dir=ELSEWHERE))
        return
    folder = tmp_path_factory.mktemp("beside")
    with tmpfs(folder):
        yield folder


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", "noatime,size=16m", "filesfs-test", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def twins(place: Path, beside: Path) -> Iterator[Twins]:
    model = beside / place.name
    model.mkdir()
    model.chmod(0o755)
    both = Twins(place, model)
    yield both
    both.close()

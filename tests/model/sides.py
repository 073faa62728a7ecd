"""One operation done on two file systems, and what there is to compare afterwards.

Operations are values; `Side.do` performs one and answers with what a program would see.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.posix.calls import EXCHANGE, NOREPLACE, renameat2
from tests.posix.users import NOBODY, SOMEBODY, User

SLOTS = 3  # descriptors at a time
# FUSE does not say who writes, so for setuid and setgid the one counts who opened the file.
_BY_OPENER = {"write", "pwrite", "ftruncate", "map"}
USERS = (0, NOBODY, SOMEBODY)
_START = time.time_ns() - 3600 * 10**9


@dataclass(frozen=True)
class Step:
    """One call by a user. What the fields mean depends on the call."""

    call: str
    user: int = 0
    path: str = "a"
    other: str = "b"
    number: int = 0
    slot: int = 0
    data: bytes = b""
    process: int = 0  # where there are several: see actors.py

    @property
    def told(self) -> str:
        what = f"{self.path}, {self.other}, {self.number}, {self.slot}"
        return f"{self.call}({what}) as {self.user} in {self.process}"

    @property
    def content(self) -> bytes:
        """What is written: long enough to cross pages, short when it is told."""
        return self.data * 500


Seen = tuple[str, object]


class Side:
    """A directory on one of the file systems, and the descriptors open in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o777)
        self._users: list[User] = []
        self.enter()
        self._slots: list[int | None] = [None] * SLOTS
        self._openers = [0] * SLOTS

    def enter(self) -> None:
        """The users come, with their working directory here."""
        groups = {NOBODY: (4242,)}
        self._users = [User(self.root, uid, groups=groups.get(uid, ())) for uid in USERS]

    def close(self) -> None:
        """Descriptors and users go, also from a mount that died under them."""
        for slot in range(SLOTS):
            with contextlib.suppress(OSError):
                self._close(Step("close", slot=slot))
        for user in self._users:
            user.close()

    def sync(self) -> None:
        """Nothing is left unacknowledged."""
        for slot in range(SLOTS):
            with contextlib.suppress(OSError):  # what cannot be synced, such as a FIFO
                self._fsync(Step("fsync", slot=slot))

    def do(self, step: Step) -> Seen:
        call: Callable[[Step], object] = getattr(self, f"_{step.call}")
        user = self._openers[step.slot] if step.call in _BY_OPENER else step.user
        try:
            return "ok", self._users[user].run(call, step)
        except OSError as error:
            return "error", errno.errorcode[error.errno or 0]

    # -- descriptors ------------------------------------------------------------------------------
    def _open(self, step: Step) -> object:
        if self._slots[step.slot] is not None:
            return "busy"
        flags = (
            os.O_RDONLY,
            os.O_RDWR,
            os.O_RDWR | os.O_CREAT,
            os.O_RDWR | os.O_CREAT | os.O_EXCL,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
            os.O_WRONLY | os.O_APPEND,
            os.O_RDWR | os.O_TRUNC,
        )[step.number % 7]
        self._slots[step.slot] = os.open(step.path, flags | os.O_NONBLOCK, 0o666)
        self._openers[step.slot] = step.user
        return None

    def _close(self, step: Step) -> object:
        descriptor = self._slots[step.slot]
        self._slots[step.slot] = None
        if descriptor is not None:
            os.close(descriptor)
        return None

    def _on(self, step: Step, call: Callable[[int], object]) -> object:
        descriptor = self._slots[step.slot]
        return "closed" if descriptor is None else call(descriptor)

    def _pread(self, step: Step) -> object:
        return self._on(step, lambda number: os.pread(number, 5000, step.number))

    def _pwrite(self, step: Step) -> object:
        return self._on(step, lambda number: os.pwrite(number, step.content, step.number))

    def _write(self, step: Step) -> object:
        return self._on(step, lambda number: os.write(number, step.content))

    def _ftruncate(self, step: Step) -> object:
        return self._on(step, lambda number: os.ftruncate(number, step.number))

    def _fsync(self, step: Step) -> object:
        return self._on(step, os.fsync)

    def _fchmod(self, step: Step) -> object:
        return self._on(step, lambda number: os.fchmod(number, _mode(step)))

    def _fstat(self, step: Step) -> object:
        return self._on(step, lambda number: told(os.fstat(number)))

    def _map(self, step: Step) -> object:
        def change(number: int) -> object:
            status = os.fstat(number)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            if not size:
                return "empty"
            with mmap.mmap(number, size) as mapping:
                start = step.number % size
                piece = step.content[: size - start]
                mapping[start : start + len(piece)] = piece
                mapping.flush()
            return None

        return self._on(step, change)

    # -- paths ------------------------------------------------------------------------------------
    def _put(self, step: Step) -> object:
        return _store(step, os.O_TRUNC)

    def _append(self, step: Step) -> object:
        return _store(step, os.O_APPEND)

    def _mkdir(self, step: Step) -> None:
        os.mkdir(step.path, 0o777)

    def _mkfifo(self, step: Step) -> None:
        os.mkfifo(step.path)

    def _rmdir(self, step: Step) -> None:
        os.rmdir(step.path)

    def _unlink(self, step: Step) -> None:
        os.unlink(step.path)

    def _rename(self, step: Step) -> None:
        os.rename(step.path, step.other)

    def _noreplace(self, step: Step) -> None:
        renameat2(step.path, step.other, NOREPLACE)

    def _exchange(self, step: Step) -> None:
        renameat2(step.path, step.other, EXCHANGE)

    def _link(self, step: Step) -> None:
        os.link(step.path, step.other, follow_symlinks=False)

    def _symlink(self, step: Step) -> None:
        os.symlink(step.other, step.path)

    def _chmod(self, step: Step) -> None:
        os.chmod(step.path, _mode(step))

    def _chown(self, step: Step) -> None:
        owner = (-1, 0, NOBODY, SOMEBODY)[step.number % 4]
        group = (-1, 4242, NOBODY, SOMEBODY)[step.number // 4 % 4]
        os.chown(step.path, owner, group, follow_symlinks=False)

    def _utime(self, step: Step) -> None:
        os.utime(step.path, ns=(step.number, step.number + 1), follow_symlinks=False)

    def _truncate(self, step: Step) -> None:
        os.truncate(step.path, step.number)

    def _stat(self, step: Step) -> object:
        return told(os.stat(step.path))

    # -- afterwards -------------------------------------------------------------------------------
    def picture(self) -> dict[str, object]:
        return picture_of(self.root)


def picture_of(root: Path) -> dict[str, object]:
    """Every name with its stat and content, as root sees them."""
    found: dict[str, object] = {".": told(root.stat())}
    for folder, directories, files in os.walk(root):
        for name in sorted((*directories, *files)):
            path = Path(folder, name)
            found[str(path.relative_to(root))] = _looks(path)
    return found


def _store(step: Step, how: int) -> int:
    """Open, write, close; a FIFO without a reader refuses instead of waiting for one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | how
    descriptor = os.open(step.path, flags, 0o666)
    try:
        return os.write(descriptor, step.content)
    finally:
        os.close(descriptor)


def _mode(step: Step) -> int:
    return (0o644, 0o600, 0o777, 0o000, 0o4755, 0o2775, 0o1777, 0o6777, 0o2745)[step.number % 9]


def told(status: os.stat_result) -> tuple[object, ...]:
    """What two file systems must agree on; a time that is not set by hand is only "now"."""
    modified = status.st_mtime_ns if status.st_mtime_ns < _START else "now"
    size = status.st_size if not stat.S_ISDIR(status.st_mode) else None
    owner = (status.st_uid, status.st_gid)
    return oct(status.st_mode), status.st_nlink, owner, size, modified


def _looks(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return (*told(status), content)

"""open: whom the modes of files, FIFOs and directories let in, and for what; what it refuses."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from errno import EFAULT, errorcode
from pathlib import Path

import pytest

from tests.posix.beside import Twins
from tests.posix.calls import AT_SYMLINK_NOFOLLOW
from tests.posix.kinds import KINDS, make, plant_kinds
from tests.posix.users import NOBODY, ROOT, Who

OWNER, MEMBER, OTHER = Who(NOBODY), Who(65533, NOBODY), Who(65533)
LETTERS = {os.O_RDONLY: 4, os.O_WRONLY: 2, os.O_RDWR: 6}
DENIED = "EACCES"
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def twins(twins_below: Twins) -> Twins:
    return twins_below


def _open(flags: int) -> Callable[[str], object]:
    return lambda name: os.close(os.open(name, flags))


@pytest.mark.parametrize(("who", "shift"), [(OWNER, 6), (MEMBER, 3), (OTHER, 0)])
@pytest.mark.parametrize("kind", ["file", "fifo", "directory"])
def test_one_class_of_the_mode_counts(twins: Twins, kind: str, who: Who, shift: int) -> None:
    """Of owner, group and others only that to which the caller belongs, whatever the other two
    allow; and no class at all for root.
    """
    modes = []
    for bits in range(8):
        modes += [bits << shift, 0o777 & ~(7 << shift) | bits << shift]
    names = [f"{mode:04o}" for mode in modes]
    twins.each(None, lambda name: make(kind, name), names)
    twins.each(None, os.chown, names, NOBODY, NOBODY)
    twins.each(None, lambda name: os.chmod(name, int(name, 8)), names)
    for flags, needed in LETTERS.items():
        if kind == "directory" and flags != os.O_RDONLY:
            twins.each("EISDIR", _open(flags), names, who=who)
            continue
        answer = "ENXIO" if kind == "fifo" and flags == os.O_WRONLY else None
        if kind == "fifo":
            flags |= os.O_NONBLOCK
        let = [name for name in names if needed & ~(int(name, 8) >> shift) == 0]
        twins.each(answer, _open(flags), let, who=who)
        twins.each(DENIED, _open(flags), set(names) - set(let), who=who)
        twins.each(answer, _open(flags), names)


@pytest.mark.parametrize(("who", "shift"), [(OWNER, 6), (MEMBER, 3), (OTHER, 0)])
def test_truncation_needs_permission_to_write(twins: Twins, who: Who, shift: int) -> None:
    """Also with O_RDONLY; and what is refused leaves the content."""
    names = [f"{0o777 & ~(7 << shift) | bits << shift:04o}" for bits in range(8)]
    twins.each(1, lambda name: Path(name).write_bytes(b"x"), names)
    twins.each(None, os.chown, names, NOBODY, NOBODY)
    twins.each(None, lambda name: os.chmod(name, int(name, 8)), names)
    refused = [name for name in names if int(name, 8) >> shift & 6 != 6]
    twins.each(DENIED, _open(os.O_RDONLY | os.O_TRUNC), refused, who=who)
    twins.each(1, os.path.getsize, names)
    twins.each(None, _open(os.O_RDONLY | os.O_TRUNC), set(names) - set(refused), who=who)
    twins.each(1, os.path.getsize, refused)


def test_in_a_directory_that_is_closed(twins: Twins) -> None:
    twins(None, os.mkdir, "d")
    twins(None, make, "file", "d/f")
    twins.each(None, os.chown, ["d", "d/f"], NOBODY, NOBODY)
    for mode, answer in ((0o755, None), (0o644, DENIED), (0o755, None)):
        twins(None, os.chmod, "d", mode)
        twins(answer, _open(os.O_RDONLY), "d/f", who=OWNER)


def test_what_flags_and_kinds_refuse(twins: Twins) -> None:
    twins(None, plant_kinds)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_WRONLY | os.O_TRUNC, os.O_CREAT):
        twins.each("EISDIR", _open(flags), ["directory", "to-directory"])
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_CREAT | os.O_WRONLY):
        twins.each("ELOOP", _open(flags | os.O_NOFOLLOW), ["symlink", "to-file"])
        twins.each("ENXIO", _open(flags & os.O_ACCMODE), ["socket", "to-socket"])
    for who in (ROOT, OWNER):
        twins.each("EEXIST", _open(os.O_CREAT | os.O_EXCL), (*KINDS, "to-file"), who=who)
    for flags in (os.O_WRONLY | os.O_RDWR, os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
        twins(None, _open(flags), "file")  # 3: neither reading nor writing
        twins(DENIED, _open(flags), "file", who=OWNER)


def test_a_program_that_runs_is_not_opened_to_write(twins: Twins) -> None:
    twins(None, lambda name: shutil.copy("/bin/sleep", name) and None, "program")
    running = [subprocess.Popen([root / "program", "60"]) for root in twins.roots]
    try:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            twins("ETXTBSY", _open(flags), "program")
        twins("ETXTBSY", os.truncate, "program", 123)
        twins(None, _open(os.O_RDONLY), "program")
    finally:
        for process in running:
            process.kill()
            process.wait(10)


def test_a_byte_beyond_2_gib(twins: Twins) -> None:
    """Sparse, and shortened before it would travel whole."""

    def write(name: str) -> object:
        descriptor = os.open(name, os.O_CREAT | os.O_RDWR, 0o755)
        other = os.open(name, os.O_RDONLY)
        try:
            os.pwrite(descriptor, b"a", (2 << 30) + 1)
            seen = os.lstat(name).st_size, os.pread(other, 1, (2 << 30) + 1), os.pread(other, 1, 9)
            os.ftruncate(descriptor, 0)
            return seen
        finally:
            os.close(other)
            os.close(descriptor)

    twins(((2 << 30) + 2, b"a", b"\0"), write, "x")


@pytest.mark.parametrize("who", [ROOT, OWNER])
def test_a_file_of_no_mode_is_open_as_it_was_asked_for(twins: Twins, who: Who) -> None:
    """O_CREAT with mode 0; ftruncate and posix_fallocate work through it."""

    def make(name: str) -> object:
        flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[name]
        descriptor = os.open(name, flags | os.O_CREAT, 0)
        try:
            if flags != os.O_RDONLY:
                os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, 1)
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    twins(None, os.chmod, ".", 0o777)
    twins(0, make, "r", who=who)
    twins.each(1, make, ["w", "rw"], who=who)
    answer = None if who is ROOT else DENIED
    for flags in LETTERS:
        twins.each(answer, _open(flags), ["r", "w", "rw"], who=who)


@pytest.mark.parametrize("address", [None, 0xDEADC0DE])
def test_a_path_at_no_address(module_place: Path, address: int | None) -> None:
    """The kernel's own answer, whatever the file system; the directory is one of the mount."""
    path, folder = ctypes.c_void_p(address), os.open(module_place, os.O_DIRECTORY)
    calls: dict[str, tuple[int, ...]] = {
        "openat": (0, 0),
        "mkdirat": (0o755,),
        "fchmodat": (0o644, 0),
        "fchownat": (1, 1, AT_SYMLINK_NOFOLLOW),
        "mkfifoat": (0o644,),
        "mknodat": (0o10644, 0),
    }
    try:
        for name, arguments in calls.items():
            assert getattr(_libc, name)(folder, path, *arguments) == -1
            assert errorcode[ctypes.get_errno()] == errorcode[EFAULT], name
        for name, arguments in (("truncate", (123,)), ("chown", (1, 1))):
            assert getattr(_libc, name)(path, *arguments) == -1
            assert errorcode[ctypes.get_errno()] == errorcode[EFAULT], name
    finally:
        os.close(folder)

"""open: whom the modes of files, FIFOs and directories let in, and for what; what it refuses."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from errno import EACCES, EEXIST, EFAULT, EISDIR, ELOOP, ENXIO, ETXTBSY, errorcode
from pathlib import Path

import pytest

from tests.posix.beside import ROOT, Error, Sides, Who, plant_kinds, sides_in
from tests.posix.calls import AT_SYMLINK_NOFOLLOW
from tests.posix.twins import KINDS, make
from tests.posix.users import NOBODY

OWNER, MEMBER, OTHER = Who(NOBODY), Who(65533, NOBODY), Who(65533)
LETTERS = {os.O_RDONLY: 4, os.O_WRONLY: 2, os.O_RDWR: 6}
DENIED = Error(EACCES)
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def sides(module_place: Path) -> Iterator[Sides]:
    with sides_in(module_place) as both:
        yield both


def _open(flags: int) -> Callable[[str], object]:
    return lambda name: os.close(os.open(name, flags))


@pytest.mark.parametrize(("who", "shift"), [(OWNER, 6), (MEMBER, 3), (OTHER, 0)])
@pytest.mark.parametrize("kind", ["file", "fifo", "directory"])
def test_one_class_of_the_mode_counts(sides: Sides, kind: str, who: Who, shift: int) -> None:
    """Of owner, group and others only that to which the caller belongs, whatever the other two
    allow; and no class at all for root.
    """
    modes = []
    for bits in range(8):
        modes += [bits << shift, 0o777 & ~(7 << shift) | bits << shift]
    names = [f"{mode:04o}" for mode in modes]
    sides.do(ROOT, lambda name: make(kind, name), names)
    sides.do(ROOT, lambda name: os.chown(name, NOBODY, NOBODY), names)
    sides.do(ROOT, lambda name: os.chmod(name, int(name, 8)), names)
    for flags, needed in LETTERS.items():
        if kind == "directory" and flags != os.O_RDONLY:
            sides.do(who, _open(flags), names, Error(EISDIR))
            continue
        answer = Error(ENXIO) if kind == "fifo" and flags == os.O_WRONLY else None
        if kind == "fifo":
            flags |= os.O_NONBLOCK
        let = [name for name in names if needed & ~(int(name, 8) >> shift) == 0]
        sides.do(who, _open(flags), let, answer)
        sides.do(who, _open(flags), set(names) - set(let), DENIED)
        sides.do(ROOT, _open(flags), names, answer)


@pytest.mark.parametrize(("who", "shift"), [(OWNER, 6), (MEMBER, 3), (OTHER, 0)])
def test_truncation_needs_permission_to_write(sides: Sides, who: Who, shift: int) -> None:
    """Also with O_RDONLY; and what is refused leaves the content."""
    names = [f"{0o777 & ~(7 << shift) | bits << shift:04o}" for bits in range(8)]
    sides.do(ROOT, lambda name: Path(name).write_bytes(b"x"), names, 1)
    sides.do(ROOT, lambda name: os.chown(name, NOBODY, NOBODY), names)
    sides.do(ROOT, lambda name: os.chmod(name, int(name, 8)), names)
    refused = [name for name in names if int(name, 8) >> shift & 6 != 6]
    sides.do(who, _open(os.O_RDONLY | os.O_TRUNC), refused, DENIED)
    sides.do(ROOT, os.path.getsize, names, 1)
    sides.do(who, _open(os.O_RDONLY | os.O_TRUNC), set(names) - set(refused))
    sides.do(ROOT, os.path.getsize, refused, 1)


def test_in_a_directory_that_is_closed(sides: Sides) -> None:
    sides.do(ROOT, os.mkdir, ["d"])
    sides.do(ROOT, lambda name: make("file", name), ["d/f"])
    sides.do(ROOT, lambda name: os.chown(name, NOBODY, NOBODY), ["d", "d/f"])
    for mode, answer in ((0o755, None), (0o644, DENIED), (0o755, None)):
        sides.do(ROOT, lambda name, bits=mode: os.chmod(name, bits), ["d"])  # type: ignore[misc]
        sides.do(OWNER, _open(os.O_RDONLY), ["d/f"], answer)


def test_what_flags_and_kinds_refuse(sides: Sides) -> None:
    sides.do(ROOT, plant_kinds)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_WRONLY | os.O_TRUNC, os.O_CREAT):
        sides.do(ROOT, _open(flags), ["directory", "to-directory"], Error(EISDIR))
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_CREAT | os.O_WRONLY):
        sides.do(ROOT, _open(flags | os.O_NOFOLLOW), ["symlink", "to-file"], Error(ELOOP))
        sides.do(ROOT, _open(flags & os.O_ACCMODE), ["socket", "to-socket"], Error(ENXIO))
    for who in (ROOT, OWNER):
        sides.do(who, _open(os.O_CREAT | os.O_EXCL), (*KINDS, "to-file"), Error(EEXIST))
    for flags in (os.O_WRONLY | os.O_RDWR, os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
        sides.do(ROOT, _open(flags), ["file"])  # 3: neither reading nor writing
        sides.do(OWNER, _open(flags), ["file"], DENIED)


def test_a_program_that_runs_is_not_opened_to_write(sides: Sides) -> None:
    sides.do(ROOT, lambda name: shutil.copy("/bin/sleep", name) and None, ["program"])
    running = [subprocess.Popen([root / "program", "60"]) for root in sides.roots]
    try:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            sides.do(ROOT, _open(flags), ["program"], Error(ETXTBSY), but="atime")  # it was read
        sides.do(ROOT, lambda name: os.truncate(name, 123), ["program"], Error(ETXTBSY))
        sides.do(ROOT, _open(os.O_RDONLY), ["program"])
    finally:
        for process in running:
            process.kill()
            process.wait(10)


def test_a_byte_beyond_2_gib(sides: Sides) -> None:
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

    sides.do(ROOT, write, expected=((2 << 30) + 2, b"a", b"\0"))


@pytest.mark.parametrize("who", [ROOT, OWNER])
def test_a_file_of_no_mode_is_open_as_it_was_asked_for(sides: Sides, who: Who) -> None:
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

    sides.do(ROOT, lambda name: os.chmod(name, 0o777), ["."])
    sides.do(who, make, ["r"], 0)
    sides.do(who, make, ["w", "rw"], 1)
    answer = None if who is ROOT else DENIED
    for flags in LETTERS:
        sides.do(who, _open(flags), ["r", "w", "rw"], answer)


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

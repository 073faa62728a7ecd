"""truncate, ftruncate and posix_fallocate: sizes, times, permission, and what has no size."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.beside import Twins
from tests.posix.kinds import plant_kinds
from tests.posix.users import NOBODY, ROOT, Who

OWNER = Who(NOBODY)
DENIED = "EACCES"


@pytest.fixture
def twins(twins_below: Twins) -> Twins:
    return twins_below


def _truncate(size: int) -> Callable[[str], object]:
    return lambda name: os.truncate(name, size)


def _through(flags: int, call: Callable[[int], object]) -> Callable[[str], object]:
    def do(name: str) -> object:
        descriptor = os.open(name, flags)
        try:
            return call(descriptor)
        finally:
            os.close(descriptor)

    return do


def _ftruncate(size: int, flags: int = os.O_RDWR) -> Callable[[str], object]:
    return _through(flags, lambda number: os.ftruncate(number, size))


def _allocate(offset: int, length: int, flags: int = os.O_RDWR) -> Callable[[str], object]:
    return _through(flags, lambda number: os.posix_fallocate(number, offset, length))


def _write(size: int) -> Callable[[str], object]:
    return lambda name: Path(name).write_bytes(b"d" * size)


SETTERS: dict[str, Callable[[int], Callable[[str], object]]] = {
    "truncate": _truncate,
    "ftruncate": _ftruncate,
    "ftruncate-write-only": lambda size: _ftruncate(size, os.O_WRONLY),
}


@pytest.mark.parametrize("setter", SETTERS)
def test_a_file_becomes_longer_and_shorter(twins: Twins, setter: str) -> None:
    """From nothing and from content; what is cut off and comes back is zeros."""
    call = SETTERS[setter]
    twins(0, _write(0), "empty")
    twins(12345, _write(12345), "full")
    for size in (1234567, 567, 23456, 1, 0, 123):
        twins.each(None, call(size), ["empty", "full"])
        twins.each(size, os.path.getsize, ["empty", "full"])
    twins(bytes(123), lambda name: Path(name).read_bytes(), "full")


def test_truncate_to_the_size_it_has(twins: Twins) -> None:
    """ftruncate moves the times; truncate does so here, and not on tmpfs."""
    twins(9, _write(9), "x")
    twins(None, _ftruncate(9), "x")
    twins(None, _truncate(9), "x", but=("mtime", "ctime"))
    twins(b"d" * 9, lambda name: Path(name).read_bytes(), "x")


def test_of_whom_it_is_refused(twins: Twins) -> None:
    """A stranger, an owner whom the mode keeps out, a descriptor to read; nothing moves."""
    twins.each(9, _write(9), ["roots", "own", "closed"])
    twins.each(None, os.chown, ["own", "closed"], NOBODY, NOBODY)
    twins(None, os.chmod, "closed", 0o444)
    for size in (0, 123):
        twins.each(DENIED, _truncate(size), ["roots", "closed"], who=OWNER)
        twins.each(DENIED, _ftruncate(size), ["roots", "closed"], who=OWNER)
        for who in (ROOT, OWNER):
            read = _ftruncate(size, os.O_RDONLY)
            twins.each("EINVAL", read, ["roots", "own", "closed"], who=who)
        twins(None, _truncate(size), "own", who=OWNER)
        twins(None, _ftruncate(size + 1), "own", who=OWNER)
    twins.each(9, os.path.getsize, ["roots", "closed"])


def test_in_a_directory_that_is_closed(twins: Twins) -> None:
    twins(None, os.mkdir, "d")
    twins(0, _write(0), "d/f")
    twins.each(None, os.chown, ["d", "d/f"], NOBODY, NOBODY)
    for mode, size in ((0o755, 123), (0o644, 1234), (0o755, 1234)):
        answer = None if mode == 0o755 else DENIED
        twins(None, os.chmod, "d", mode)
        twins(answer, _truncate(size), "d/f", who=OWNER)
        twins(size if answer is None else 123, os.path.getsize, "d/f")


def test_sizes_that_no_file_has(twins: Twins) -> None:
    twins(9, _write(9), "x")
    for who in (ROOT, OWNER):
        twins("EINVAL", _truncate(-1), "x", who=who)
        twins("EINVAL", _truncate(-999999), "x", who=who)
    for flags in (os.O_RDWR, os.O_WRONLY):
        twins("EINVAL", _ftruncate(-1, flags), "x")
        twins("EINVAL", _ftruncate(-999999, flags), "x")


def test_a_size_beyond_all_files(twins: Twins) -> None:
    """tmpfs takes it; the suite of POSIX lets both answers stand."""
    path = twins.roots[0] / "x"
    path.touch()
    for call in (_truncate(999_999_999_999_999), _ftruncate(999_999_999_999_999)):
        try:
            call(str(path))
        except OSError as error:
            assert error.errno == errno.EFBIG  # noqa: PT017  # or it has that size
            assert path.stat().st_size == 0
        else:
            assert path.stat().st_size == 999_999_999_999_999
            os.truncate(path, 0)


def test_what_has_no_size(twins: Twins) -> None:
    twins(None, plant_kinds)
    twins(None, os.symlink, "circle", "circle")
    special = [
        f"{way}{kind}" for way in ("", "to-") for kind in ("fifo", "block", "char", "socket")
    ]
    for who in (ROOT, OWNER):
        twins.each("EINVAL", _truncate(1), special, who=who)
        twins.each("EISDIR", _truncate(1), ["directory", "to-directory"], who=who)
        twins.each("ENOENT", _truncate(1), ["symlink", "missing", "missing/x"], who=who)
        twins.each("ELOOP", _truncate(1), ["circle", "circle/x"], who=who)
        twins("EINVAL", _ftruncate(1, os.O_RDONLY), "directory", who=who)
    twins("EINVAL", _ftruncate(1, os.O_RDWR | os.O_NONBLOCK), "fifo")


def test_posix_fallocate(twins: Twins) -> None:
    """Where the kernel refuses fallocate, libc writes; sizes and times are the same."""
    twins(0, _write(0), "empty")
    twins(12345, _write(12345), "full")
    twins(None, _allocate(0, 567), "empty")
    twins(567, os.path.getsize, "empty")
    twins.each(None, _allocate(20000, 3456), ["empty", "full"])
    twins.each(23456, os.path.getsize, ["empty", "full"])
    twins(None, _allocate(0, 123), "empty")
    for flags in (os.O_WRONLY, os.O_RDWR):
        twins.each("EINVAL", _allocate(0, 0, flags), ["empty", "full"])
    twins(b"ddddd" + bytes(5), lambda name: Path(name).read_bytes()[12340:12350], "full")

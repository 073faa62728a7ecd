"""truncate, ftruncate and posix_fallocate: sizes, times, permission, and what has no size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from errno import EACCES, EFBIG, EINVAL, EISDIR, ELOOP, ENOENT
from pathlib import Path

import pytest

from tests.posix.beside import ROOT, Error, Sides, Who, plant_kinds, sides_in
from tests.posix.users import NOBODY

OWNER = Who(NOBODY)
DENIED = Error(EACCES)


@pytest.fixture
def sides(module_place: Path) -> Iterator[Sides]:
    with sides_in(module_place) as both:
        yield both


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
def test_a_file_becomes_longer_and_shorter(sides: Sides, setter: str) -> None:
    """From nothing and from content; what is cut off and comes back is zeros."""
    call = SETTERS[setter]
    sides.do(ROOT, _write(0), ["empty"], 0)
    sides.do(ROOT, _write(12345), ["full"], 12345)
    for size in (1234567, 567, 23456, 1, 0, 123):
        sides.do(ROOT, call(size), ["empty", "full"])
        sides.do(ROOT, os.path.getsize, ["empty", "full"], size)
    sides.do(ROOT, lambda name: Path(name).read_bytes(), ["full"], bytes(123), but="atime")


def test_truncate_to_the_size_it_has(sides: Sides) -> None:
    """ftruncate moves the times; truncate does so here, and not on tmpfs."""
    sides.do(ROOT, _write(9), expected=9)
    sides.do(ROOT, _ftruncate(9))
    sides.do(ROOT, _truncate(9), but="time")
    sides.do(ROOT, lambda name: Path(name).read_bytes(), expected=b"d" * 9, but="atime")


def test_of_whom_it_is_refused(sides: Sides) -> None:
    """A stranger, an owner whom the mode keeps out, a descriptor to read; nothing moves."""
    sides.do(ROOT, _write(9), ["roots", "own", "closed"], 9)
    sides.do(ROOT, lambda name: os.chown(name, NOBODY, NOBODY), ["own", "closed"])
    sides.do(ROOT, lambda name: os.chmod(name, 0o444), ["closed"])
    for size in (0, 123):
        sides.do(OWNER, _truncate(size), ["roots", "closed"], DENIED)
        sides.do(OWNER, _ftruncate(size), ["roots", "closed"], DENIED)
        for who in (ROOT, OWNER):
            read = _ftruncate(size, os.O_RDONLY)
            sides.do(who, read, ["roots", "own", "closed"], Error(EINVAL))
        sides.do(OWNER, _truncate(size), ["own"])
        sides.do(OWNER, _ftruncate(size + 1), ["own"])
    sides.do(ROOT, os.path.getsize, ["roots", "closed"], 9)


def test_in_a_directory_that_is_closed(sides: Sides) -> None:
    sides.do(ROOT, os.mkdir, ["d"])
    sides.do(ROOT, _write(0), ["d/f"], 0)
    sides.do(ROOT, lambda name: os.chown(name, NOBODY, NOBODY), ["d", "d/f"])
    for mode, size in ((0o755, 123), (0o644, 1234), (0o755, 1234)):
        answer = None if mode == 0o755 else DENIED
        sides.do(ROOT, lambda name, bits=mode: os.chmod(name, bits), ["d"])  # type: ignore[misc]
        sides.do(OWNER, _truncate(size), ["d/f"], answer)
        sides.do(ROOT, os.path.getsize, ["d/f"], size if answer is None else 123)


def test_sizes_that_no_file_has(sides: Sides) -> None:
    sides.do(ROOT, _write(9), expected=9)
    for who in (ROOT, OWNER):
        sides.do(who, _truncate(-1), expected=Error(EINVAL))
        sides.do(who, _truncate(-999999), expected=Error(EINVAL))
    for flags in (os.O_RDWR, os.O_WRONLY):
        sides.do(ROOT, _ftruncate(-1, flags), expected=Error(EINVAL))
        sides.do(ROOT, _ftruncate(-999999, flags), expected=Error(EINVAL))


def test_a_size_beyond_all_files(module_place: Path) -> None:
    """tmpfs takes it; the suite of POSIX lets both answers stand."""
    with sides_in(module_place) as sides:
        path = sides.roots[0] / "x"
        path.touch()
        for call in (_truncate(999_999_999_999_999), _ftruncate(999_999_999_999_999)):
            try:
                call(str(path))
            except OSError as error:
                assert error.errno == EFBIG  # noqa: PT017  # or it has that size
                assert path.stat().st_size == 0
            else:
                assert path.stat().st_size == 999_999_999_999_999
                os.truncate(path, 0)


def test_what_has_no_size(sides: Sides) -> None:
    sides.do(ROOT, plant_kinds)
    sides.do(ROOT, lambda name: os.symlink("circle", name), ["circle"])
    special = [
        f"{way}{kind}" for way in ("", "to-") for kind in ("fifo", "block", "char", "socket")
    ]
    for who in (ROOT, OWNER):
        sides.do(who, _truncate(1), special, Error(EINVAL))
        sides.do(who, _truncate(1), ["directory", "to-directory"], Error(EISDIR))
        sides.do(who, _truncate(1), ["symlink", "missing", "missing/x"], Error(ENOENT))
        sides.do(who, _truncate(1), ["circle", "circle/x"], Error(ELOOP))
        sides.do(who, _ftruncate(1, os.O_RDONLY), ["directory"], Error(EINVAL))
    sides.do(ROOT, _ftruncate(1, os.O_RDWR | os.O_NONBLOCK), ["fifo"], Error(EINVAL))


def test_posix_fallocate(sides: Sides) -> None:
    """Where the kernel refuses fallocate, libc writes; sizes and times are the same."""
    sides.do(ROOT, _write(0), ["empty"], 0)
    sides.do(ROOT, _write(12345), ["full"], 12345)
    sides.do(ROOT, _allocate(0, 567), ["empty"])
    sides.do(ROOT, os.path.getsize, ["empty"], 567)
    sides.do(ROOT, _allocate(20000, 3456), ["empty", "full"])
    sides.do(ROOT, os.path.getsize, ["empty", "full"], 23456)
    sides.do(ROOT, _allocate(0, 123), ["empty"])
    for flags in (os.O_WRONLY, os.O_RDWR):
        sides.do(ROOT, _allocate(0, 0, flags), ["empty", "full"], Error(EINVAL))
    sides.do(
        ROOT,
        lambda name: Path(name).read_bytes()[12340:12350],
        ["full"],
        b"ddddd" + bytes(5),
        but="atime",
    )

"""Timestamps: which calls move mtime and ctime of files and of their parents."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.posix.calls import UTIME_NOW, UTIME_OMIT, utimensat
from tests.posix.clock import stamped, tick, untouched

BOTH = ("mtime", "ctime")


@pytest.fixture
def file(place: Path) -> Path:
    path = place / "file"
    path.write_text("content")
    return path


@pytest.fixture
def folder(place: Path) -> Path:
    path = place / "folder"
    path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["file", "mkdir", "symlink", "fifo", "node", "link"])
def test_a_new_name_stamps_its_parent(folder: Path, file: Path, kind: str) -> None:
    new = folder / "new"
    makers: dict[str, Callable[[], object]] = {
        "file": new.touch,
        "mkdir": new.mkdir,
        "symlink": lambda: new.symlink_to("x"),
        "fifo": lambda: os.mkfifo(new),
        "node": lambda: os.mknod(new),
        "link": lambda: os.link(file, new),
    }
    with stamped(folder, *BOTH):
        makers[kind]()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_a_name_that_goes_stamps_its_parent(folder: Path, kind: str) -> None:
    path = folder / "going"
    if kind == "symlink":
        path.symlink_to("x")
    elif kind == "directory":
        path.mkdir()
    else:
        path.touch()
    with stamped(folder, *BOTH):
        if kind == "directory":
            path.rmdir()
        else:
            path.unlink()


def test_rename_stamps_both_parents(folder: Path, file: Path) -> None:
    with stamped(folder, *BOTH), stamped(file.parent, *BOTH):
        file.rename(folder / "moved")


def test_rename_within_a_directory_stamps_it(folder: Path) -> None:
    (folder / "one").touch()
    with stamped(folder, *BOTH):
        (folder / "one").rename(folder / "two")


def test_rename_keeps_the_files_mtime(folder: Path, file: Path) -> None:
    before = file.stat().st_mtime_ns
    tick()
    file.rename(folder / "moved")
    assert (folder / "moved").stat().st_mtime_ns == before


def test_a_failed_call_stamps_nothing(folder: Path, file: Path) -> None:
    (folder / "full").mkdir()
    with untouched(folder, file):
        with pytest.raises(FileNotFoundError):
            (folder / "missing").unlink()
        with pytest.raises(FileExistsError):
            (folder / "full").mkdir()
        with pytest.raises(NotADirectoryError):
            file.rmdir()


def test_reading_stamps_nothing(folder: Path, file: Path) -> None:
    with untouched(folder, file):
        file.read_bytes()
        list(folder.iterdir())


def test_write_stamps_the_file_alone(file: Path) -> None:
    with stamped(file, *BOTH), untouched(file.parent):
        file.write_text("other")


def test_append_stamps_the_file(file: Path) -> None:
    with stamped(file, *BOTH), file.open("a") as stream:
        stream.write("more")


def test_a_write_shows_before_close(file: Path) -> None:
    with file.open("r+b", buffering=0) as stream, stamped(file, *BOTH):
        stream.write(b"x")


def test_an_empty_write_stamps_nothing(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    with untouched(file):
        os.write(descriptor, b"")
    os.close(descriptor)


def test_opening_stamps_nothing(file: Path) -> None:
    with untouched(file, file.parent):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT))


def test_truncation_at_open_stamps_even_the_empty(file: Path) -> None:
    file.write_text("")
    with stamped(file, *BOTH):
        os.close(os.open(file, os.O_WRONLY | os.O_TRUNC))


@pytest.mark.parametrize("size", [0, 3, 100])
def test_truncate_stamps(file: Path, size: int) -> None:
    with stamped(file, *BOTH):
        os.truncate(file, size)
    assert file.stat().st_size == size


def test_ftruncate_stamps(file: Path) -> None:
    with file.open("r+b") as stream, stamped(file, *BOTH):
        os.ftruncate(stream.fileno(), 3)


def test_chmod_moves_ctime_alone(file: Path) -> None:
    with stamped(file, "ctime", unchanged=("mtime",)):
        file.chmod(0o600)


def test_chown_moves_ctime_alone(file: Path) -> None:
    with stamped(file, "ctime", unchanged=("mtime",)):
        os.chown(file, 1, 1)


def test_link_moves_the_files_ctime(file: Path, folder: Path) -> None:
    with stamped(file, "ctime", unchanged=("mtime",)):
        os.link(file, folder / "other")


def test_unlink_of_one_name_moves_the_others_ctime(file: Path, folder: Path) -> None:
    os.link(file, folder / "other")
    with stamped(file, "ctime", unchanged=("mtime",)):
        (folder / "other").unlink()


def test_utime_moves_ctime(file: Path) -> None:
    with stamped(file, "ctime"):
        os.utime(file, ns=(1, 2))


@pytest.mark.parametrize(
    "nanoseconds",
    [0, 1, 999_999_999, 1_234_567_890_123_456_789, -1, -1_500_000_000, 2**31 * 10**9 + 5],
)
def test_utime_keeps_each_nanosecond(file: Path, folder: Path, nanoseconds: int) -> None:
    for path in (file, folder):
        os.utime(path, ns=(nanoseconds, nanoseconds + 7))
        status = path.stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == (nanoseconds, nanoseconds + 7)


@pytest.mark.parametrize(("year", "held"), [(1500, 1677), (1700, 1700), (2250, 2250), (2400, 2262)])
def test_utime_beyond_what_is_held_is_the_nearest(file: Path, year: int, held: int) -> None:
    """As Linux does it for what a file system cannot hold: `cp -a` and tar must not fail."""
    seconds = (datetime(year, 6, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    os.utime(file, (seconds, seconds))
    shown = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=file.stat().st_mtime)
    assert shown.year == held


def test_utime_of_a_link_is_the_links_own(place: Path, file: Path) -> None:
    link = place / "link"
    link.symlink_to("file")
    os.utime(link, ns=(5, 6), follow_symlinks=False)
    assert link.lstat().st_mtime_ns == 6
    assert file.stat().st_mtime_ns > 10**18


def test_utime_now_and_omit(file: Path) -> None:
    os.utime(file, ns=(10, 20))
    utimensat(str(file), (0, UTIME_OMIT), (0, UTIME_NOW))
    status = file.stat()
    assert status.st_atime_ns == 10
    assert status.st_mtime_ns > 10**18
    utimensat(str(file), (0, UTIME_NOW), (3, 4))
    status = file.stat()
    assert status.st_atime_ns > 10**18
    assert status.st_mtime_ns == 3_000_000_004


def test_utime_omitting_both_changes_nothing(file: Path) -> None:
    with untouched(file):
        utimensat(str(file), (0, UTIME_OMIT), (0, UTIME_OMIT))


def test_a_time_set_while_open_outlives_the_close(file: Path) -> None:
    """cp -p and tar set times before the last close."""
    with file.open("r+b") as stream:
        stream.write(b"new")
        stream.flush()
        os.utime(stream.fileno(), ns=(111, 222))
    assert file.stat().st_mtime_ns == 222
    assert file.stat().st_atime_ns == 111


def test_a_new_file_has_now_on_all(place: Path) -> None:
    before = tick()
    (place / "new").touch()
    status = (place / "new").stat()
    for value in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns):
        assert before < value < before + 5_000_000_000
    assert stat.S_ISREG(status.st_mode)


def test_touch_does_not_fall_behind_a_write(folder: Path) -> None:
    """The kernel sends its own ticks for "now", which lag behind a precise clock."""
    for number in range(50):
        path = folder / f"touched-{number}"
        path.write_bytes(b"x")
        written = path.stat().st_mtime_ns
        os.utime(path)
        assert path.stat().st_mtime_ns >= written

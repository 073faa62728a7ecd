"""What programs do with open files: holes, allocation, copies, unlinked ones, append, execution."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.calls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate

REFUSED = {errno.EOPNOTSUPP, errno.EISDIR}


@pytest.fixture
def descriptor(place: Path) -> Iterator[int]:
    number = os.open(place / "f", os.O_RDWR | os.O_CREAT, 0o644)
    yield number
    os.close(number)


def test_unlinked_open_file_stays_usable(place: Path, descriptor: int) -> None:
    os.write(descriptor, b"before")
    os.unlink(place / "f")
    os.write(descriptor, b" after")
    assert os.pread(descriptor, 100, 0) == b"before after"
    os.ftruncate(descriptor, 3)
    os.fchmod(descriptor, 0o600)
    os.fsync(descriptor)
    assert os.fstat(descriptor).st_size == 3
    assert os.listdir(place) == []


def test_unlinked_open_file_that_was_stored(place: Path) -> None:
    (place / "f").write_bytes(b"stored" * 100_000)
    with (place / "f").open("rb") as stream:
        (place / "f").unlink()
        assert stream.read() == b"stored" * 100_000


def test_a_new_file_under_the_name_of_an_unlinked_one(place: Path) -> None:
    (place / "f").write_text("old")
    with (place / "f").open("r+") as old:
        (place / "f").unlink()
        (place / "f").write_text("new one")
        assert old.read() == "old"
        old.write(" more")
    assert (place / "f").read_text() == "new one"


def test_append_goes_to_the_end(place: Path) -> None:
    (place / "f").write_bytes(b"0")
    one = os.open(place / "f", os.O_WRONLY | os.O_APPEND)
    two = os.open(place / "f", os.O_WRONLY | os.O_APPEND)
    for index in range(5):
        os.write(one, b"1" * index)
        os.lseek(two, 0, os.SEEK_SET)
        os.write(two, b"2")
    os.close(one)
    os.close(two)
    assert (place / "f").read_bytes() == b"0" + b"2" + b"12" + b"112" + b"1112" + b"11112"


def test_append_flag_set_later(place: Path, descriptor: int) -> None:
    os.write(descriptor, b"0123456789")
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"end")
    assert os.pread(descriptor, 100, 0) == b"0123456789end"


def test_a_hole_reads_as_zeros(place: Path, descriptor: int) -> None:
    os.pwrite(descriptor, b"end", 3 << 20)
    assert os.pread(descriptor, 10, 1 << 20) == bytes(10)
    os.fsync(descriptor)
    data = (place / "f").read_bytes()
    assert data == bytes(3 << 20) + b"end"


def test_growing_by_truncate_gives_zeros(place: Path, descriptor: int) -> None:
    os.write(descriptor, b"content")
    os.ftruncate(descriptor, 3)
    os.ftruncate(descriptor, 10)
    assert os.pread(descriptor, 100, 0) == b"con" + bytes(7)
    os.fsync(descriptor)
    os.truncate(place / "f", 5)
    os.truncate(place / "f", 8)
    assert (place / "f").read_bytes() == b"con" + bytes(5)


def test_reading_beyond_the_end(descriptor: int) -> None:
    os.write(descriptor, b"content")
    assert os.pread(descriptor, 10, 7) == b""
    assert os.pread(descriptor, 10, 1 << 40) == b""
    assert os.pread(descriptor, 10, 5) == b"nt"


def test_seek_to_data_and_holes(descriptor: int) -> None:
    """Without holes known: the whole file is data, its end the only hole."""
    os.write(descriptor, b"x" * 10_000)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0
    assert os.lseek(descriptor, 5_000, os.SEEK_DATA) == 5_000
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 10_000
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with pytest.raises(OSError, match=r".*") as error:
            os.lseek(descriptor, 10_000, whence)
        assert error.value.errno == errno.ENXIO


def test_fallocate_works_or_refuses(place: Path, descriptor: int) -> None:
    os.write(descriptor, b"x" * 100)
    for mode in (0, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE):
        try:
            fallocate(descriptor, mode, 0, 200)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP  # noqa: PT017  # or it works
            assert os.fstat(descriptor).st_size == 100


def test_posix_fallocate(descriptor: int) -> None:
    """glibc writes where the kernel refuses."""
    os.write(descriptor, b"content")
    os.posix_fallocate(descriptor, 0, 10_000)
    assert os.fstat(descriptor).st_size == 10_000
    assert os.pread(descriptor, 9, 0) == b"content\0\0"


def test_copy_file_range(place: Path, descriptor: int) -> None:
    (place / "source").write_bytes(os.urandom(300_000))
    source = os.open(place / "source", os.O_RDONLY)
    copied = 0
    while step := os.copy_file_range(source, descriptor, 300_000 - copied):
        copied += step
    os.close(source)
    os.fsync(descriptor)
    assert (place / "f").read_bytes() == (place / "source").read_bytes()


def test_sendfile(place: Path, descriptor: int) -> None:
    (place / "source").write_bytes(os.urandom(300_000))
    shutil.copyfile(place / "source", place / "f")
    assert (place / "f").read_bytes() == (place / "source").read_bytes()


def test_tmpfile_works_or_refuses(place: Path) -> None:
    """Programs go on with a named temporary file after EOPNOTSUPP."""
    try:
        descriptor = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        assert error.errno in REFUSED  # noqa: PT017  # or it works
        return
    os.write(descriptor, b"content")
    assert os.listdir(place) == []
    os.close(descriptor)


def test_shared_mapping_writes_the_file(place: Path, descriptor: int) -> None:
    os.ftruncate(descriptor, 20_000)
    with mmap.mmap(descriptor, 20_000) as mapping:
        mapping[5:10] = b"hello"
        mapping[15_000:15_005] = b"world"
        mapping.flush()
        assert os.pread(descriptor, 5, 5) == b"hello"
    os.fsync(descriptor)
    data = (place / "f").read_bytes()
    assert data == bytes(5) + b"hello" + bytes(14_990) + b"world" + bytes(4_995)


def test_mapping_outlives_the_descriptor(place: Path) -> None:
    (place / "f").write_bytes(b"x" * 8192)
    with (place / "f").open("r+b") as stream:
        mapping = mmap.mmap(stream.fileno(), 8192)
    mapping[0:5] = b"after"
    mapping.flush()
    mapping.close()
    assert (place / "f").read_bytes()[:6] == b"afterx"


def test_private_mapping_leaves_the_file(place: Path) -> None:
    (place / "f").write_bytes(b"content")
    with (place / "f").open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        mapping[0:4] = b"XXXX"
        mapping.close()
    assert (place / "f").read_bytes() == b"content"


def test_a_program_on_it_runs(place: Path) -> None:
    shutil.copy("/bin/true", place / "program")
    script = place / "script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    assert subprocess.run([place / "program"], timeout=30, check=False).returncode == 0
    done = subprocess.run([script], timeout=30, check=True, capture_output=True)
    assert done.stdout == b"ran\n"


def test_a_file_without_execution_does_not_run(place: Path) -> None:
    (place / "script").write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError):
        subprocess.run([place / "script"], timeout=30, check=False)


def test_text_busy(place: Path) -> None:
    """A program that is written does not run, one that runs is not written."""
    program = place / "program"
    shutil.copy("/bin/sleep", program)
    with program.open("r+b"), pytest.raises(OSError, match=r".*") as caught:
        subprocess.run([program, "0"], timeout=30, check=False)
    assert caught.value.errno == errno.ETXTBSY
    with subprocess.Popen([program, "60"]) as running:
        try:
            for call in (
                lambda: os.open(program, os.O_WRONLY),
                lambda: os.truncate(program, 0),
            ):
                with pytest.raises(OSError, match=r".*") as caught:
                    call()
                assert caught.value.errno == errno.ETXTBSY
        finally:
            running.kill()
    assert program.stat().st_size == Path("/bin/sleep").stat().st_size


def test_fsync_of_everything(place: Path, descriptor: int) -> None:
    os.write(descriptor, b"content")
    os.fsync(descriptor)
    os.fdatasync(descriptor)
    folder = os.open(place, os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)
    os.sync()


def test_directory_descriptors(place: Path) -> None:
    (place / "d").mkdir()
    folder = os.open(place / "d", os.O_DIRECTORY)
    os.rename(place / "d", place / "e")
    number = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.close(number)
    os.mkdir("sub", dir_fd=folder)
    assert sorted(os.listdir(place / "e")) == ["f", "sub"]
    os.unlink("f", dir_fd=folder)
    os.rmdir("sub", dir_fd=folder)
    os.rmdir(place / "e")
    with pytest.raises(FileNotFoundError):
        os.mkdir("late", dir_fd=folder)
    with pytest.raises(FileNotFoundError):
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    assert os.listdir(folder) == []
    os.close(folder)


def test_dup_and_close_of_one(place: Path, descriptor: int) -> None:
    second = os.dup(descriptor)
    os.write(descriptor, b"one ")
    os.close(second)
    os.write(descriptor, b"two")
    assert (place / "f").read_bytes() == b"one two"


def test_large_offsets(place: Path, descriptor: int) -> None:
    far = (1 << 40) + 5
    os.ftruncate(descriptor, far)
    assert os.fstat(descriptor).st_size == far
    assert os.pread(descriptor, 10, far - 5) == bytes(5)
    os.ftruncate(descriptor, 0)


def test_two_descriptors_see_each_others_writes(place: Path) -> None:
    (place / "f").write_bytes(b"0123456789")
    one = os.open(place / "f", os.O_RDWR)
    two = os.open(place / "f", os.O_RDWR)
    os.pwrite(one, b"ab", 2)
    assert os.pread(two, 10, 0) == b"01ab456789"
    os.pwrite(two, b"cd", 4)
    assert os.pread(one, 10, 0) == b"01abcd6789"
    os.ftruncate(two, 3)
    assert os.pread(one, 10, 0) == b"01a"
    os.close(two)
    os.close(one)
    assert (place / "f").read_bytes() == b"01a"

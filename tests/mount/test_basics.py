"""The everyday: trees copied, listed, compared, searched and removed; and again after a remount."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import MountedFilesystem
from tests.mount.places import ELSEWHERE

if TYPE_CHECKING:
    from tests.server.running import RunningServer

AWKWARD = ("with space", "ümläut", "日本語", "plus+at@tilde~", "#hash", "trailing.", "-dash", "_-x")
MIB = 1 << 20


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 110) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=seconds, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.decode()


def sow(root: Path) -> Path:
    """A small tree with the names and sizes that real ones have."""
    noise = random.Random(7)
    for folder in ("", "one", "one/two", "one/two/three", *AWKWARD):
        path = root / folder
        path.mkdir(exist_ok=True, parents=True)
        for size in (0, 1, 4096, 70_000):
            (path / f"file {size}.bin").write_bytes(noise.randbytes(size))
        (path / "needle.txt").write_text(f"a needle in {folder or 'the root'}\n")
    (root / "big").write_bytes(noise.randbytes(3 * MIB + 17))
    (root / "link").symlink_to("one/two")
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return sow(tmp_path / "source")


def _remount(request: pytest.FixtureRequest) -> None:
    if not ELSEWHERE:
        mount = request.getfixturevalue("mount")
        assert isinstance(mount, MountedFilesystem)
        mount.remount()


# -- trees ----------------------------------------------------------------------------------------
def test_a_tree_survives_a_remount(
    place: Path, source: Path, request: pytest.FixtureRequest
) -> None:
    run("cp", "-r", source, place / "copy")
    run("diff", "-r", "--no-dereference", source, place / "copy")
    _remount(request)
    run("diff", "-r", "--no-dereference", source, place / "copy")


def test_cp_a_keeps_attributes_over_a_remount(
    place: Path, source: Path, request: pytest.FixtureRequest
) -> None:
    os.chown(source / "one", 12, 13)
    os.utime(source / "one/needle.txt", ns=(123456789, 987654321123456789))
    os.link(source / "big", source / "big too")
    os.mkfifo(source / "fifo", 0o604)
    os.utime(source / "one", ns=(5, 6))
    run("cp", "-a", source, place / "copy")
    for _ in range(2):
        assert _told(place / "copy") == _told(source)
        _remount(request)


def _told(root: Path) -> list[tuple[object, ...]]:
    """What cp -a keeps, of each name."""
    told: list[tuple[object, ...]] = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        nlink = status.st_nlink if not path.is_dir() else None
        told.append(
            (
                str(path.relative_to(root)),
                oct(status.st_mode),
                (status.st_uid, status.st_gid, nlink),
                status.st_mtime_ns,
            )
        )
    return told


def test_find_ls_du_and_grep(place: Path, source: Path) -> None:
    run("cp", "-a", source, place / "copy")
    copy = place / "copy"
    assert sorted(run("find", ".", cwd=copy).split("\n")) == sorted(
        run("find", ".", cwd=source).split("\n")
    )
    assert run("ls", "-1R", ".", cwd=copy) == run("ls", "-1R", ".", cwd=source)
    long_ = ("ls", "-lnR", "--time-style=full-iso", "-I", "*", "-d")
    assert run(*long_, *AWKWARD[:6], cwd=copy).count("\n") == 6
    searched = ("grep", "-rl", "needle", ".")
    assert sorted(run(*searched, cwd=copy).split()) == sorted(run(*searched, cwd=source).split())
    apparent = ("du", "-b", "--apparent-size", "big")
    assert run(*apparent, cwd=copy) == run(*apparent, cwd=source)


def test_rm_r(place: Path, source: Path) -> None:
    run("cp", "-r", source, place / "copy")
    run("rm", "-r", place / "copy")
    assert os.listdir(place) == []


def test_mv_of_a_tree(place: Path, source: Path) -> None:
    run("cp", "-r", source, place / "copy")
    run("mv", place / "copy", place / "moved tree")
    run("diff", "-r", "--no-dereference", source, place / "moved tree")


def test_mv_of_a_tree_out_and_in(place: Path, source: Path, tmp_path: Path) -> None:
    run("cp", "-r", source, tmp_path / "copy")
    run("mv", tmp_path / "copy", place / "in")
    run("diff", "-r", "--no-dereference", source, place / "in")
    run("mv", place / "in", tmp_path / "out")
    run("diff", "-r", "--no-dereference", source, tmp_path / "out")
    assert os.listdir(place) == []


# -- names ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [*AWKWARD, "a" * 255, "ü" * 127, "_", "_-", "...", ". .", "\n", "\x7f", "%2F", "a\\b", "*?"],
)
def test_any_name(place: Path, name: str) -> None:
    (place / name).write_text(name)
    assert os.listdir(place) == [name]
    assert (place / name).read_text() == name
    (place / name).unlink()
    (place / name).mkdir()
    (place / name / "below").touch()
    assert os.listdir(place / name) == ["below"]


def test_names_that_are_not_utf8(place: Path) -> None:
    name = os.fsencode(place) + b"/\xff\xfe caf\xe9"
    with open(name, "wb") as stream:
        stream.write(b"content")
    assert os.listdir(os.fsencode(place)) == [b"\xff\xfe caf\xe9"]
    os.rename(name, os.fsencode(place) + b"/\xe9")
    assert os.listdir(os.fsencode(place)) == [b"\xe9"]


def test_names_differ_by_case_and_normal_form(place: Path) -> None:
    names = ["a", "A", "\u00e9", "e\u0301"]
    for name in names:
        (place / name).write_text(name)
    assert sorted(os.listdir(place)) == sorted(names)
    for name in names:
        assert (place / name).read_text() == name


def test_a_deep_path(place: Path) -> None:
    """As deep as Linux allows a path to be, in steps."""
    depth = 60
    folder = os.open(place, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d" * 20, dir_fd=folder)
        below = os.open("d" * 20, os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    number = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.write(number, b"deep")
    os.close(number)
    os.close(folder)
    assert place.joinpath(*["d" * 20] * depth, "f").read_bytes() == b"deep"


# -- listings -------------------------------------------------------------------------------------
def _names(count: int) -> list[str]:
    return [f"entry-{index:06}" for index in range(count)]


def test_a_directory_of_2000_entries(place: Path) -> None:
    names = _names(2000)
    for name in names:
        (place / name).mkdir()
    assert sorted(os.listdir(place)) == names
    with os.scandir(place) as entries:
        assert sum(entry.is_dir() for entry in entries) == 2000
    for name in names[::2]:
        (place / name).rmdir()
    assert sorted(os.listdir(place)) == names[1::2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_directory_of_100000_entries(place: Path, request: pytest.FixtureRequest) -> None:
    """Prints how long each part took."""
    names = _names(100_000)
    with _told_seconds("make"):
        for name in names:
            os.mknod(place / name)
    for start in ("warm", "cold"):
        with _told_seconds(f"list {start}"):
            assert sorted(os.listdir(place)) == names
        with _told_seconds(f"stat {start}"), os.scandir(place) as entries:
            assert sum(entry.stat().st_size == 0 for entry in entries) == 100_000
        _remount(request)
    (place / "one more").write_text("content")
    (place / names[7]).unlink()
    with _told_seconds("list changed"):
        assert sorted(os.listdir(place)) == sorted({"one more", *names} - {names[7]})
    with _told_seconds("rm -r"):
        run("rm", "-r", place, seconds=1200)
    assert not place.exists()


@contextmanager
def _told_seconds(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s")


def test_entries_removed_while_they_are_listed(place: Path) -> None:
    """rm -r reads a directory and removes from it by turns."""
    names = _names(300)
    for name in names:
        os.mknod(place / name)
    seen = []
    with os.scandir(place) as entries:
        for entry in entries:
            os.unlink(entry.path)
            seen.append(entry.name)
    assert sorted(seen) == names
    assert os.listdir(place) == []


def test_rewinding_shows_what_is_new(place: Path) -> None:
    (place / "one").touch()
    folder = os.open(place, os.O_DIRECTORY)
    assert os.listdir(folder) == ["one"]
    (place / "two").touch()
    assert sorted(os.listdir(folder)) == ["one", "two"]
    os.close(folder)


# -- content --------------------------------------------------------------------------------------
def test_sequential_writes_and_reads(place: Path) -> None:
    data = random.Random(1).randbytes(20 * MIB + 3)
    with (place / "f").open("wb") as stream:
        for start in range(0, len(data), 100_000):
            stream.write(data[start : start + 100_000])
    assert (place / "f").read_bytes() == data
    with (place / "f").open("rb") as stream:
        pieces = iter(lambda: stream.read(77_777), b"")
        assert b"".join(pieces) == data


def test_random_writes_and_reads(place: Path, request: pytest.FixtureRequest) -> None:
    noise = random.Random(2)
    model = bytearray(noise.randbytes(5 * MIB))
    (place / "f").write_bytes(model)
    with (place / "f").open("r+b", buffering=0) as stream:
        for _ in range(200):
            start, piece = noise.randrange(len(model)), noise.randbytes(noise.randrange(1, 9000))
            stream.seek(start)
            stream.write(piece)
            model[start : start + len(piece)] = piece
            where = noise.randrange(len(model))
            stream.seek(where)
            assert stream.read(5000) == model[where : where + 5000]
    assert (place / "f").read_bytes() == model
    _remount(request)
    assert (place / "f").read_bytes() == model


def test_appends(place: Path) -> None:
    for index in range(50):
        with (place / "log").open("a") as stream:
            stream.write(f"line {index}\n")
    assert (place / "log").read_text() == "".join(f"line {index}\n" for index in range(50))


def test_a_sparse_file(place: Path, request: pytest.FixtureRequest) -> None:
    with (place / "f").open("wb") as stream:
        stream.seek(50 * MIB)
        stream.write(b"end")
    _remount(request)
    with (place / "f").open("rb") as stream:
        assert stream.read(MIB) == bytes(MIB)
        stream.seek(50 * MIB - 5)
        assert stream.read() == bytes(5) + b"end"


def test_truncation(place: Path, request: pytest.FixtureRequest) -> None:
    data = os.urandom(300_000)
    for name in ("shorter", "longer", "nothing", "reopened"):
        (place / name).write_bytes(data)
    os.truncate(place / "shorter", 1000)
    os.truncate(place / "longer", 400_000)
    os.truncate(place / "nothing", 0)
    (place / "reopened").write_bytes(b"short")
    for _ in range(2):
        assert (place / "shorter").read_bytes() == data[:1000]
        assert (place / "longer").read_bytes() == data + bytes(100_000)
        assert (place / "nothing").read_bytes() == b""
        assert (place / "reopened").read_bytes() == b"short"
        _remount(request)


def test_exclusive_creation_among_processes(place: Path) -> None:
    """Of many that create one name with O_EXCL, one succeeds."""
    code = "import os; os.open('f', os.O_CREAT | os.O_EXCL | os.O_WRONLY)"
    running = [
        subprocess.Popen(["python3", "-c", code], cwd=place, stderr=subprocess.DEVNULL)
        for _ in range(6)
    ]
    assert sorted(process.wait(60) for process in running) == [0, 1, 1, 1, 1, 1]


def test_statfs(place: Path) -> None:
    status = os.statvfs(place)
    assert status.f_namemax == 255
    assert 0 < status.f_bfree <= status.f_blocks
    run("df", place)
    run("df", "-i", place)


# -- what is special about the mount --------------------------------------------------------------
needs_mount = pytest.mark.skipif(bool(ELSEWHERE), reason="about the mount's own rules")


@needs_mount
def test_df_tells_what_the_servers_disk_tells(
    mount: MountedFilesystem, server: RunningServer
) -> None:
    """Used is what is in use there: not what the disk keeps for its root, which is not available
    either."""
    there, here = os.statvfs(server.data_dir), os.statvfs(mount.path)
    assert here.f_blocks == there.f_blocks * there.f_frsize // here.f_frsize
    reserved = (there.f_bfree - there.f_bavail) * there.f_frsize
    assert abs((here.f_bfree - here.f_bavail) * here.f_frsize - reserved) <= here.f_frsize


@needs_mount
def test_only_buckets_live_at_the_root(mount: MountedFilesystem) -> None:
    root = mount.path
    (root / "bucket-a").mkdir()
    (root / "bucket-a/f").write_text("content")
    for call in (
        lambda: (root / "f").write_text(""),
        lambda: (root / "link").symlink_to("x"),
        lambda: os.mkfifo(root / "fifo"),
        lambda: os.link(root / "bucket-a/f", root / "f"),
        lambda: (root / "bucket-a/f").rename(root / "f"),
    ):
        with pytest.raises(OSError, match=r".*") as caught:
            call()
        assert caught.value.errno == errno.EPERM
    with pytest.raises(OSError, match=r".*") as caught:
        (root / "bucket-a").rmdir()
    assert caught.value.errno == errno.ENOTEMPTY
    (root / "bucket-a/f").unlink()
    (root / "bucket-a").rmdir()
    assert "bucket-a" not in os.listdir(root)


@needs_mount
def test_renames_between_buckets(mount: MountedFilesystem) -> None:
    one, two = mount.path / "bucket-1", mount.path / "bucket-2"
    one.mkdir()
    two.mkdir()
    sow(one / "tree")
    (one / "tree").rename(two / "tree")
    assert os.listdir(one) == []
    assert (two / "tree/one/needle.txt").read_text() == "a needle in one\n"


@needs_mount
def test_a_bucket_has_attributes(mount: MountedFilesystem) -> None:
    path = mount.path / "bucket-attributes"
    path.mkdir(0o750)
    path.chmod(0o2751)
    os.chown(path, 7, 8)
    os.utime(path, ns=(1, 2))
    for _ in range(2):
        status = path.stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2751, 7, 8)
        assert status.st_mtime_ns == 2
        mount.remount()

"""The server's disk is full: ENOSPC, what was there stays, and it goes on once there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from filesfs import control
from tests.fault.disks import MIB, fill, least_free, random_bytes, refused, small_disk
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer, running_server

TIMEOUT = "timeout=5"
TIB = 1 << 40

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("full") / "disk", 56) as disk:
        yield disk


@pytest.fixture(scope="module")
def server(disk: Path) -> Iterator[RunningServer]:
    with running_server(disk / "data") as server:
        yield server


@pytest.fixture(scope="module")
def mount(server: RunningServer, disk: Path) -> Iterator[MountedFilesystem]:
    with mounted(server.url, disk.parent, TIMEOUT) as mount:
        (mount.path / "full").mkdir()
        yield mount


def test_enospc_and_what_was_there_stays(mount: MountedFilesystem, server: RunningServer) -> None:
    bucket, kept = mount.path / "full", random_bytes(12)
    (bucket / "kept").write_bytes(kept)
    refused(bucket / "new", random_bytes(60))
    refused(bucket / "kept", random_bytes(60))
    assert (bucket / "kept").read_bytes() == kept
    assert [each.name for each in bucket.iterdir()] == ["kept"]
    mount.remount()
    assert (bucket / "kept").read_bytes() == kept
    assert [each.name for each in bucket.iterdir()] == ["kept"]
    status = control.ask(mount.cache, "status")
    assert (status["unsent_files"], status["journal_records"]) == (0, 0)
    assert list((server.data_dir / "uploads").iterdir()) == []


def test_fsync_tells_and_works_again(mount: MountedFilesystem, disk: Path) -> None:
    """The file stays open over it all: nothing of it is lost."""
    path, data = mount.path / "full" / "open", random_bytes(3)
    with path.open("wb", buffering=0) as file:
        file.write(data)
        filler = fill(disk)
        with pytest.raises(OSError, match=r"\[Errno 28\]"):
            os.fsync(file.fileno())
        filler.unlink()
        os.fsync(file.fileno())
    mount.remount()
    assert path.read_bytes() == data


def test_what_cannot_fit_is_refused_before_it_is_sent(
    mount: MountedFilesystem, server: RunningServer, disk: Path
) -> None:
    """A terabyte of zeros, in a new file, behind what was written, and behind what is there."""
    bucket, kept = mount.path / "full", random_bytes(2)
    (bucket / "there").write_bytes(kept)

    def new() -> None:
        with (bucket / "new").open("wb", buffering=0) as file:
            file.truncate(TIB)

    def behind() -> None:
        with (bucket / "behind").open("wb", buffering=0) as file:
            file.write(random_bytes(9))  # enough for an upload ahead of close()
            file.truncate(TIB)

    def at_the_end() -> None:
        with (bucket / "end").open("wb", buffering=0) as file:
            file.seek(TIB)
            file.write(b"x")

    for grow in (new, behind, at_the_end, lambda: os.truncate(bucket / "there", TIB)):
        with least_free(disk) as least, pytest.raises(OSError, match=r"\[Errno 28\]"):
            grow()
        assert least() > 24 * MIB
    assert "There is no room for 1099511627776 bytes" in mount.log.read_text()
    assert (bucket / "there").read_bytes() == kept
    assert not [name for name in ("new", "behind", "end") if (bucket / name).exists()]
    assert list((server.data_dir / "uploads").iterdir()) == []
    (bucket / "there").unlink()


def test_patches_are_whole_or_not_there(mount: MountedFilesystem, disk: Path) -> None:
    path, data = mount.path / "full" / "patched", random_bytes(2)
    path.write_bytes(data)
    filler = fill(disk)
    file = path.open("r+b", buffering=0)
    file.seek(MIB)
    file.write(b"patch" * 1000)
    with pytest.raises(OSError, match=r"\[Errno 28\]"):
        file.close()
    assert path.read_bytes() == data
    with pytest.raises(OSError, match=r"\[Errno 28\]"):
        (mount.path / "full" / "small").write_bytes(b"x" * 100_000)
    filler.unlink()
    with path.open("r+b", buffering=0) as file:
        file.seek(MIB)
        file.write(b"patch")
    mount.remount()
    assert path.read_bytes() == data[:MIB] + b"patch" + data[MIB + 5 :]
    assert not (mount.path / "full" / "small").exists()


def test_what_is_removed_makes_room(mount: MountedFilesystem, disk: Path) -> None:
    """On a disk that is full to the last block; a removal is a write, too."""
    bucket = mount.path / "full"
    for number in range(4):
        (bucket / f"part{number}").write_bytes(random_bytes(3))
    filler = fill(disk)
    with pytest.raises(OSError, match=r"\[Errno 28\]"):
        (bucket / "more").write_bytes(random_bytes(3))
    for number in range(4):
        (bucket / f"part{number}").unlink()
    (bucket / "more").write_bytes(random_bytes(3))
    filler.unlink()
    assert (bucket / "more").read_bytes() == random_bytes(3)
    assert not [each for each in bucket.iterdir() if each.name.startswith("part")]

"""The disk of the cache folder is full, 24 MiB; the server has room."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.disks import MIB, fill, random_bytes, refused, small_disk
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer, running_server

TIMEOUT = "timeout=5"
TOO_MUCH = 64 + 24 + 6  # MiB: more than a file has of memory and the spool of disk

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("full") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def mount(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedFilesystem]:
    folder = tmp_path_factory.mktemp("cache")
    with small_disk(folder / "mnt-cache", 24) as disk:
        disk.chmod(0o700)
        options = (TIMEOUT, "disk_cache=200M", "cache_size=8M")
        with mounted(server.url, folder, *options) as mount:
            (mount.path / "full").mkdir()
            yield mount


def test_a_large_write_is_enospc_and_whole_up_to_there(mount: MountedFilesystem) -> None:
    """As on a local disk: what write() took is in the file, the rest was refused."""
    path, data = mount.path / "full" / "large", random_bytes(TOO_MUCH)
    refused(path, data)
    there = path.read_bytes()
    assert len(there) > 64 * MIB
    assert data.startswith(there)
    path.write_bytes(data[: 16 * MIB])
    mount.remount()
    assert path.read_bytes() == data[: 16 * MIB]


def test_writes_have_the_room_before_cached_blocks(mount: MountedFilesystem) -> None:
    path, data = mount.path / "full" / "read", random_bytes(40)
    for start in range(0, len(data), 10 * MIB):
        with path.open("ab") as file:
            file.write(data[start : start + 10 * MIB])
        assert path.read_bytes() == data[: start + 10 * MIB]  # into the disk cache, all it can get
    assert list((mount.cache / "blocks").iterdir())


def test_reads_go_on_without_the_cache(mount: MountedFilesystem) -> None:
    bucket, data = mount.path / "full", random_bytes(40)
    filler = fill(mount.cache)
    mount.remount()
    assert (bucket / "read").read_bytes() == data
    (bucket / "small").write_bytes(b"small files need no spool")
    assert (bucket / "small").read_bytes() == b"small files need no spool"
    for block in (mount.cache / "blocks").iterdir():
        block.unlink()
    fill(mount.cache)
    refused(bucket / "spooled", random_bytes(TOO_MUCH))
    assert (bucket / "read").read_bytes() == data
    filler.unlink()
    (bucket / "spooled").write_bytes(data[: 3 * MIB])
    assert (bucket / "spooled").read_bytes() == data[: 3 * MIB]


def test_a_full_folder_of_a_new_mount_is_told(mount: MountedFilesystem, tmp_path: Path) -> None:
    with small_disk(tmp_path / "mnt-cache", 1) as disk:
        fill(disk)
        with (
            pytest.raises(AssertionError, match="make room, or choose another with -o cache_dir"),
            mounted(mount.source, tmp_path, TIMEOUT),
        ):
            pass


def test_unsent_data_is_not_evicted(mount: MountedFilesystem, server: RunningServer) -> None:
    """What a close() could not send stays, whatever the disk cache and other writes want."""
    unsent, data = mount.path / "full" / "unsent", random_bytes(5)
    read = mount.path / "full" / "read"
    file = unsent.open("wb")
    file.write(data)
    file.flush()
    server.kill()
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        file.close()
    mount.kill()
    server.start()
    mount.start()
    assert read.read_bytes()  # fills the disk cache
    refused(mount.path / "full" / "more", random_bytes(TOO_MUCH))
    deadline = time.monotonic() + 30
    while not unsent.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert unsent.read_bytes() == data

"""A change in the middle of a large open file: what was written is all that travels, each fsync
sends what is new since the last one, and the server writes one block, whatever the length."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from files_server import fsck
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer, running_server

MIB = 1 << 20
CONTENT = random.Random(2).randbytes(20 * MIB + 333)
AT = 11 * MIB + 3 * 4096


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "data") as server:
        yield server


@pytest.fixture
def mount(server: RunningServer, tmp_path: Path) -> Iterator[MountedFilesystem]:
    with mounted(server.url, tmp_path) as mount:
        (mount.path / "vm").mkdir()
        (mount.path / "vm" / "image").write_bytes(CONTENT)
        mount.remount()
        yield mount


class Traffic(NamedTuple):
    """What the server has done since it was started."""

    received: float  # bytes of content
    reads: float  # requests for content


def traffic(server: RunningServer) -> Traffic:
    received = reads = 0.0
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text):
        for sample in family.samples:
            if sample.name == "files_server_received_bytes_total":
                received = sample.value
            if sample.labels.get("operation") == "read_content" and "total" in sample.name:
                reads += sample.value
    return Traffic(received, reads)


def held(server: RunningServer) -> dict[int, int]:
    """Bytes on the disk by inode."""
    found = [path.stat() for path in (server.data_dir / "blobs").glob("??/*")]
    return {status.st_ino: status.st_blocks * 512 for status in found}


def test_each_fsync_sends_what_is_new(server: RunningServer, mount: MountedFilesystem) -> None:
    image, expected = mount.path / "vm" / "image", bytearray(CONTENT)
    ((inode, before),) = held(server).items()
    descriptor = os.open(image, os.O_RDWR)
    try:
        for number in range(5):
            at, page = AT + number * 3 * MIB // 2 // 4096 * 4096, os.urandom(4096)
            at = at if number < 4 else 0
            then = traffic(server)
            assert os.pwrite(descriptor, page, at) == 4096
            os.fsync(descriptor)
            now = traffic(server)
            assert now.received - then.received == 4096, number
            assert now.reads == then.reads
            expected[at : at + 4096] = page
            assert os.pread(descriptor, 9000, max(0, at - 5)) == expected[max(0, at - 5) :][:9000]
    finally:
        os.close(descriptor)
    ((after_inode, after),) = held(server).items()
    assert after_inode == inode
    assert after - before <= 6 * MIB
    assert image.read_bytes() == expected
    mount.remount()
    assert image.read_bytes() == expected
    server.stop()
    assert fsck.check(server.data_dir, True, False) == []


def test_many_places_in_one_commit(server: RunningServer, mount: MountedFilesystem) -> None:
    image, expected, chosen = mount.path / "vm" / "image", bytearray(CONTENT), random.Random(4)
    with image.open("r+b", buffering=0) as file:
        for _ in range(15):
            at = chosen.randrange(len(CONTENT) // 4096) * 4096
            page = chosen.randbytes(4096)
            file.seek(at)
            file.write(page)
            expected[at : at + 4096] = page
    assert len(held(server)) == 1
    mount.remount()
    assert image.read_bytes() == expected


def test_it_is_cut_and_grows(server: RunningServer, mount: MountedFilesystem) -> None:
    image, then = mount.path / "vm" / "image", traffic(server)
    os.truncate(image, 15 * MIB + 77)
    assert traffic(server).received == then.received
    with image.open("r+b", buffering=0) as file:
        os.ftruncate(file.fileno(), 12 * MIB)
        os.ftruncate(file.fileno(), 12 * MIB + 5000)
        file.seek(AT)
        file.write(b"changed")
        os.fsync(file.fileno())
    expected = bytearray(CONTENT[: 12 * MIB] + bytes(5000))
    expected[AT : AT + 7] = b"changed"
    assert traffic(server).received - then.received < 2 * MIB
    assert len(held(server)) == 1
    mount.remount()
    assert image.read_bytes() == expected


def test_who_has_it_open_elsewhere_reads_one_version(
    server: RunningServer, mount: MountedFilesystem, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with mounted(server.url, tmp_path / "other") as other:
        with (other.path / "vm" / "image").open("rb") as old:
            start = old.read(1000)
            with (mount.path / "vm" / "image").open("r+b") as file:
                file.seek(AT)
                file.write(b"changed")
            assert start + old.read() == CONTENT
        expected = CONTENT[:AT] + b"changed" + CONTENT[AT + 7 :]
        assert (other.path / "vm" / "image").read_bytes() == expected


def test_the_server_is_killed_between_changes(
    server: RunningServer, mount: MountedFilesystem
) -> None:
    image, expected = mount.path / "vm" / "image", bytearray(CONTENT)
    with image.open("r+b", buffering=0) as file:
        for number in range(3):
            page = os.urandom(4096)
            file.seek(AT + number * MIB)
            file.write(page)
            os.fsync(file.fileno())
            expected[AT + number * MIB : AT + number * MIB + 4096] = page
            server.kill()
            server.start()
    assert len(held(server)) == 1
    mount.remount()
    assert image.read_bytes() == expected

"""What is appended to a large file is all that travels, and all that the server writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer, running_server

CONTENT = os.urandom(5 << 20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "data") as server:
        yield server


@pytest.fixture
def mount(server: RunningServer, tmp_path: Path) -> Iterator[MountedFilesystem]:
    with mounted(server.url, tmp_path) as mount:
        (mount.path / "logs").mkdir()
        (mount.path / "logs" / "log").write_bytes(CONTENT)
        yield mount


def inodes(server: RunningServer) -> set[int]:
    return {path.stat().st_ino for path in (server.data_dir / "blobs").glob("??/*")}


def test_lines_of_a_log(server: RunningServer, mount: MountedFilesystem) -> None:
    log = mount.path / "logs" / "log"
    before, expected = inodes(server), CONTENT
    for number in range(10):
        line = f"line {number}\n".encode() * (number + 1)
        with log.open("ab") as file:
            file.write(line)
        expected += line
    assert inodes(server) == before
    assert log.read_bytes() == expected
    mount.remount()
    assert log.read_bytes() == expected


def test_who_has_the_old_version_open_reads_it_whole(
    server: RunningServer, mount: MountedFilesystem, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with mounted(server.url, tmp_path / "other") as other:
        with (other.path / "logs" / "log").open("rb") as old:
            start = old.read(1000)
            with (mount.path / "logs" / "log").open("ab") as file:
                file.write(b"more")
            assert start + old.read() == CONTENT
        assert (other.path / "logs" / "log").read_bytes() == CONTENT + b"more"


def test_a_change_in_place_leaves_the_old_version_alone(
    server: RunningServer, mount: MountedFilesystem
) -> None:
    log = mount.path / "logs" / "log"
    before = {path: path.read_bytes() for path in (server.data_dir / "blobs").glob("??/*")}
    with log.open("r+b") as file:
        file.seek(3 << 20)
        file.write(b"changed")
        file.seek(0, os.SEEK_END)
        file.write(b"and more")
    at = 3 << 20
    expected = CONTENT[:at] + b"changed" + CONTENT[at + 7 :] + b"and more"
    assert log.read_bytes() == expected
    assert {path: path.read_bytes() for path in before} == before

"""What a kill inside a commit leaves beside a registered location's files goes at the start."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from files_server.registration.leftovers import Leftovers
from files_server.registration.locations import TEMPORARY, Location
from files_server.registration.table import Registrations
from tests.fault.disks import small_disk
from tests.server.running import RunningServer, running_server

MIB = 1 << 20
HIDDEN = TEMPORARY + "0123456789abcdef01234567"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[RunningServer]:
    with running_server(root.parent / "data", file_root=[str(root)]) as server:
        yield server


def register(server: RunningServer, folder: Path, mode: str = "rw") -> str:
    uri = quote(f"file://{folder}", safe="")
    httpx.put(f"{server.url}/v1/files/{uri}?mode={mode}").raise_for_status()
    return f"{server.url}/v1/files/{folder.name}"


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(TEMPORARY)]


def noted(server: RunningServer, folder: Path, name: str = HIDDEN) -> Path:
    """A hidden file and its note, as a kill leaves them; the server is to be started again."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("half of it")
    (server.data_dir / "staged" / name).symlink_to(folder)
    return folder / name


def killed_within_a_commit(server: RunningServer, url: str, folder: Path) -> bool:
    """Whether the kill came while the content was on its way to the location."""

    def send() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.put(url, content=bytes(96 * MIB), timeout=20)

    sending = threading.Thread(target=send)
    sending.start()
    while sending.is_alive() and not hidden(folder):
        time.sleep(0.001)
    server.kill()
    sending.join()
    return bool(hidden(folder))


def test_a_kill_within_a_commit_leaves_nothing(root: Path, server: RunningServer) -> None:
    with small_disk(root / "other", 128) as folder:  # so that the content is copied
        url = register(server, folder)
        for number in range(10):
            caught = killed_within_a_commit(server, f"{url}/deep/f{number}?alt=media", folder)
            server.start()
            assert hidden(folder) == []
            assert list((server.data_dir / "staged").iterdir()) == []
            if caught:
                break
            (folder / "deep" / f"f{number}").unlink(missing_ok=True)
        else:
            pytest.fail("no kill came within a commit")
        httpx.put(f"{url}/deep/f?alt=media", content=b"goes on").raise_for_status()
        assert (folder / "deep" / "f").read_text() == "goes on"
        assert list((server.data_dir / "staged").iterdir()) == []


def test_only_what_is_noted_goes(root: Path, server: RunningServer) -> None:
    folder = root / "folder"
    folder.mkdir()
    register(server, folder)
    server.stop()
    ours = noted(server, folder / "deep")
    others = folder / (TEMPORARY + "f" * 24)
    others.write_text("of another server's commit, which is running")
    users = noted(server, folder, "notes.txt")
    users_too = noted(server, folder, TEMPORARY + "notes")
    server.start()
    assert not ours.exists()
    assert others.exists()
    assert users.exists()
    assert users_too.exists()


def test_no_link_is_followed(root: Path, server: RunningServer) -> None:
    folder, outside = root / "folder", root / "outside"
    folder.mkdir()
    outside.mkdir()
    register(server, folder)
    server.stop()
    through = noted(server, folder / "deep")
    through.rename(outside / HIDDEN)
    through.parent.rmdir()
    through.parent.symlink_to(outside)
    target = outside / "target"
    target.write_text("somebody's")
    link = noted(server, folder, HIDDEN[:-1] + "8")
    link.unlink()
    link.symlink_to(target)
    server.start()
    assert (outside / HIDDEN).exists()
    assert link.is_symlink()
    assert target.exists()


def test_a_location_that_is_read_only_or_away_is_left_alone(
    root: Path, server: RunningServer
) -> None:
    folder = root / "folder"
    folder.mkdir()
    register(server, folder)
    server.stop()
    file = noted(server, folder)
    server.start()
    register(server, folder, "ro")
    server.stop()
    file = noted(server, folder)
    server.start()
    assert file.exists()
    register(server, folder, "rw")
    folder.rename(root / "away")
    server.restart()
    (root / "away").rename(folder)
    assert file.exists()
    server.restart()
    assert not file.exists()


def test_the_time_that_its_owner_gave_it_does_not_matter(root: Path, server: RunningServer) -> None:
    folder = root / "folder"
    folder.mkdir()
    register(server, folder)
    server.stop()
    file = noted(server, folder)
    later = time.time_ns() + 3_600_000_000_000
    os.utime(file, ns=(later, later))
    server.start()
    assert not file.exists()


def test_what_was_begun_since_the_start_stays(tmp_path: Path) -> None:
    """A location that hangs is looked at while requests are served already."""
    location = tmp_path / "location"
    location.mkdir()
    with contextlib.closing(sqlite3.connect(":memory:")) as catalog:
        catalog.execute(
            "CREATE TABLE registrations (bucket, key, uri, writable, created_at, mountpoint)"
        )
        row = ("b", "", location.as_uri(), 1, 0, None)
        catalog.execute("INSERT INTO registrations VALUES (?, ?, ?, ?, ?, ?)", row)
        registrations = Registrations([tmp_path])
        registrations.load(catalog)
    leftovers = Leftovers(tmp_path / "staged")
    time.sleep(0.02)  # the kernel's clock for files is a tick behind
    (location / HIDDEN).write_text("at work")
    leftovers.note(HIDDEN, Location(location), "")
    leftovers.sweep(registrations)
    assert (location / HIDDEN).exists()
    Leftovers(tmp_path / "staged").sweep(registrations)
    assert not (location / HIDDEN).exists()

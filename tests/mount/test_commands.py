"""The commands on a real mount: up, mount in the background, status, umount; and after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounting import detach
from tests.server.running import RunningServer

SECONDS = 60
FILESFS = (sys.executable, "-m", "filesfs.cli")


def filesfs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*FILESFS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mount point, with nothing mounted on it afterwards."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    pid = _pid(path)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    detach(path)


def _pid(path: Path) -> int:
    answers = json.loads(filesfs("status", "--json").stdout or "[]")
    here = [answer for answer in answers if answer["mountpoint"] == str(path)]
    return int(here[0].get("pid", 0)) if here else 0


def _mount(server: RunningServer, place: Path) -> None:
    done = filesfs("mount", server.url, place, "-o", f"cache_dir={place.parent / 'cache'}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_mount_returns_when_the_mount_answers_and_umount_when_all_is_sent(
    server: RunningServer, place: Path
) -> None:
    _mount(server, place)
    (place / "commands").mkdir()
    (place / "commands" / "file").write_bytes(b"x" * 100_000)
    assert place.is_mount()
    assert filesfs("umount", place).returncode == 0
    assert not place.is_mount()
    _mount(server, place)  # the cache folder is free again, the data is on the server
    assert (place / "commands" / "file").read_bytes() == b"x" * 100_000


def test_a_second_mount_on_the_same_place_is_refused(server: RunningServer, place: Path) -> None:
    _mount(server, place)
    done = filesfs("mount", server.url, place)
    assert done.returncode == 32
    assert "is in use" in done.stderr


def test_a_mount_in_use_is_busy_and_lazy_takes_it_away(server: RunningServer, place: Path) -> None:
    _mount(server, place)
    (place / "busy").mkdir()
    with (place / "busy" / "open").open("w"):
        done = filesfs("umount", place)
        assert done.returncode == 32
        assert "fuser -vm" in done.stderr
        assert place.is_mount()
        assert filesfs("umount", "--lazy", place).returncode == 0
        assert not place.is_mount()


def test_who_still_sees_an_unmounted_mount_is_named(server: RunningServer, place: Path) -> None:
    _mount(server, place)
    daemon = os.pidfd_open(_pid(place))
    command = ["unshare", "--mount", "sh", "-c", "echo there; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdout is not None
        elsewhere.stdout.readline()
        done = filesfs("umount", place)
        assert done.returncode == 0
        assert f"nsenter -m -t {elsewhere.pid} umount {place}" in done.stderr
        assert not place.is_mount()
        assert not select.select([daemon], [], [], 0)[0]
        elsewhere.kill()
    assert select.select([daemon], [], [], 20)[0]
    os.close(daemon)


def test_after_a_crash_the_dead_mount_is_named_and_taken_away(
    server: RunningServer, place: Path
) -> None:
    _mount(server, place)
    os.kill(_pid(place), signal.SIGKILL)
    done = filesfs("mount", server.url, place)
    assert done.returncode == 32
    assert f"filesfs umount --dead {place}" in done.stderr
    assert "dead" in filesfs("status", place).stdout
    assert filesfs("umount", "--dead", place).returncode == 0
    _mount(server, place)


def test_a_bucket_that_is_not_there_is_said(server: RunningServer, place: Path) -> None:
    done = filesfs("mount", f"{server.url}/missing", place)
    assert done.returncode == 32
    assert "no bucket 'missing'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not place.is_mount()


def _second_up(place: Path, state: Path) -> str:
    """What `up` says beside another one on the same data."""
    command = [*FILESFS, "up", str(place), "--state-dir", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    return done.stderr


def test_up_serves_until_it_is_told_to_stop_and_keeps_the_data(place: Path) -> None:
    state = place.parent / "state"
    for content, number in ((None, signal.SIGINT), ("kept", signal.SIGTERM)):
        command = [*FILESFS, "up", str(place), "--state-dir", str(state)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
            try:
                assert up.stdout is not None
                assert str(place) in up.stdout.readline()
                if content is None:
                    (place / "first").mkdir()
                    (place / "first" / "file").write_text("kept")
                assert (place / "first" / "file").read_text() == "kept"
                assert "another server answers" in _second_up(place.parent / "other", state)
                up.send_signal(number)
                assert up.wait(SECONDS) == 0
            finally:
                up.terminate()  # takes its server and its mount along
        assert not place.is_mount()
        assert os.listdir(place) == []

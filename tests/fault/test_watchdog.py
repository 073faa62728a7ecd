"""systemd's watchdog: mount and server report while they are alive, and only then."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from filesfs import notify, watchdog
from tests.mount.mounting import detach
from tests.server.running import running_server

ASKED = 4.0  # seconds that systemd would wait; reports come four times as often

pytestmark = pytest.mark.timeout(60)


class Listener:
    """What systemd is on the other side of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        micros = str(int(ASKED * 1_000_000))
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": micros}

    def hears(self, word: bytes, seconds: float) -> bool:
        """Whether `word` comes within the time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            with suppress(TimeoutError):
                if word in self._socket.recv(4096):
                    return True
        return False

    def forget(self) -> None:
        """What came so far does not count."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(4096)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path / "notify")
    yield listener
    listener.close()


@contextmanager
def mount_process(
    source: str, folder: Path, listener: Listener
) -> Iterator[subprocess.Popen[bytes]]:
    path, cache = folder / "mnt", folder / "cache"
    path.mkdir()
    cache.mkdir(mode=0o700)
    options = f"cache_dir={cache},timeout=2"
    command = [sys.executable, "-m", "filesfs.cli", "mount", "-f", source, str(path), "-o", options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=listener.environment)
    try:
        assert listener.hears(b"READY=1", 30), (folder / "log").read_text()
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(40)
        process.kill()
        process.wait()
        detach(path)


def test_the_mount_reports_while_it_lives(listener: Listener, tmp_path: Path) -> None:
    """A server that is away is no reason to restart the mount; a mount that is stopped is."""
    with (
        running_server(tmp_path / "data") as server,
        mount_process(server.url, tmp_path, listener) as mount,
    ):
        assert listener.hears(b"WATCHDOG=1", ASKED)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                listener.forget()
                assert listener.hears(b"WATCHDOG=1", 2 * ASKED)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        mount.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        listener.forget()
        assert not listener.hears(b"WATCHDOG=1", ASKED / 2)
        mount.send_signal(signal.SIGCONT)
        assert listener.hears(b"WATCHDOG=1", 2 * ASKED)


def test_the_server_reports_while_its_loop_runs(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.setenv(name, listener.environment[name])
    with running_server(tmp_path / "data") as server:
        assert listener.hears(b"READY=1", 5)
        assert listener.hears(b"WATCHDOG=1", ASKED)
        os.kill(server.pid, signal.SIGSTOP)
        listener.forget()
        assert not listener.hears(b"WATCHDOG=1", ASKED / 2)
        os.kill(server.pid, signal.SIGCONT)
        assert listener.hears(b"WATCHDOG=1", 2 * ASKED)


@pytest.mark.trio
async def test_a_session_that_is_cut_off_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[bool] = []
    asked: list[bool] = []
    alive = True

    def answers() -> bool:
        asked.append(alive)
        return alive

    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    monkeypatch.setattr(notify, "watchdog", lambda: reports.append(alive))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.run, answers)
            while len(reports) < 3:  # noqa: ASYNC110  # a thread cannot set an event
                await trio.sleep(0.01)
            alive = False
            while asked.count(False) < 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert set(reports) == {True}


def test_a_folder_that_is_no_mount_answers(tmp_path: Path) -> None:
    assert watchdog.session_answers(tmp_path)
    assert watchdog.session_answers(tmp_path / "missing")  # ENOENT is an answer

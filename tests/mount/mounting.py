"""A real mount for tests: a daemon in a process of its own, ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

READY_SECONDS = 30
END_SECONDS = 30


class MountedFilesystem:
    """One running daemon. `path` is the mount point."""

    def __init__(self, source: str, path: Path, cache: Path, options: tuple[str, ...]) -> None:
        self.source = source
        self.path = path
        self.cache = cache
        self.options = options
        self.log = cache.parent / f"{cache.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Mount; AssertionError with the daemon's log when it does not answer."""
        address = f"\0filesfs-test-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waiting:
            waiting.bind(address)
            waiting.settimeout(0.2)
            options = ",".join((f"cache_dir={self.cache}", *self.options))
            environment = {**os.environ, "NOTIFY_SOCKET": "@" + address[1:]}
            command = [sys.executable, "-m", "filesfs.cli", "mount", "-f"]
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*command, self.source, str(self.path), "-o", options],
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
            self._wait(waiting)

    def _wait(self, waiting: socket.socket) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in waiting.recv(4096):
                    return
        self.kill()
        raise AssertionError(f"the mount did not come up:\n{self.log.read_text()}")

    def unmount(self) -> None:
        """As umount(8) would, and wait for the daemon's end."""
        subprocess.run(["umount", str(self.path)], check=True, timeout=END_SECONDS)
        assert self.process is not None
        assert self.process.wait(END_SECONDS) == 0, self.log.read_text()
        self.process = None

    def remount(self) -> None:
        self.unmount()
        self.start()

    def kill(self) -> None:
        """kill -9, and the dead mount cleared."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(END_SECONDS)
            self.process = None
        detach(self.path)

    def close(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.kill()
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        self.kill()


def detach(path: Path) -> None:
    """Take a mount away even if it is dead or busy."""
    subprocess.run(["umount", "-l", str(path)], capture_output=True, timeout=END_SECONDS)


@contextlib.contextmanager
def mounted(
    source: str, folder: Path, *options: str, name: str = "mnt"
) -> Iterator[MountedFilesystem]:
    """Mount `source` on FOLDER/NAME with a cache beside it."""
    path, cache = folder / name, folder / f"{name}-cache"
    path.mkdir(exist_ok=True)
    cache.mkdir(mode=0o700, exist_ok=True)
    mount = MountedFilesystem(source, path, cache, options)
    try:
        mount.start()
        yield mount
    finally:
        mount.close()

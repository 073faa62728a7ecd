"""The file systems that are measured: how each is started, mounted, mounted anew, and ended.

It must not measure. Each system has a folder of its own and binds loopback only; peers that are not
installed are left out, and the table says so.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

START_SECONDS = 60


class System(Protocol):
    """One file system on one folder."""

    name: str
    promise: str  # what is durable when
    # Workloads with this in their name end before their data is on the server: shown, not compared.
    early: tuple[str, ...]

    def missing(self) -> str:
        """Why it cannot be measured here; "" if it can."""

    def serve(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        """Its servers, for as long as the context lasts."""

    def mount(self, folder: Path) -> contextlib.AbstractContextManager[Path]:
        """One life of its client, caches empty; the folder to work in."""


class Filesfs:
    """This project: one server on a Unix socket, one mount."""

    name = "filesfs"
    promise = "durable at close and at fsync"
    early = ()

    def __init__(self, options: str = "") -> None:
        self._options = options
        if options:
            self.name = f"filesfs -o {options}"

    def missing(self) -> str:
        return ""

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        listen = f"unix:{folder / 'server.sock'}"
        data = str(folder / "data")
        command = [sys.executable, "-m", "files_server.serve", "--data-dir", data]
        with running([*command, "--listen", listen], folder / "server.log", announces=True):
            yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        cache = folder / f"cache-{time.monotonic_ns()}"
        options = ",".join(filter(None, (f"cache_dir={cache}", self._options)))
        source = f"unix:{folder / 'server.sock'}"
        command = [sys.executable, "-m", "filesfs.cli", "mount", "-f", source]
        with mounted(folder, lambda at: [*command, str(at), "-o", options]) as at:
            bucket = at / "bench"
            bucket.mkdir(exist_ok=True)
            yield bucket


class PlainFolder:
    """The disk below all of them: what the machine allows, no peer."""

    name = "plain folder"
    promise = "durable at fsync, not at close"
    early = ()

    def missing(self) -> str:
        return ""

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        yield folder


class Limit:
    """pyfuse3 over nothing, the most that a mount in Python can do here; no peer. One life: its
    files are in its memory, so that cold means cold in the kernel.
    """

    name = "pyfuse3 alone"
    promise = "in memory, nothing is durable"
    early = ()

    def missing(self) -> str:
        return ""

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        command = [sys.executable, "-m", "bench.nullfs"]
        with mounted(folder, lambda at: [*command, str(at)]) as self._at:
            yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        yield self._at


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def drop_caches() -> None:
    """The kernel's clean pages, entries and inodes. Needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    announces: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process; with `announces` it is up once it has written a line to stdout."""
    with log.open("ab") as output:
        stdout = subprocess.PIPE if announces else output
        process = subprocess.Popen(command, stdout=stdout, stderr=output, env=environment)
    try:
        if process.stdout is not None:
            ready = select.select([process.stdout], [], [], START_SECONDS)[0]
            if not ready or not process.stdout.readline():
                raise RuntimeError(f"{command[0]} did not start; see {log}")
        yield process
    finally:
        _end(process)
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def mounted(folder: Path, command: Callable[[Path], Sequence[str]]) -> Iterator[Path]:
    """A mount in the foreground, unmounted at the end, by force if it has to be."""
    at = folder / "mnt"
    at.mkdir(exist_ok=True)
    # rclone 1.60 refuses to start where a CA bundle is set for AWS; nothing here speaks TLS.
    environment = {name: v for name, v in os.environ.items() if name != "AWS_CA_BUNDLE"}
    with (folder / "mount.log").open("ab") as log:
        process = subprocess.Popen(command(at), stdout=log, stderr=log, env=environment)
    try:
        _wait_for_mount(at, process, folder / "mount.log")
        yield at
    finally:
        if os.path.ismount(at):
            subprocess.run(["umount", str(at)], check=False, timeout=START_SECONDS)
        if os.path.ismount(at):
            subprocess.run(["umount", "-l", str(at)], check=False, timeout=START_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(START_SECONDS)
        _end(process)


def _wait_for_mount(at: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if os.path.ismount(at):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the mount did not come up; see {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port} after {START_SECONDS} s")

"""`filesfs up`: a server on a local data folder and a mount of it, for as long as it is wanted.

It must not know what either does inside: it starts the two commands that a user would, and ends
them in the right order, the mount first, since it still has to send.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filesfs.commands.logfiles import rotate
from filesfs.commands.mount import spawn, wait_ready
from filesfs.commands.mount_table import check_mountpoint
from filesfs.commands.unmount import clear_dead
from filesfs.config import load
from filesfs.errors import UsageError

_START_SECONDS = 60  # a catalog that has to be migrated or swept takes a while
_STOP_SECONDS = 90
_LOOK_SECONDS = 10.0  # how often the logs' length is looked at
_LISTENING = "listening on "
_SAYS = "files-server: "


def state_folder() -> Path:
    """Where data that is to be kept lies: the machine's for root, else the user's own."""
    if os.getuid() == 0:
        return Path("/var/lib/filesfs")
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(home) / "filesfs"


def default_mountpoint() -> Path:
    """/mnt/files for root, ~/files for others."""
    return Path("/mnt/files") if os.getuid() == 0 else Path.home() / "files"


@dataclass(frozen=True, slots=True)
class Place:
    """What `up` was asked for. `listen` "" means a socket in the state folder, `keep_deleted` ""
    what the environment says."""

    mountpoint: Path
    folder: Path
    listen: str
    options: Sequence[str]
    keep_deleted: str = ""

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "mount.log"

    @property
    def server_log(self) -> Path:
        return self.folder / "server.log"

    @property
    def logs(self) -> tuple[Path, Path]:
        return self.log, self.server_log


def run(place: Place, say: Callable[[str], None], ready: Callable[[str], None]) -> int:
    """Serve and mount until SIGINT or SIGTERM, or until one of the two ends. The exit code.

    `ready` gets the source once the mount answers. Raises UsageError when it cannot begin.
    """
    with _stop_pipe() as stopped:
        _prepare(place)
        with _server(place) as (server, source):
            mount, pipe = spawn(source, place.mountpoint, place.options, place.log)
            try:
                wait_ready(mount, pipe, place.log)
                ready(source)
                return _wait(server, mount, stopped, place, say)
            finally:
                os.close(pipe)
                _end(mount)


def _prepare(place: Place) -> None:
    clear_dead(place.mountpoint)
    try:
        place.mountpoint.mkdir(parents=True, exist_ok=True)
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {error.filename}: {error.strerror}", 1) from None
    check_mountpoint(place.mountpoint)
    load("http://localhost", place.mountpoint, place.options)  # wrong options, before all else


@contextlib.contextmanager
def _server(place: Place) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running server, and its address as a mount's source."""
    listen = place.listen or f"unix:{place.folder / 'server.sock'}"
    log = place.server_log
    rotate(log)
    command = [sys.executable, "-m", "files_server.serve", "--data-dir", str(place.data_dir)]
    if place.keep_deleted:
        command += ["--keep-deleted", place.keep_deleted]
    with log.open("a") as output:
        server = subprocess.Popen(
            [*command, "--listen", listen],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C in this terminal ends the mount first
        )
    try:
        address = _address(server, log)
        yield server, listen if listen.startswith("unix:") else address
    finally:
        _end(server)


def _address(server: subprocess.Popen[str], log: Path) -> str:
    """What the server says it listens on. Raises UsageError when it does not come up."""
    assert server.stdout is not None
    if not select.select([server.stdout], [], [], _START_SECONDS)[0]:
        raise UsageError(f"the server did not answer in {_START_SECONDS} s; see {log}", 1)
    line = server.stdout.readline().strip()
    if line.startswith(_LISTENING):
        return line.removeprefix(_LISTENING)
    code = server.wait(_STOP_SECONDS)
    raise UsageError(f"the server did not start: {_reason(log)}", 2 if code == 2 else 1)


def _reason(log: Path) -> str:
    """Why it ended. A server that already runs may write its requests to the same log."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith(_SAYS)] or lines[-1:]
    return said[-1].removeprefix(_SAYS) if said else f"it said nothing; see {log}"


def _wait(
    server: subprocess.Popen[str],
    mount: subprocess.Popen[bytes],
    stopped: int,
    place: Place,
    say: Callable[[str], None],
) -> int:
    ends = {os.pidfd_open(server.pid): "server", os.pidfd_open(mount.pid): "mount"}
    try:
        readable: list[int] = []
        while not readable:
            readable = select.select([stopped, *ends], [], [], _LOOK_SECONDS)[0]
            for log in place.logs:
                rotate(log)
    finally:
        for descriptor in ends:
            os.close(descriptor)
    if stopped in readable:
        say("sending what is left, and unmounting ...")
        return 0
    ended = ends[readable[0]]
    if ended == "mount" and mount.wait() == 0:
        say("unmounted")
        return 0
    say(f"the {ended} has ended; stopping")
    return 1


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def _stop_pipe() -> Iterator[int]:
    """A descriptor that becomes readable at SIGINT or SIGTERM."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def stop(number: int, frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b".")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)

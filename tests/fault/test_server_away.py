"""The server stops answering, as after a power cut or on a hanging disk: each call ends, the mount
can be ended, and what was acknowledged goes up later.

The server is stopped with SIGSTOP: connections stay open, and nothing comes over them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer, running_server

TIMEOUT = 2
SLACK = 5.0  # seconds beyond the deadline that a busy machine may take
END = 45.0  # what the documents promise for the end of a mount, and something for the machine
KEPT = os.urandom(3 << 20)

pytestmark = pytest.mark.timeout(100)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("away") / "data") as server:
        yield server


@pytest.fixture
def mount(server: RunningServer, tmp_path: Path) -> Iterator[MountedFilesystem]:
    with mounted(server.url, tmp_path, f"timeout={TIMEOUT}") as mount:
        bucket = mount.path / "away"
        bucket.mkdir(exist_ok=True)
        (bucket / "kept").write_bytes(KEPT)
        (bucket / "small").write_bytes(b"small")
        yield mount


@pytest.fixture
def silent(mount: MountedFilesystem, server: RunningServer) -> Iterator[Callable[[], None]]:
    """Call it, and the server says nothing any more, until the test is over."""
    pid = server.pid

    def silence() -> None:
        os.kill(pid, signal.SIGSTOP)

    yield silence
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """One letter of proc(5): S sleeps, D cannot be interrupted, Z has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def child(code: str, *arguments: str | Path | IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that touches the mount: this one must never hang itself. Files are handed on."""
    files = [each.fileno() for each in arguments if not isinstance(each, str | Path)]
    texts = [str(e) if isinstance(e, str | Path) else str(e.fileno()) for e in arguments]
    command = [sys.executable, "-c", code, *texts]
    return subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=files)


_CALLS = {
    "stat": "os.stat(p + '/unknown')",
    "open": "open(p + '/small', 'rb')",
    "list": "os.listdir(p)",
    "create": "os.mkdir(p + '/new')",
    "rename": "os.rename(p + '/small', p + '/other')",
    "unlink": "os.unlink(p + '/small')",
    "chmod": "os.chmod(p + '/small', 0o600)",
    "truncate": "os.truncate(p + '/small', 1)",
    "statfs": "os.statvfs(p)",
    "close": "f = open(p + '/written', 'wb', 0); f.write(b'x'); f.close()",
}
_ONE_CALL = """
import os, sys, time
p, call = sys.argv[1:]
began = time.monotonic()
try:
    exec(call)
except OSError as error:
    print(error.errno, end=" ")
print(time.monotonic() - began)
"""


def test_each_call_ends_by_its_deadline(
    mount: MountedFilesystem, silent: Callable[[], None]
) -> None:
    """All at once, each in a directory of its own, since the kernel lets changes of one directory
    wait for each other. What the mount knows may be answered without asking.
    """
    for name in _CALLS:
        (mount.path / "away" / name).mkdir()
        (mount.path / "away" / name / "small").write_bytes(b"small")
    silent()
    running = {n: child(_ONE_CALL, mount.path / "away" / n, c) for n, c in _CALLS.items()}
    answers = {}
    for name, process in running.items():
        out, _ = process.communicate(timeout=10 * TIMEOUT)
        answers[name] = out.decode().split()
    slowest = max(float(answer[-1]) for answer in answers.values())
    assert slowest < 2 * TIMEOUT + SLACK, answers  # an open() and a close()
    failed = {name for name, answer in answers.items() if len(answer) == 2}
    assert {answers[name][0] for name in failed - {"stat"}} == {str(errno.EIO)}
    assert failed >= {"open", "create", "rename", "unlink", "truncate", "close"}


def test_what_is_cached_is_shown(mount: MountedFilesystem, silent: Callable[[], None]) -> None:
    listed = sorted(os.listdir(mount.path / "away"))
    (mount.path / "away" / "kept").stat()
    silent()
    time.sleep(1.5)  # longer than names are trusted without the feed
    shown = child("import os, sys; print(*sorted(os.listdir(sys.argv[1])))", mount.path / "away")
    out, _ = shown.communicate(timeout=4 * TIMEOUT + SLACK)
    assert out.decode().split() == listed


@pytest.mark.parametrize("what", ["read", "close", "stat"])
def test_who_waits_can_be_killed(
    mount: MountedFilesystem, silent: Callable[[], None], what: str
) -> None:
    """SIGKILL ends it at the latest at the deadline; nobody is left in uninterruptible sleep."""
    bucket = mount.path / "away"
    mount.remount()  # nothing is cached
    if what == "stat":
        silent()
        _kill_while_it_waits(child("import os, sys; os.stat(sys.argv[1])", bucket / "unknown"))
    elif what == "read":
        with (bucket / "kept").open("rb", buffering=0) as old:
            silent()
            _kill_while_it_waits(child("import os, sys; os.pread(int(sys.argv[1]), 9, 0)", old))
    else:
        new = (bucket / "new").open("wb", buffering=0)
        new.write(b"x")
        silent()
        _kill_while_it_waits(child("import os, sys; os.close(int(sys.argv[1]))", new))
        with pytest.raises(OSError, match="Errno 5"):
            new.close()


def _kill_while_it_waits(blocked: subprocess.Popen[bytes]) -> None:
    assert blocked.stdout is not None
    blocked.stdout.close()
    deadline = time.monotonic() + 2 * TIMEOUT
    time.sleep(1.0)
    assert blocked.poll() is None, "it did not wait"
    before = state(blocked.pid)
    blocked.kill()
    try:
        blocked.wait(max(1.0, deadline + SLACK - time.monotonic()))
    except subprocess.TimeoutExpired:
        pytest.fail(f"it hangs: {before} before the kill, {state(blocked.pid)} after it")


@pytest.mark.parametrize("how", ["umount", "SIGTERM", "SIGINT"])
def test_the_mount_can_be_ended(
    mount: MountedFilesystem, server: RunningServer, silent: Callable[[], None], how: str
) -> None:
    """With a close() that the server did not take, and, but for umount, a caller that waits."""
    bucket = mount.path / "away"
    unsent = (bucket / how).open("wb", buffering=0)
    unsent.write(b"x" * 100)
    silent()
    with pytest.raises(OSError, match="Errno 5"):
        unsent.close()
    caller = None
    assert mount.process is not None
    began = time.monotonic()
    if how == "umount":
        ended = subprocess.run(["umount", str(mount.path)], timeout=END, check=False)
        assert ended.returncode == 0
    else:
        caller = child("import os, sys; os.stat(sys.argv[1])", bucket / "unknown")
        time.sleep(0.5)
        mount.process.send_signal(signal.Signals[how])
    mount.process.wait(END)
    assert time.monotonic() - began < END
    assert not os.path.ismount(mount.path)
    if caller is not None:
        caller.communicate(timeout=SLACK)
    os.kill(server.pid, signal.SIGCONT)
    mount.start()
    deadline = time.monotonic() + 20
    while not (bucket / how).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (bucket / how).read_bytes() == b"x" * 100


def test_a_server_that_is_killed_and_comes_back(
    mount: MountedFilesystem, server: RunningServer
) -> None:
    """close() says EIO; the same mount sends it without being asked, once there is a server."""
    path = mount.path / "away" / "later"
    file = path.open("wb", buffering=0)
    file.write(b"later")
    server.kill()
    with pytest.raises(OSError, match="Errno 5"):
        file.close()
    assert (mount.path / "away").exists()
    server.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if path.read_bytes() == b"later":
                break
        time.sleep(0.1)
    assert path.read_bytes() == b"later"
    assert (mount.path / "away" / "kept").read_bytes() == KEPT

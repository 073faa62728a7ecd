"""A systemd of a test's own, with filesfs installed as `make install` does it.

Its process is ended whatever happens, and all that it started goes along.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BOOT_SECONDS = 60
COMMAND_SECONDS = 60

_DIAGNOSES = ("is-system-running", "list-jobs", "--failed")
Answer = TypeVar("Answer")


class Machine:
    """A running private systemd; `run` runs in its namespaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outer: subprocess.Popen[bytes] | None = None
        self._inner = 0

    def boot(self) -> None:
        with (self.folder / "boot.log").open("wb") as log:
            self._outer = subprocess.Popen(
                [str(HERE / "private-systemd"), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._inner = int(wait_for(self._child, BOOT_SECONDS, "the namespace"))
        try:
            wait_for(self._is_up, BOOT_SECONDS, "systemd")
        except AssertionError as error:
            said = [self.run("systemctl", word, check=False) for word in _DIAGNOSES]
            boot_log = (self.folder / "boot.log").read_text()
            raise AssertionError("\n".join([str(error), boot_log, *said])) from None

    def halt(self) -> None:
        if self._outer is not None:
            self._outer.kill()
            self._outer.wait(COMMAND_SECONDS)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside; its output. AssertionError with all it said when it fails."""
        done = subprocess.run(
            [*self._enter(), *command],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        assert not check or done.returncode == 0, f"{command} failed: {said}\n{self.journal()}"
        return said.strip()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command inside, for the caller to wait for."""
        return subprocess.Popen(
            [*self._enter(), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def main_pid(self, unit: str) -> str:
        """The process of a unit, as numbered inside."""
        return self.run("systemctl", "show", "--property=MainPID", "--value", unit)

    def wait_active(self, unit: str, not_pid: str = "") -> None:
        """Until `unit` is active, with another process than `not_pid`."""

        def active() -> bool:
            state = self.run("systemctl", "is-active", unit, check=False)
            return state == "active" and self.main_pid(unit) not in ("0", not_pid)

        try:
            wait_for(active, COMMAND_SECONDS, unit)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    def journal(self) -> str:
        command = ["journalctl", "--no-pager", "--lines=40", "-u", "filesfs"]
        done = subprocess.run(
            [*self._enter(), *command], capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._inner), "--mount", "--pid"]

    def _child(self) -> str:
        assert self._outer is not None
        boot_log = (self.folder / "boot.log").read_text()
        assert self._outer.poll() is None, f"the namespace ended: {boot_log}"
        pid = self._outer.pid
        if Path(f"/proc/{pid}/comm").read_text() != "unshare\n":
            return ""  # still the script, whose children are not the namespace's
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split(" ")[0]

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", check=False)
        return state in ("running", "degraded")


def wait_for(condition: Callable[[], Answer], seconds: float, what: str) -> Answer:
    """Ask until the answer is true. systemd tells the outside of no event that we could await."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def install(folder: Path) -> None:
    """`make install`, with `folder` seen as /srv, in a mount namespace of its own."""
    folder.chmod(0o755)  # the server's account is not root
    script = REPOSITORY / "systemd/install"
    # A mount lives until its last namespace lets go of it: other tests' must not wait for this one.
    release = "findmnt -rno TARGET -t fuse.filesfs | xargs -r -d '\\n' -n 1 umount -l || true"
    command = f"{release}; mount --bind '{folder}' /srv && bash '{script}'"
    arguments = "/srv/filesfs /srv/units /srv/sbin/mount.filesfs"
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-euc", f"{command} {arguments}"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine with filesfs installed, both services started."""
    machine = Machine(folder)
    try:
        machine.boot()
        machine.run("systemctl", "start", "filesfs-server", "filesfs")
        yield machine
    finally:
        machine.halt()

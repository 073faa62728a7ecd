"""A real server in a process of its own, for tests: started, stopped, killed, started again.

It must not look into the server: what tests see is what clients see.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 20.0


class RunningServer:
    """`url` is where it answers, without /v1; `socket` the path of its Unix socket, if any."""

    def __init__(self, data_dir: Path, options: dict[str, object]) -> None:
        self.data_dir = data_dir
        self._options = dict(options)
        self.url = ""
        self.socket: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers. A restart takes the same port again."""
        arguments = ["--data-dir", str(self.data_dir)]
        for name, value in self._options.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            for one in values:
                arguments.append(f"--{name.replace('_', '-')}")
                if one is not True:
                    arguments.append(str(one))
        log = (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "files_server.serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._listening(self._line())

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop if it runs, then start on the same address."""
        if self._process is not None:
            self.stop()
        self.start()

    def log(self) -> str:
        """What it has logged so far."""
        return (self.data_dir.parent / f"{self.data_dir.name}.log").read_text()

    def _line(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        deadline = time.monotonic() + _START_SECONDS
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        line = process.stdout.readline().decode() if ready else ""
        if not line.startswith("listening on "):
            self.kill()
            raise RuntimeError(f"the server did not start: {line!r}\n{self.log()}")
        return line.removeprefix("listening on ").strip()

    def _listening(self, address: str) -> None:
        if address.startswith("unix:"):
            self.socket = Path(address.removeprefix("unix:"))
            self.url = "http://localhost"
        else:
            self.url = address
            self._options["listen"] = address.partition("//")[2]

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        try:
            code = process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdout:
            process.stdout.close()
        return code


@contextlib.contextmanager
def running_server(data_dir: Path, **options: object) -> Iterator[RunningServer]:
    """A server on a free port of 127.0.0.1 (or `listen=`). Options are the command line's names.

    A list is given several times (`file_root=[...]`), True is a flag.
    """
    server = RunningServer(data_dir, {"listen": "127.0.0.1:0", **options})
    server.start()
    try:
        yield server
    finally:
        server.stop()

"""What Granian allows: an application that does nothing but hand one file to it.

It must not look at the request; the file is the environment variable BENCH_FILE.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from bench.systems import free_port, running, wait_for_port

PATH = os.environ.get("BENCH_FILE", "")


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Every GET is the whole file."""
    if scope["type"] != "http":
        return
    length = str(os.stat(PATH).st_size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.pathsend", "path": PATH})


@contextlib.contextmanager
def serving(path: Path, log: Path) -> Iterator[int]:
    """The port of a Granian with one worker that sends `path`, for as long as the context lasts."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asginl", "--port", str(port)]
    options = ["--host", "127.0.0.1", "--no-ws", "--log-level", "warning", "bench.pathsend:app"]
    with running([*command, *options], log, environment={**os.environ, "BENCH_FILE": str(path)}):
        wait_for_port(port)
        yield port

"""The daemon's control socket: `filesfs status` and `filesfs umount` talk to a running mount
through it.

One JSON object a connection: the request is one line ("status" or "drain"), the answer one line of
JSON. The socket lies in the cache folder, mode 0600. A leaf but for trio.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

SOCKET_NAME = "control.sock"
_LINE = 4096

Answer = Callable[[], Awaitable[Mapping[str, Any]]]


async def serve(
    folder: Path,
    commands: Mapping[str, Answer],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled; started once a connection is taken."""
    path = folder / SOCKET_NAME
    path.unlink(missing_ok=True)  # the folder is flocked: nobody else's
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(8)
        task_status.started()
        await trio.serve_listeners(partial(_answer, commands), [trio.SocketListener(listener)])
    finally:
        listener.close()
        path.unlink(missing_ok=True)


async def _answer(commands: Mapping[str, Answer], stream: trio.SocketStream) -> None:
    with trio.move_on_after(600):
        try:
            line = await stream.receive_some(_LINE)
            command = commands.get(bytes(line).decode("ascii", "replace").strip())
            answer = {"error": "unknown command"} if command is None else await command()
            await stream.send_all(json.dumps(answer).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever asked has gone
    await stream.aclose()


def ask(folder: Path, command: str, timeout: float = 60.0) -> dict[str, Any]:
    """Send one command to the daemon whose cache folder this is. OSError when none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(folder / SOCKET_NAME))
        connection.sendall(command.encode() + b"\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    answer: dict[str, Any] = json.loads(received)
    return answer

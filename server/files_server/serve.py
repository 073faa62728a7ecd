"""Runs the server: one process, one data folder, one address. `python -m files_server.serve`.

It must not decide what an answer is: it starts the application, tells when it answers, and stops
it so that no running request is broken off. A mistake of the operator's is one line and an exit
code: 2 for settings, 3 for an address, 4 for the data folder.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from files_server import edge, listener
from files_server.app import RawPaths, create_app
from files_server.asgi import App
from files_server.auth import TokensError
from files_server.logs import Lines
from files_server.running import Running
from files_server.settings import Settings, SettingsError, load

USAGE, ADDRESS, DATA_FOLDER, UNEXPECTED = 2, 3, 4, 1  # exit codes
DRAIN_SECONDS = 10.0  # for running requests; systemd's default stop timeout is 90 s


class ServeError(Exception):
    """The server cannot run; the message is for the operator."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code. Prints one line once it answers."""
    try:
        check_exposure(settings)
        uvloop.run(_serve(settings))
    except ServeError as error:
        print(f"files-server: {error}", file=sys.stderr)
        return error.exit_code
    except TokensError as error:
        print(f"files-server: {error}", file=sys.stderr)
        return USAGE
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: each setting is an option."""
    options = vars(_parser().parse_args(argv))
    config: Path | None = options.pop("config")
    try:
        settings = load(options, file=config)
    except SettingsError as error:
        print(f"files-server: {error}", file=sys.stderr)
        return USAGE
    return run(settings)


def check_exposure(settings: Settings) -> None:
    """Raises ServeError where others could reach the server without tokens or read along."""
    if settings.insecure or settings.socket_path is not None:
        return
    host, _ = settings.address
    if _is_loopback(host):
        return
    missing = [] if edge.has_tokens(settings) else ["tokens (--tokens-file)"]
    if settings.tls_cert is None:
        missing.append("TLS (--tls-cert and --tls-key)")
    if missing:
        raise ServeError(
            f"--listen {settings.listen} is reachable from other machines, without"
            f" {' and without '.join(missing)}. Give them, listen on 127.0.0.1 or unix:/PATH,"
            " or say --insecure if whoever can connect may read and delete everything",
            USAGE,
        )


class _Embedded(Server):
    """Granian on a socket that is bound already."""

    def __init__(self, app: object, listening: socket.socket, settings: Settings) -> None:
        self._listening = listening
        super().__init__(
            app,
            interface=Interfaces.ASGINL,  # the lifespan is ours: its errors are the operator's
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            backlog=listener.BACKLOG,
            backpressure=settings.max_connections,
            http1_settings=HTTP1Settings(header_read_timeout=settings.header_seconds * 1000),
            ssl_cert=settings.tls_cert,
            ssl_key=settings.tls_key,
        )

    def _init_shared_socket(self) -> None:
        is_unix = self._listening.family == socket.AF_UNIX
        # Granian closes what it is given, Python closes its own.
        holder: Any = SocketHolder  # its stub leaves the constructor out
        self._shd: Any = holder(os.dup(self._listening.fileno()), is_unix, self.backlog)


async def _serve(settings: Settings) -> None:
    stop = _stop_signal()
    async with AsyncExitStack() as stack:
        listening = _bind(settings, stack)
        settings = _with_real_port(settings, listening)
        app = create_app(settings)
        await _start(app.router.lifespan_context(app), stack)
        running = Running(edge.wrap(RawPaths(app), settings))
        lines = Lines()
        stack.callback(lines.close)
        server = _granian(edge.logged(running, settings, lines), listening, settings)
        serving = asyncio.create_task(server.serve())
        stopped = asyncio.create_task(stop.wait())
        watchdog = asyncio.create_task(_watchdog(serving))
        print(f"listening on {listener.bound_url(listening, settings)}", flush=True)
        _notify("READY=1")
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        _notify("STOPPING=1")
        await _stop(server, serving, running)
        watchdog.cancel()
        stopped.cancel()


async def _stop(server: _Embedded, serving: asyncio.Task[None], running: Running) -> None:
    if not serving.done():
        await running.drain(DRAIN_SECONDS)
        server.signal_handler_interrupt()  # type: ignore[no-untyped-call]
    _, late = await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
    if late:  # a client that does not read its answer keeps its connection open
        serving.cancel()
        await asyncio.wait({serving}, timeout=1)
    elif error := serving.exception():
        raise ServeError(f"the HTTP server failed: {error!r}", UNEXPECTED) from error


def _bind(settings: Settings, stack: AsyncExitStack) -> socket.socket:
    try:
        listening = listener.bind(settings)
    except listener.ListenError as error:
        raise ServeError(str(error), ADDRESS) from None
    if settings.socket_path is not None:
        stack.callback(listener.remove_socket, settings.socket_path)
    stack.callback(listening.close)
    return listening


def _with_real_port(settings: Settings, listening: socket.socket) -> Settings:
    if settings.socket_path is not None or settings.address[1] != 0:
        return settings
    host, port = settings.address[0], listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return settings.model_copy(update={"listen": f"{shown}:{port}"})


async def _start(lifespan: AbstractAsyncContextManager[object], stack: AsyncExitStack) -> None:
    try:
        await stack.enter_async_context(lifespan)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServeError(_one_line(error), DATA_FOLDER) from error


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).splitlines()[0] if str(error) else repr(error)


def _granian(app: App, listening: socket.socket, settings: Settings) -> _Embedded:
    try:
        return _Embedded(app, listening, settings)
    except OSError as error:  # ssl.SSLError is one
        raise ServeError(
            f"cannot use --tls-cert {settings.tls_cert} with --tls-key {settings.tls_key}:"
            f" {_one_line(error)}",
            USAGE,
        ) from None


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; after that a second SIGINT ends the process the hard way."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    return stop


def _notify(state: str) -> None:
    """sd_notify(3): a datagram to systemd, if it asked for one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.connect(address)
        sender.sendall(state.encode())


async def _watchdog(serving: asyncio.Task[None]) -> None:
    """Tells systemd that the loop runs and Granian serves, if WatchdogSec= asks for it."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not mine or not microseconds.isdecimal():
        return
    while not serving.done():
        _notify("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 4_000_000)  # two may get lost


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("files-server", description="A server of the Files API.")
    parser.add_argument("--config", type=Path, help="a TOML file of these settings")
    for name, field in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        described = (field.description or "").replace("%", "%%")
        if name == "file_roots":
            parser.add_argument(
                "--file-root", dest=name, action="append", metavar="PATH", help=described
            )
        elif field.annotation is bool:
            parser.add_argument(option, action="store_true", default=None, help=described)
        else:
            parser.add_argument(option, metavar="VALUE", help=described)
    return parser


if __name__ == "__main__":
    sys.exit(main())

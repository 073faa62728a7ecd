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
import ssl
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path

import uvloop

from files_server import edge, listener
from files_server.app import RawPaths, create_app
from files_server.auth import TokensError
from files_server.front.serving import Front
from files_server.logs import Lines
from files_server.running import Running
from files_server.settings import Settings, SettingsError, load

USAGE, ADDRESS, DATA_FOLDER, UNEXPECTED = 2, 3, 4, 1  # exit codes
DRAIN_SECONDS = 10.0  # for running requests; systemd's default stop timeout is 90 s
CLOSE_SECONDS = 3.0  # for clients to take the ends of their answers


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


async def _serve(settings: Settings) -> None:
    stop = _stop_signal()
    async with AsyncExitStack() as stack:
        tls = _tls(settings)
        listening = _bind(settings, stack)
        settings = _with_real_port(settings, listening)
        app = create_app(settings)
        await _start(app.router.lifespan_context(app), stack)
        running = Running(edge.wrap(RawPaths(app), settings))
        lines = Lines()
        stack.callback(lines.close)
        front = Front(
            edge.logged(running, settings, lines),
            listening,
            most=settings.max_connections,
            header_seconds=settings.header_seconds,
            idle_seconds=settings.send_idle_seconds,
            tls=tls,
        )
        front.start()
        watchdog = asyncio.create_task(_watchdog())
        print(f"listening on {listener.bound_url(listening, settings)}", flush=True)
        _notify("READY=1")
        await stop.wait()
        _notify("STOPPING=1")
        await running.drain(DRAIN_SECONDS)
        await front.stop(CLOSE_SECONDS)
        watchdog.cancel()


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


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise ServeError(
            f"cannot use --tls-cert {settings.tls_cert} with --tls-key {settings.tls_key}:"
            f" {_one_line(error)}",
            USAGE,
        ) from None
    return context


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


async def _watchdog() -> None:
    """Tells systemd that the loop runs, if WatchdogSec= asks for it."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not mine or not microseconds.isdecimal():
        return
    while True:
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

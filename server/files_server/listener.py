"""Binding the one address that the server listens on, TCP or a Unix socket.

It must not accept or serve anything; `front/` does. Without SO_REUSEPORT, so that a second server
on the same port is noticed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from files_server.settings import Settings

BACKLOG = 1024


class ListenError(Exception):
    """The address cannot be had; the message is one line with the cause and the remedy."""


def bind(settings: Settings) -> socket.socket:
    """A listening, non-blocking socket for `settings.listen`. Raises ListenError."""
    path = settings.socket_path
    listening = _bind_unix(path) if path is not None else _bind_tcp(*settings.address)
    if path is None:
        # Connections inherit it. It counts while the client's window is closed, so it ends who
        # takes nothing, or a byte now and then, but not who is merely slow.
        milliseconds = settings.send_idle_seconds * 1000
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def bound_url(listening: socket.socket, settings: Settings) -> str:
    """Where the server answers, with the port that was really taken."""
    if settings.socket_path is not None:
        return settings.listen
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls_cert else 'http'}://{shown}:{port}"


def remove_socket(path: Path) -> None:
    """Remove our socket file, once closed. Not if somebody answers: another server replaced it."""
    if not _answers(path):
        path.unlink(missing_ok=True)


def _bind_tcp(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"cannot resolve the host {host!r} of --listen: {error}") from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ListenError(_tcp_trouble(host, port, error)) from None
    return listening


def _tcp_trouble(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use: stop what listens there or choose another --listen"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one of 1024 or more with --listen"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def _bind_unix(path: Path) -> socket.socket:
    _clear_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the file must never exist with another mode than 0600
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        cause = error.strerror or str(error)
        raise ListenError(f"cannot listen on unix:{path}: {cause}") from None
    finally:
        os.umask(before)
    return listening


def _clear_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"{path} exists and is no socket: choose another path for --listen")
    except OSError:
        return  # nothing there, or bind will say what is wrong
    if _answers(path):
        raise ListenError(f"another server answers on unix:{path}: stop it or choose another path")
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # full backlog, no permission: somebody is there
    return True

"""sd_notify(3): tells systemd how the daemon is doing, if it asked. A leaf; never raises.

It must not decide anything. Without NOTIFY_SOCKET in the environment all of it does nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send one datagram of VARIABLE=VALUE lines to systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract name space
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall(state.encode())


def ready(status: str = "") -> None:
    """The mount answers."""
    notify(f"READY=1\nSTATUS={status}" if status else "READY=1")


def stopping() -> None:
    """No new work; draining."""
    notify("STOPPING=1")


def status(text: str) -> None:
    """One line for `systemctl status`."""
    notify(f"STATUS={text}")


def watchdog() -> None:
    """Still alive; to be sent more often than `watchdog_seconds`."""
    notify("WATCHDOG=1")


def watchdog_seconds() -> float | None:
    """How often at least `watchdog` has to be sent: half of what systemd waits. None: not asked."""
    text = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 2_000_000 if text.isdigit() and mine else None

"""A mount(2) of our own: libfuse takes over a /dev/fuse that is mounted already.

So flags can be agreed on that it does not know (handshake.py), and the kernel can enforce access
control lists: a directory's default list takes the umask's place, so the kernel must leave the
umask to us, as it does for mounts with MS_POSIXACL. Only root can do this.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import stat
from collections.abc import Iterable
from pathlib import Path

from filesfs.fuse.handshake import Handshake

log = logging.getLogger(__name__)

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_SYNC = 1, 2, 4, 8, 16
_MS_DIRSYNC, _MS_NOATIME, _MS_NODIRATIME, _MS_POSIXACL = 128, 1024, 2048, 1 << 16
_SETS = {
    "ro": _MS_RDONLY,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "sync": _MS_SYNC,
    "dirsync": _MS_DIRSYNC,
    "noatime": _MS_NOATIME,
    "nodiratime": _MS_NODIRATIME,
}
_CLEARS = {
    "suid": _MS_NOSUID,
    "dev": _MS_NODEV,
    "exec": _MS_NOEXEC,
    "async": _MS_SYNC,
    "atime": _MS_NOATIME,
}
_FUSE = ("default_permissions", "allow_other")  # what the kernel's FUSE itself understands
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def flags_of(options: Iterable[str], *, acl: bool) -> int:
    """mount(2)'s flags; as with libfuse neither setuid nor devices unless asked for."""
    flags = _MS_NOSUID | _MS_NODEV | (_MS_POSIXACL if acl else 0)
    for option in options:
        flags = (flags | _SETS.get(option, 0)) & ~_CLEARS.get(option, 0)
    return flags


class PremountedDevice:
    """A /dev/fuse that is mounted at `mountpoint`. `path` is what libfuse takes for it."""

    def __init__(self, mountpoint: Path, handshake: Handshake) -> None:
        self._mountpoint = mountpoint
        self.handshake = handshake
        self.path = f"/dev/fd/{handshake.number}"

    def unmount(self) -> None:
        """Detach, unless it is done already and something else may be mounted there. Before libfuse
        closes the device.
        """
        self.handshake.close()
        waiting = select.poll()
        # POLLERR comes unasked: there is no mount any more.
        waiting.register(self.handshake.number, 0)
        if not any(events & select.POLLERR for _, events in waiting.poll(0)):
            _libc.umount2(os.fsencode(self._mountpoint), _MNT_DETACH)


def premount(
    mountpoint: Path, source: str, options: Iterable[str], *, acl: bool
) -> PremountedDevice | None:
    """Mount as root. None where the kernel does not let us: the caller goes libfuse's way."""
    options = tuple(options)
    try:
        number = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        log.debug("/dev/fuse: %s", error)
        return None
    try:
        _mount(mountpoint, source, number, options, acl)
    except OSError as error:
        log.info("mounted by libfuse: %s", error)
        os.close(number)
        return None
    return PremountedDevice(mountpoint, Handshake(number))


def _mount(mountpoint: Path, source: str, number: int, options: tuple[str, ...], acl: bool) -> None:
    given = {
        "fd": number,
        "rootmode": f"{stat.S_IFMT(mountpoint.stat().st_mode):o}",
        "user_id": os.getuid(),
        "group_id": os.getgid(),
    }
    data = [f"{name}={value}" for name, value in given.items()]
    data += [name for name in _FUSE if name in options]
    arguments = (source, str(mountpoint), "fuse.filesfs")
    encoded = [os.fsencode(text) for text in arguments]
    flags = ctypes.c_ulong(flags_of(options, acl=acl))
    if _libc.mount(*encoded, flags, ",".join(data).encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(mountpoint))

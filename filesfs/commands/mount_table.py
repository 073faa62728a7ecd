"""The kernel's mount table: what is mounted where, what is dead, and taking a mount away.

It must not talk to a daemon: this is what the machine says, whoever mounted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from filesfs.errors import UsageError

MOUNT_FAILURE = 32  # the exit code of mount(8) and umount(8)
_TABLE = Path("/proc/self/mountinfo")
_TYPE = "fuse.filesfs"
_DEVICE = Path("/dev/fuse")
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Mounted:
    """One filesfs mount, as the kernel lists it."""

    source: str
    mountpoint: Path
    device: str  # major:minor, the same in every mount namespace


def filesfs_mounts(table: Path = _TABLE) -> list[Mounted]:
    """All mounts of filesfs that this process sees, in the order of mounting."""
    found = []
    for line in table.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        kind, source, *_ = right.split(" ")
        if kind == _TYPE:
            _, _, device, _, mountpoint, *_ = left.split(" ")
            found.append(Mounted(_unescape(source), Path(_unescape(mountpoint)), device))
    return found


def seen_elsewhere(device: str) -> list[int]:
    """One process of each other mount namespace that still has the mount, as far as we may look."""
    found: dict[str, int] = {os.readlink("/proc/self/ns/mnt"): 0}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in found:
                table = filesfs_mounts(Path(f"/proc/{pid}/mountinfo"))
                there = any(mounted.device == device for mounted in table)
                found[namespace] = pid if there else 0
    return sorted(pid for pid in found.values() if pid)


def find(mountpoint: Path) -> Mounted | None:
    """The filesfs mount on this very directory: the topmost, when there are several."""
    wanted = Path(os.path.abspath(mountpoint))
    here = [mounted for mounted in filesfs_mounts() if mounted.mountpoint == wanted]
    return here[-1] if here else None


def is_dead(mountpoint: Path) -> bool:
    """Whether the daemon of a mount here has died ("Transport endpoint is not connected").

    The kernel says so at once. A living daemon asks its server, which may take it a while.
    """
    found: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_probe, args=(mountpoint, found), daemon=True).start()
    try:
        return found.get(timeout=_PROBE_SECONDS) in (errno.ENOTCONN, errno.ECONNABORTED)
    except queue.Empty:
        return False


def _probe(mountpoint: Path, found: queue.SimpleQueue[int]) -> None:
    try:
        os.statvfs(mountpoint)  # stat(2) would be answered from the kernel's cache
        found.put(0)
    except OSError as error:
        found.put(error.errno or 0)


def check_mountpoint(mountpoint: Path) -> None:
    """Raises UsageError, with the remedy, unless something can be mounted here."""
    _check_device()
    if is_dead(mountpoint):
        raise _refuse(
            f"{mountpoint} holds a mount whose daemon has died:"
            f" filesfs umount --dead {mountpoint}, then mount again"
        )
    try:
        names = os.listdir(mountpoint)
    except FileNotFoundError:
        raise _refuse(f"{mountpoint} does not exist: mkdir -p {mountpoint}") from None
    except NotADirectoryError:
        raise _refuse(f"{mountpoint} is no directory: mount on one") from None
    except OSError as error:
        raise _refuse(f"cannot mount on {mountpoint}: {error.strerror}") from None
    if os.path.ismount(mountpoint):
        raise _refuse(
            f"{mountpoint} is in use, something is mounted there: filesfs umount {mountpoint},"
            " or choose another directory"
        )
    if names:
        raise _refuse(
            f"{mountpoint} is not empty ({len(names)} entries, which a mount would hide):"
            " choose an empty directory"
        )


def _check_device() -> None:
    if not _DEVICE.exists():
        raise _refuse(f"there is no {_DEVICE}: modprobe fuse, or give it to this container")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        mode = _DEVICE.stat().st_mode & 0o777
        raise _refuse(
            f"{_DEVICE} is not open to this user (mode {mode:04o}): chmod 666 {_DEVICE} as root,"
            " or mount as root"
        )


def detach(mountpoint: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Take the mount away. `lazy`: from the tree now, its open files end later. UsageError if not.

    `force` breaks what is under way.
    """
    if os.getuid() == 0:
        # -i: no helper, which would be us again.
        flags = ["-l"] * lazy + ["-f"] * force
        command = ["umount", "-i", *flags, str(mountpoint)]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy or force else []), str(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise _refuse(f"cannot unmount: there is no {command[0]}; install fuse3") from None
    if done.returncode:
        raise _refuse(_why(mountpoint, done.stderr))


def _why(mountpoint: Path, said: str) -> str:
    if "busy" in said:
        return (
            f"{mountpoint} is busy: a process has a file or its working directory in it"
            f" (fuser -vm {mountpoint} tells which); close it, or use --lazy"
        )
    return f"cannot unmount {mountpoint}: {said.strip() or 'unmounting failed'}"


def _refuse(message: str) -> UsageError:
    return UsageError(message, MOUNT_FAILURE)


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)

"""`filesfs mount`: in the foreground, or in a process of its own that tells when it is ready.

The process in the background is the same command in the foreground, with a pipe: it writes one
line into it, "ready" or "failed CODE MESSAGE". It must not read arguments or print.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from filesfs.commands.cache_folders import remove_unused
from filesfs.commands.logfiles import rotate
from filesfs.commands.mount_table import MOUNT_FAILURE, check_mountpoint
from filesfs.commands.records import record
from filesfs.config import MountSettings, Source, base_cache_dir
from filesfs.errors import AccessDenied, FilesfsError, Unavailable, UsageError

READY_VARIABLE = "FILESFS_READY_FD"
_READY_SECONDS = 120.0  # longer than the daemon's own deadlines together
_CONNECT_SECONDS = 10.0


def run_foreground(settings: MountSettings) -> int:
    """Mount and serve until unmounted; the exit code. Raises UsageError."""
    tell = _Teller(os.environ.pop(READY_VARIABLE, ""))
    try:
        _log_to_stderr(settings.log_level)
        _check(settings)
        _clear_up(settings)
        with record(settings):
            return _run_daemon(settings, tell.ready)
    except UsageError as error:
        tell.failed(error)
        raise


def run_background(settings: MountSettings, source: str, options: Sequence[str]) -> None:
    """Mount in a process of its own; returns when it answers. Raises UsageError when it cannot."""
    _check(settings)
    log = settings.cache_dir / "filesfs.log"
    process, ready = spawn(source, settings.mountpoint, options, log)
    try:
        wait_ready(process, ready, log)
    except BaseException:
        process.terminate()
        raise
    finally:
        os.close(ready)


def spawn(
    source: str, mountpoint: Path, options: Sequence[str], log: Path
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the mount's process; its pipe is for `wait_ready`, the caller closes it."""
    rotate(log)
    reading, writing = os.pipe()
    arguments = ["mount", "-f", source, str(mountpoint)]
    for text in options:
        arguments += ["-o", text]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "filesfs.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writing],
            env={**os.environ, READY_VARIABLE: str(writing)},
            start_new_session=True,  # Ctrl-C in this terminal is not for it
        )
    os.close(writing)
    return process, reading


def wait_ready(process: subprocess.Popen[bytes], ready: int, log: Path) -> None:
    """Until the mount answers. Raises UsageError with its reason when it does not."""
    if not select.select([ready], [], [], _READY_SECONDS)[0]:
        raise UsageError(f"the mount did not answer in {_READY_SECONDS:.0f} s; see {log}", 32)
    word, _, rest = os.read(ready, 65536).decode("utf-8", "replace").partition(" ")
    if word.strip() == "ready":
        return
    if word == "failed":
        code, _, message = rest.rstrip("\n").partition(" ")
        raise UsageError(message, int(code))
    code = str(process.wait(10))
    raise UsageError(f"the mount's process ended (exit code {code}); see {log}", MOUNT_FAILURE)


class _Teller:
    """The writing end of the pipe to whoever waits, if anybody does."""

    def __init__(self, descriptor: str) -> None:
        self._pipe = int(descriptor) if descriptor.isdigit() else None
        if self._pipe is not None:
            os.set_inheritable(self._pipe, False)

    def ready(self) -> None:
        self._tell("ready")

    def failed(self, error: UsageError) -> None:
        self._tell(f"failed {error.exit_code} {' '.join(str(error).split())}")

    def _tell(self, line: str) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(BrokenPipeError):  # whoever waited may have gone
            os.write(self._pipe, f"{line}\n".encode())
        os.close(self._pipe)
        self._pipe = None


def _run_daemon(settings: MountSettings, ready: Callable[[], None]) -> int:
    from filesfs import daemon  # only here: pyfuse3 and httpx take a while to load

    try:
        return daemon.run(settings, ready)
    except Exception as error:
        raise _as_usage_error(error, settings) from error


def _as_usage_error(error: BaseException, settings: MountSettings) -> BaseException:
    """What the user is told; the error itself when it is none that we know."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    source = settings.source
    if isinstance(error, Unavailable):
        return _unanswered(source, str(error))
    if isinstance(error, AccessDenied):
        return UsageError(
            f"the server at {source} refuses: {error}; give a token that may,"
            " with -o token_file=FILE",
            MOUNT_FAILURE,
        )
    if isinstance(error, FilesfsError) and not isinstance(error, UsageError):
        return UsageError(f"cannot mount {source}: {error}", MOUNT_FAILURE)
    return error


def _check(settings: MountSettings) -> None:
    check_mountpoint(settings.mountpoint)
    _check_address(settings.source)
    _make_cache_dir(settings.cache_dir)


def _clear_up(settings: MountSettings) -> None:
    """Old cache folders go meanwhile: a disk cache has many files."""
    arguments = (base_cache_dir(os.environ), settings.cache_dir)
    threading.Thread(target=remove_unused, args=arguments, daemon=True).start()


def _check_address(source: Source) -> None:
    """Nobody listens: said at once, where the daemon would try for as long as a call may take."""
    try:
        if source.socket is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_CONNECT_SECONDS)
                connection.connect(str(source.socket))
        else:
            socket.create_connection(source.address, _CONNECT_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise _unanswered(source, why) from None


def _unanswered(source: Source, why: str) -> UsageError:
    return UsageError(
        f"no server answers at {source}: {why}; is it running (filesfs serve),"
        " and is the address right?",
        MOUNT_FAILURE,
    )


def _make_cache_dir(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the cache folder {folder}: {error.strerror};"
            " choose another with -o cache_dir=DIR",
            MOUNT_FAILURE,
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to the cache folder {folder}", MOUNT_FAILURE)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # They write whole URLs, and those of other storage are signed: never, not at debug either.
    logging.getLogger("httpx").setLevel("WARNING")
    logging.getLogger("httpcore").setLevel("WARNING")

"""The daemon of one mount: puts the parts together, serves until unmounted or told to stop, drains,
unmounts.

Composition root: nothing is decided here but the order. pyfuse3's state is global, so a process has
one mount.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pyfuse3
import trio

from filesfs import control, notify, watchdog
from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.settings import BackendSettings
from filesfs.config import MountSettings
from filesfs.domain import Entry, Kind
from filesfs.errors import NotFound, Unavailable, UsageError
from filesfs.filesystem import Core, Filesystem, Rules
from filesfs.fuse import turns
from filesfs.fuse.awake import Awake
from filesfs.fuse.device import premount
from filesfs.fuse.kernel import KernelNotifier, cut_off
from filesfs.fuse.operations import Operations
from filesfs.read.blocks import BlockCache
from filesfs.read.disk import DiskBlocks
from filesfs.state.directories import DirectoryCache
from filesfs.state.inodes import InodeTable
from filesfs.state.names import NamePolicy
from filesfs.write.journal import Journal
from filesfs.write.upload import Uploader

log = logging.getLogger(__name__)

# Handlers wait for the server, and every waiting one holds a task; at pyfuse3's default of 99 a
# few stuck reads would stop forgets and flushes too.
_MAX_TASKS = 1000
_READAHEAD_KIB = 4096
# At a stop, for calls under way, for closed files, for those open for writing. What is not sent by
# then is in the journal if close() or fsync() answered for it; the rest may not hold up a shutdown.
_FINISH_SECONDS = 15.0
_DRAIN_SECONDS = 15.0
_LAST_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
# What an earlier mount left may be more than a mount command should wait for.
_EARLIER_SECONDS = 20.0


class _Stop:
    """SIGTERM and SIGINT unmount, after a drain; a second one does not wait."""

    def __init__(self) -> None:
        self.asked = False
        self.calls = trio.CancelScope()
        self.drain = trio.CancelScope()

    async def watch(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                log.info("%s: unmounting", signal.Signals(number).name)
                if self.asked:
                    self.calls.cancel()
                    self.drain.cancel()
                else:
                    self.asked = True
                    self.finish()
                    pyfuse3.terminate()

    def finish(self) -> None:
        """The calls that run have so long; one that waits for the server must not keep us."""
        deadline = trio.current_time() + _FINISH_SECONDS
        self.calls.deadline = min(self.calls.deadline, deadline)


def run(settings: MountSettings, ready: Callable[[], None]) -> int:
    """Mount, call `ready` once the mount answers, serve until it is unmounted. Returns the exit
    code.

    UsageError: what is wrong and what to do, in one line.
    """
    code: int = trio.run(_run, settings, ready)
    return code


async def _run(settings: MountSettings, ready: Callable[[], None]) -> int:
    backend = await connect_backend(_backend_settings(settings))
    try:
        root = await _root_entry(backend, settings)
        journal = Journal.open(settings.cache_dir, backend.server_id)
        try:
            async with trio.open_nursery() as nursery:
                core = _core(settings, backend, root, journal, nursery)
                await _serve(settings, core, ready)
                nursery.cancel_scope.cancel()
        finally:
            journal.close()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await backend.aclose()
    return 0


def _backend_settings(settings: MountSettings) -> BackendSettings:
    return BackendSettings(
        base_url=settings.source.url,
        unix_socket=settings.source.socket,
        token=settings.token,
        timeout=settings.timeout,
        own_changes=False,
        ca_file=settings.ca_file,
        client_cert=settings.cert_file,
        client_key=settings.key_file,
    )


async def _root_entry(backend: HttpBackend, settings: MountSettings) -> Entry:
    root = settings.source.root
    if not root.bucket:
        now = int(time.time())
        return Entry(root, Kind.DIRECTORY, 0, Kind.DIRECTORY.value, now, nlink=2)
    try:
        entry = await backend.stat(root)
    except NotFound as error:
        what = "directory" if root.key else "bucket"
        raise UsageError(
            f"{settings.source}: there is no {what} {str(root)!r} on this server; "
            f"mount the server's root and mkdir it there",
            32,
        ) from error
    if entry.kind is not Kind.DIRECTORY:
        raise UsageError(f"{settings.source}: {str(root)!r} is a file, not a directory", 32)
    return msgspec.structs.replace(entry, location=root)


def _core(
    settings: MountSettings,
    backend: HttpBackend,
    root: Entry,
    journal: Journal,
    nursery: trio.Nursery,
) -> Core:
    disk = None
    if settings.disk_cache:
        disk = DiskBlocks(settings.cache_dir / "blocks", settings.disk_cache)
        journal.spool.make_room = disk.give_way
    rules = Rules(
        root=settings.source.root,
        uid=settings.uid,
        gid=settings.gid,
        umask=settings.umask,
        names=NamePolicy(settings.names),
        read_only=settings.read_only,
        xattr=settings.xattr,
        conflict_fail=settings.conflict_fail,
        writeback=settings.writeback,
        exclusive=settings.exclusive,
        ttl=settings.attr_timeout,
    )
    return Core(
        rules=rules,
        backend=backend,
        inodes=InodeTable(root),
        directories=DirectoryCache(ttl=settings.entry_timeout),
        blocks=BlockCache(settings.cache_size, disk),
        uploader=Uploader(backend, nursery),
        spool=journal.spool,
        journal=journal,
        nursery=nursery,
        kernel=KernelNotifier(),
    )


async def _serve(settings: MountSettings, core: Core, ready: Callable[[], None]) -> None:
    filesystem = Filesystem(core)
    stop, awake = _Stop(), Awake.chosen(settings.low_latency)
    await _send_earlier(filesystem)
    mounted = _mounted(settings, filesystem, stop, awake)
    async with mounted as readable, trio.open_nursery() as nursery:
        nursery.start_soon(filesystem.coherence.run)
        nursery.start_soon(stop.watch)
        nursery.start_soon(awake.run)
        # Before the mount is announced: whoever waited for that may ask at once.
        await nursery.start(control.serve, settings.cache_dir, _commands(settings, filesystem))
        nursery.start_soon(_announce, settings.mountpoint, ready)
        gc.freeze()  # what is there stays: no collection has to look at it again
        with stop.calls:
            await turns.serve(_MAX_TASKS, readable)
        notify.stopping()
        with stop.drain:
            await _drain(filesystem)
        nursery.cancel_scope.cancel()


async def _drain(filesystem: Filesystem) -> None:
    with trio.move_on_after(_DRAIN_SECONDS):
        await filesystem.files.drain()
    with trio.move_on_after(_LAST_SECONDS):
        await filesystem.files.drain(written=True)
        await filesystem.coherence.end()


@asynccontextmanager
async def _mounted(
    settings: MountSettings, filesystem: Filesystem, stop: _Stop, awake: Awake
) -> AsyncIterator[turns.Readable]:
    source, options = str(settings.source), set(settings.fuse_options())
    device = premount(settings.mountpoint, source, options, acl=settings.acl)
    if settings.acl:
        filesystem.core.rules = replace(filesystem.core.rules, acl=device is not None)
    try:
        where = device.path if device else str(settings.mountpoint)
        pyfuse3.init(Operations(filesystem), where, options)
    except RuntimeError as error:
        if device:
            device.unmount()
        raise UsageError(
            f"cannot mount on {settings.mountpoint}: {error}; is it mounted already, "
            f"or is /dev/fuse not open to you? (see dmesg)",
            32,
        ) from error
    kernel, backend = filesystem.core.kernel, filesystem.core.backend
    assert isinstance(kernel, KernelNotifier)
    assert isinstance(backend, HttpBackend)
    kernel.start()
    try:
        step = device.handshake.step if device else None
        yield turns.Readable(stop.finish, step, backend.attend, awake.came)
    finally:
        kernel.stop()
        if stop.asked:
            cut_off(settings.mountpoint)
        if device:
            device.unmount()
        # libfuse detaches: a busy mount goes too, its open files answer ENOTCONN
        pyfuse3.close(unmount=True)


async def _announce(mountpoint: Path, ready: Callable[[], None]) -> None:
    """Ready means that the mount has answered. Afterwards the watchdog asks it again and again."""
    with trio.fail_after(_ANSWER_SECONDS):
        status = await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
    await trio.to_thread.run_sync(_raise_readahead, status.st_dev)
    ready()
    notify.ready()
    await watchdog.run(lambda: watchdog.session_answers(mountpoint))


def _raise_readahead(device: int) -> None:
    """128 KiB of kernel readahead starve a sequential reader; more is root's to give."""
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    with suppress(OSError):
        path.write_text(str(_READAHEAD_KIB))


async def _send_earlier(filesystem: Filesystem) -> None:
    """What an earlier mount could not bring up is on the server before anybody looks; for a while,
    then it goes on in the background.
    """
    backlog, journal = filesystem.files.commits.backlog, filesystem.core.journal
    if len(journal):
        log.warning("%d changes of an earlier mount go up now", len(journal))
    with trio.move_on_after(_EARLIER_SECONDS):
        try:
            await backlog.send_all()
        except Unavailable as error:
            log.warning("the changes of an earlier mount wait: %s", error)
    backlog.wake()


def _commands(settings: MountSettings, filesystem: Filesystem) -> Mapping[str, control.Answer]:
    started = time.time()

    async def status() -> dict[str, Any]:
        core = filesystem.core
        return {
            "source": str(settings.source),
            "mountpoint": str(settings.mountpoint),
            "pid": os.getpid(),
            "uptime_seconds": round(time.time() - started),
            "feed": core.directories.feed,
            "leased_files": len(core.leases),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "inodes": len(core.inodes),
            "open_files": len(filesystem.files.handles),
            "cached_bytes": core.blocks.used_bytes,
            "unsent_files": filesystem.files.unsent(),
            "journal_records": len(core.journal),
            "conflict_copies": filesystem.files.commits.backlog.conflicts,
            "extensions": sorted(core.backend.extensions),
        }

    async def drain() -> dict[str, Any]:
        await filesystem.files.drain()
        return {"unsent_files": filesystem.files.unsent(closed=True)}

    return {"status": status, "drain": drain}

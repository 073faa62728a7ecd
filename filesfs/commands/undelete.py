"""`filesfs undelete`: what a server keeps of deleted and replaced files, listed or brought back.

It must not talk HTTP itself, and changes nothing unless told to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import trio

from filesfs.backend.kept import KeptFiles, connected
from filesfs.commands import mount_table
from filesfs.config import MountSettings, Source, load
from filesfs.domain import Location
from filesfs.errors import FilesfsError, FileSystemError, PreconditionFailed, UsageError
from filesfs.state import names
from filesfs.wire import DeletedFile

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done with what is kept below `place`.

    `version`: only this ETag. `to`: the name to bring one file back under. `overwrite`: also what
    is there goes; with it earlier contents of files that exist are taken, too.
    """

    place: str
    options: Sequence[str] = ()
    version: str = ""
    to: str = ""
    overwrite: bool = False


def collect(wish: Wish) -> list[DeletedFile]:
    """What is kept there, by name, the latest last. Raises UsageError."""
    return _run(wish, _found)


def restore(wish: Wish, say: Say) -> bool:
    """Bring back the latest version of each file; whether all of them came. Raises UsageError."""

    async def restore_all(kept: KeptFiles, place: Location) -> bool:
        chosen = _latest(await _found(kept, place), wish, place)
        target = _destination(wish, place) if wish.to else None
        if target and len(chosen) > 1:
            raise UsageError(f"--to names one file, and {len(chosen)} are kept below {wish.place}")
        done = [await _restored(kept, one, target, wish.overwrite, say) for one in chosen]
        return all(done)

    return _run(wish, restore_all)


def purge(wish: Wish) -> int:
    """Give up what is kept there; how many versions. Raises UsageError."""

    async def purge_all(kept: KeptFiles, place: Location) -> int:
        found = [one for one in await _found(kept, place) if _is_wanted(one, wish)]
        for one in found:
            await kept.purge(one)
        return len(found)

    return _run(wish, purge_all)


def line(one: DeletedFile) -> str:
    """For people: when, how large, by whom, the version, the name."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.deleted_at))
    what = "replaced" if one.replaced else "deleted"
    by = one.deleted_by or "-"
    return f"{when}  {what:8}  {one.bytes:>12}  {by:12}  {one.etag.strip(chr(34))}  {shown(one)}"


def shown(one: DeletedFile) -> str:
    """The name as the mount shows it; what it does not show, as the API does."""
    bucket = names.bucket_from_wire(one.bucket)
    parts = [names.from_wire(part) for part in one.key.split("/")]
    if bucket is None or None in parts:
        return f"{one.bucket}/{one.key}"
    return os.fsdecode(b"/".join([bucket, *(part for part in parts if part is not None)]))


async def _found(kept: KeptFiles, place: Location) -> list[DeletedFile]:
    buckets = [place.bucket] if place.bucket else [b.name for b in await kept.buckets()]
    return [
        one
        for bucket in buckets
        async for one in kept.files(bucket, place.key)
        if not place.key or one.key == place.key or one.key.startswith(f"{place.key}/")
    ]


def _latest(found: Sequence[DeletedFile], wish: Wish, place: Location) -> list[DeletedFile]:
    """The last version of each name. Below a directory only of what is gone, unless told."""
    latest: dict[tuple[str, str], DeletedFile] = {}
    for one in found:
        before = latest.get((one.bucket, one.key))
        later = before is None or one.deleted_at >= before.deleted_at
        if _is_wanted(one, wish) and later:
            latest[one.bucket, one.key] = one
    named = bool(wish.version) or wish.overwrite
    chosen = [one for one in latest.values() if named or one.key == place.key or not one.replaced]
    if not chosen:
        raise UsageError(f"nothing that was deleted is kept below {wish.place}", 1)
    return chosen


def _is_wanted(one: DeletedFile, wish: Wish) -> bool:
    return not wish.version or one.etag.strip('"') == wish.version.strip('"')


async def _restored(
    kept: KeptFiles, one: DeletedFile, target: Location | None, overwrite: bool, say: Say
) -> bool:
    place = target or Location(one.bucket, one.key)
    try:
        await kept.restore(one, place, overwrite=overwrite)
    except PreconditionFailed:
        say(f"not restored: {place.bucket}/{place.key} exists; --to another name, or --overwrite")
        return False
    except FilesfsError as error:
        say(f"not restored: {shown(one)}: {error}")
        return False
    say(f"restored: {shown(one)}" + (f" as {place.bucket}/{place.key}" if target else ""))
    return True


def _destination(wish: Wish, place: Location) -> Location:
    """`--to`: a path below a mount, or a key of the same bucket."""
    if wish.to.startswith("/"):
        return _below_mount(Path(wish.to))[1]
    if not place.bucket:
        raise UsageError("--to needs a bucket: name one in SOURCE")
    return Location(place.bucket, _key(wish.to))


def _run(wish: Wish, act: Callable[[KeptFiles, Location], Awaitable[T]]) -> T:
    settings = _settings(wish)

    async def connected_act() -> T:
        async with connected(settings.backend_settings()) as kept:
            return await act(kept, settings.source.root)

    try:
        return trio.run(connected_act)
    except UsageError:
        raise
    except FilesfsError as error:
        raise UsageError(f"{settings.source}: {error}", 1) from None


def _settings(wish: Wish) -> MountSettings:
    """What to connect to. The options are those of `mount`; the mount point does not matter."""
    if "://" in wish.place or wish.place.startswith("unix:"):
        return load(wish.place, Path("/"), wish.options)
    source, place = _below_mount(Path(os.path.abspath(wish.place)))
    settings = load(source, Path("/"), wish.options)
    return replace(settings, source=replace(settings.source, root=place))


def _below_mount(path: Path) -> tuple[str, Location]:
    """A path in a mount: its source, and where the path is on that server."""
    found = [m for m in mount_table.filesfs_mounts() if path.is_relative_to(m.mountpoint)]
    if not found:
        raise UsageError(f"{path} is in no filesfs mount; name a path in one, or a source as mount")
    mounted = max(found, key=lambda one: len(one.mountpoint.parts))
    place = Source.parse(mounted.source).root
    for name in path.relative_to(mounted.mountpoint).parts:
        place = place.child(_segment(name, is_bucket=not place.bucket))
    return mounted.source, place


def _segment(name: str, *, is_bucket: bool) -> str:
    encode = names.bucket_to_wire if is_bucket else names.to_wire
    try:
        return encode(os.fsencode(name))
    except FileSystemError as error:
        raise UsageError(f"{name!r} is no name that could be kept: {error}") from None


def _key(text: str) -> str:
    return "/".join(_segment(part, is_bucket=False) for part in text.split("/") if part)

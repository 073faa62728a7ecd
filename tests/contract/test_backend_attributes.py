"""FilesBackend's attributes, links, usage and change feed: the same cases on every backend."""

from __future__ import annotations

import pytest

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Kind, Location
from filesfs.errors import (
    Conflict,
    Unsupported,
)
from tests.contract.test_backend import NONE, is_plain, put

pytestmark = pytest.mark.trio


# -- attributes, links, feed ---------------------------------------------------------------------
async def test_attributes(backend: FilesBackend, bucket: str) -> None:
    location = Location(bucket, "d/f")
    entry = await put(backend, location)
    change = AttributeChange(0o640, 7, 8, 1_000_000_001, 2_000_000_002, {"user.a": b"\xff"})
    if is_plain(backend):
        with pytest.raises(Unsupported):
            await backend.set_attributes(location, Kind.FILE, change)
        return
    after = await backend.set_attributes(location, Kind.FILE, change)
    found = after.attributes
    assert (found.mode, found.uid, found.gid) == (0o640, 7, 8)
    assert (found.modified_ns, found.accessed_ns) == (1_000_000_001, 2_000_000_002)
    assert found.xattrs == {"user.a": b"\xff"}
    assert after.etag == entry.etag
    removed = AttributeChange(xattrs={"user.a": None})
    after = await backend.set_attributes(location, Kind.FILE, removed)
    assert after.attributes.xattrs == {}
    for directory in (Location(bucket, "d"), Location(bucket)):
        seen = await backend.set_attributes(directory, Kind.DIRECTORY, AttributeChange(mode=0o700))
        assert seen.attributes.mode == 0o700
        assert (await backend.stat(directory)).attributes.mode == 0o700


async def test_hard_links(backend: FilesBackend, bucket: str) -> None:
    one, other = Location(bucket, "one"), Location(bucket, "d/other")
    entry = await put(backend, one)
    if is_plain(backend):
        with pytest.raises(Unsupported):
            await backend.link(one, other)
        return
    linked = await backend.link(one, other)
    assert (linked.location, linked.resource_id, linked.nlink) == (other, entry.resource_id, 2)
    with pytest.raises(Conflict):
        await backend.link(one, other)


async def test_symbolic_links(backend: FilesBackend, bucket: str) -> None:
    location = Location(bucket, "l")
    if is_plain(backend):
        with pytest.raises(Unsupported):
            await backend.put(location, b"to", "", NONE, kind=Kind.SYMLINK)
        return
    entry = await backend.put(location, b"to", "", NONE, only_new=True, kind=Kind.SYMLINK)
    assert entry.kind is Kind.SYMLINK
    assert (await backend.read_whole(location, 100))[1] == b"to"


async def test_usage(backend: FilesBackend) -> None:
    if is_plain(backend):
        with pytest.raises(Unsupported):
            await backend.usage()
        return
    usage = await backend.usage()
    assert 0 < usage.free_bytes <= usage.total_bytes


async def test_own_changes_come_over_the_feed(backend: FilesBackend, bucket: str) -> None:
    if is_plain(backend):
        with pytest.raises(Unsupported):
            backend.changes()
        return
    location = Location(bucket, "d/f")
    async with backend.changes() as changes:
        entry = await put(backend, location)
        while True:
            change = await anext(changes)
            if location in change.locations:
                break
        assert change.own
        assert change.etag == entry.etag
        await backend.move(Location(bucket, "d"), Location(bucket, "e"), Kind.DIRECTORY)
        change = await anext(changes)
        assert change.locations == (Location(bucket, "d"), Location(bucket, "e"))


async def test_a_type_that_no_header_can_hold(backend: FilesBackend, bucket: str) -> None:
    location = Location(bucket, "f")
    for mime_type in ("text/文", "text/ü"):  # another client may have given it
        await backend.put(location, b"content", mime_type, NONE)
        entry = await backend.stat(location)
        assert (entry.mime_type, entry.size) == (mime_type, 7)

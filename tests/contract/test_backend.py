"""One set of cases for every FilesBackend; what a plain server cannot do is said at each case."""

from __future__ import annotations

import contextlib
import os

import pytest

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Entry, Kind, Location
from filesfs.errors import (
    Conflict,
    Gone,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    RequestError,
    Stale,
    Unsupported,
)
from filesfs.wire import Extension

pytestmark = pytest.mark.trio
NONE = AttributeChange()
TEXT = "text/plain"


def is_plain(backend: FilesBackend) -> bool:
    return not backend.extensions


async def put(backend: FilesBackend, location: Location, data: bytes = b"hello") -> Entry:
    return await backend.put(location, data, TEXT, NONE)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.location.name for entry in entries]


# -- names ---------------------------------------------------------------------------------------
async def test_the_root_lists_buckets(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    listing = await backend.list_directory(Location(""))
    entry = next(each for each in listing.entries if each.location == Location(bucket))
    assert entry.kind is Kind.DIRECTORY
    assert (await backend.stat(Location(bucket))).location == Location(bucket)


async def test_a_bucket_made_twice_exists(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    with pytest.raises(Conflict) as caught:
        await backend.make_directory(Location(bucket), NONE)
    assert caught.value.reason == "exists"


async def test_missing_names_are_not_found(backend: FilesBackend, bucket: str) -> None:
    with pytest.raises(NotFound):
        await backend.stat(Location(bucket))
    with pytest.raises(NotFound):
        await backend.list_directory(Location(bucket))
    await backend.make_directory(Location(bucket), NONE)
    for call in (backend.stat, backend.list_directory):
        with pytest.raises(NotFound):
            await call(Location(bucket, "missing"))


async def test_a_listing_shows_one_level_in_order(backend: FilesBackend, bucket: str) -> None:
    for key in ("b", "a/x", "a/y/z", "a.b", "c/d"):
        await put(backend, Location(bucket, key))
    listing = await backend.list_directory(Location(bucket))
    assert names(listing.entries) == ["a", "a.b", "b", "c"]
    assert [entry.kind is Kind.DIRECTORY for entry in listing.entries] == [True, False, False, True]
    assert names((await backend.list_directory(Location(bucket, "a"))).entries) == ["x", "y"]


async def test_a_listing_tells_what_stat_does(backend: FilesBackend, bucket: str) -> None:
    """To the last field, however it came."""
    await put(backend, Location(bucket, "d/file"))
    await put(backend, Location(bucket, "d/implied/f"))
    if not is_plain(backend):
        await backend.make_directory(Location(bucket, "d/empty"), NONE)
        kind, where = Kind.SYMLINK, Location(bucket, "d/link")
        await backend.put(where, b"target", kind.value, NONE, kind=kind)
        times = {"modified_ns": -5, "accessed_ns": 2**62}
        change = AttributeChange(mode=0o640, uid=7, gid=8, xattrs={"user.a": b"\xff"}, **times)
        await backend.set_attributes(Location(bucket, "d/file"), Kind.FILE, change)
        await backend.link(Location(bucket, "d/file"), Location(bucket, "d/other"))
    listing = await backend.list_directory(Location(bucket, "d"))
    assert list(listing.at_rest) == sorted(listing.at_rest)
    for entry in listing.entries:
        assert entry == await backend.stat(entry.location)


async def test_a_small_directory_may_come_with_what_is_in_it(
    backend: FilesBackend, bucket: str
) -> None:
    for key in ("d/b", "d/a/x", "d/a.b"):
        await put(backend, Location(bucket, key))
    for key in ("d", "d/b", "d/a"):
        entry, listing = await backend.look_up(Location(bucket, key))
        assert entry == await backend.stat(Location(bucket, key))
        if listing is not None:
            told = await backend.list_directory(Location(bucket, key))
            assert (listing.location, dict(listing.at_rest)) == (told.location, dict(told.at_rest))
            assert list(listing.at_rest) == list(told.at_rest)
        ours = hasattr(backend, "server_id") and not is_plain(backend)
        assert (listing is not None) == (ours and key != "d/b")
    with pytest.raises(NotFound):
        await backend.look_up(Location(bucket, "d/c"))


async def test_a_walk_brings_the_listings_that_it_comes_to_next(
    backend: FilesBackend, bucket: str
) -> None:
    for key in ("d/a/x", "d/b/c/x", "d/b/x", "e/x", "f/1", "f/2"):
        await put(backend, Location(bucket, key))
    with contextlib.suppress(Unsupported):  # a plain server has none
        await backend.link(Location(bucket, "f/1"), Location(bucket, "f/3"))
    ours = not is_plain(backend)
    for key, levels, keys in (
        ("", 0, ["d", "d/a", "d/b", "d/b/c", "e"]), ("d/a", 1, ["d/b", "d/b/c"]),
        ("d/a", 9, ["d/b", "d/b/c", "e"]), ("d/b/c", 2, []), ("d/b/c", 3, ["e"]),
    ):  # fmt: skip
        where = Location(bucket, key)
        listing, behind = await backend.list_walk(where, levels, 1000)
        assert dict(listing.at_rest) == dict((await backend.list_directory(where)).at_rest)
        assert [each.location.key for each in behind] == (keys if ours else [])
        for each in behind:
            alone = await backend.list_directory(each.location)
            assert list(each.at_rest.items()) == list(alone.at_rest.items())
            assert each.resource_id == (await backend.stat(each.location)).resource_id
            assert (each.cursor, alone.cursor) == (listing.cursor, listing.cursor)
    assert (await backend.list_walk(Location(bucket), 0, 9))[1] == []


async def test_an_empty_bucket_lists_nothing(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    assert (await backend.list_directory(Location(bucket))).entries == ()


async def test_stat_of_files_and_directories(backend: FilesBackend, bucket: str) -> None:
    await put(backend, Location(bucket, "d/f"))
    entry = await backend.stat(Location(bucket, "d/f"))
    assert (entry.kind, entry.size, entry.mime_type) == (Kind.FILE, 5, TEXT)
    assert (await backend.stat(Location(bucket, "d"))).kind is Kind.DIRECTORY


async def test_a_file_does_not_list(backend: FilesBackend, bucket: str) -> None:
    await put(backend, Location(bucket, "f"))
    with pytest.raises(RequestError):
        await backend.list_directory(Location(bucket, "f"))


@pytest.mark.parametrize("key", ["..", "a/../b", "a//b", "./a", "a/.", "sp ace", "per%63ent", "/a"])
async def test_bad_keys_never_leave(backend: FilesBackend, bucket: str, key: str) -> None:
    if not hasattr(backend, "server_id"):
        pytest.skip("the fake in memory takes any key")
    for call in (backend.stat, backend.list_directory):
        with pytest.raises(InvalidRequest):
            await call(Location(bucket, key))
    with pytest.raises(InvalidRequest):
        await put(backend, Location(bucket, key))


# -- content -------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
async def test_what_was_put_is_read(backend: FilesBackend, bucket: str, size: int) -> None:
    data = os.urandom(size)
    entry = await put(backend, Location(bucket, "f"), data)
    assert entry.size == size
    assert await backend.read(entry, 0, size) == data
    assert await backend.read(entry, size // 3, 1000) == data[size // 3 : size // 3 + 1000]
    assert await backend.read(entry, size, 10) == b""
    assert await backend.read(entry, max(size - 3, 0), 10) == data[max(size - 3, 0) :]


async def test_read_whole(backend: FilesBackend, bucket: str) -> None:
    put_entry = await put(backend, Location(bucket, "f"))
    entry, content, _ = await backend.read_whole(Location(bucket, "f"), 100)
    assert (entry.location, content) == (put_entry.location, b"hello")
    assert (await backend.read_whole(Location(bucket, "f"), 4))[1] is None
    if not is_plain(backend):
        assert (await backend.read_whole(Location(bucket, "f"), 100, entry))[1] is None


async def test_only_new(backend: FilesBackend, bucket: str) -> None:
    location = Location(bucket, "f")
    await backend.put(location, b"1", TEXT, NONE, only_new=True)
    with pytest.raises(PreconditionFailed):
        await backend.put(location, b"2", TEXT, NONE, only_new=True)
    assert (await backend.read_whole(location, 10))[1] == b"1"


async def test_if_match(backend: FilesBackend, bucket: str) -> None:
    if is_plain(backend):
        pytest.skip("a plain server has no versions")
    location = Location(bucket, "f")
    first = await put(backend, location, b"1")
    await backend.put(location, b"2", TEXT, NONE, if_match=first.etag)
    with pytest.raises(PreconditionFailed):
        await backend.put(location, b"3", TEXT, NONE, if_match=first.etag)


async def test_a_version_stays_readable(backend: FilesBackend, bucket: str) -> None:
    location = Location(bucket, "f")
    old = await put(backend, location, b"old content")
    await put(backend, location, b"new")
    if is_plain(backend):
        with pytest.raises(Stale):
            await backend.read(old, 0, 11)
    else:
        assert await backend.read(old, 0, 11) == b"old content"


async def test_a_file_in_the_way(backend: FilesBackend, bucket: str) -> None:
    await put(backend, Location(bucket, "a/b"))
    with pytest.raises(Conflict):
        await put(backend, Location(bucket, "a"))
    with pytest.raises(Conflict):
        await put(backend, Location(bucket, "a/b/c"))


async def test_a_put_follows_its_resource(backend: FilesBackend, bucket: str) -> None:
    if is_plain(backend):
        pytest.skip("a plain server has no resources")
    old, new = Location(bucket, "old"), Location(bucket, "new")
    entry = await put(backend, old)
    await backend.move(old, new, Kind.FILE)
    await backend.put(old, b"later", TEXT, NONE, resource_id=entry.resource_id)
    assert (await backend.read_whole(new, 100))[1] == b"later"
    with pytest.raises(NotFound):
        await backend.stat(old)
    await backend.remove(new, Kind.FILE)
    with pytest.raises(Gone):
        await backend.put(old, b"last", TEXT, NONE, resource_id=entry.resource_id)


# -- uploads -------------------------------------------------------------------------------------
async def test_an_upload_in_parts(backend: FilesBackend, bucket: str) -> None:
    data = os.urandom(3_000_000)
    session = await backend.open_upload(Location(bucket, "f"), TEXT, NONE, size=len(data))
    assert await session.send(data[:1_000_000]) is None
    assert session.offset == 1_000_000
    assert await session.send(memoryview(data)[1_000_000:2_000_000]) is None
    entry = await session.send(data[2_000_000:], final=True)
    assert entry is not None
    assert entry.size == len(data)
    assert await backend.read(entry, 0, len(data)) == data


@pytest.mark.parametrize("last", [b"", b"end"])
async def test_an_upload_of_unknown_length(backend: FilesBackend, bucket: str, last: bytes) -> None:
    if Extension.DEFER_LENGTH not in backend.extensions:
        with pytest.raises(Unsupported):
            await backend.open_upload(Location(bucket, "f"), TEXT, NONE)
        return
    session = await backend.open_upload(Location(bucket, "f"), TEXT, NONE)
    await session.send(b"begin")
    entry = await session.send(last, final=True)
    assert entry is not None
    assert await backend.read(entry, 0, 100) == b"begin" + last


async def test_a_cancelled_upload_leaves_nothing(backend: FilesBackend, bucket: str) -> None:
    session = await backend.open_upload(Location(bucket, "f"), TEXT, NONE, size=10)
    await session.send(b"12345")
    await session.cancel()
    with pytest.raises(NotFound):
        await backend.stat(Location(bucket, "f"))


async def test_an_upload_with_attributes(backend: FilesBackend, bucket: str) -> None:
    if is_plain(backend):
        pytest.skip("a plain server keeps no attributes")
    change = AttributeChange(mode=0o600, xattrs={"user.x": b"\0" * 8000})
    session = await backend.open_upload(Location(bucket, "f"), TEXT, change, size=2)
    entry = await session.send(b"ab", final=True)
    assert entry is not None
    assert entry.attributes.mode == 0o600
    large = await backend.put(Location(bucket, "g"), b"ab", TEXT, change)
    assert large.attributes.xattrs == {"user.x": b"\0" * 8000}


async def test_an_upload_from_a_base(backend: FilesBackend, bucket: str) -> None:
    if Extension.RANGES_UPLOAD not in backend.extensions:
        pytest.skip("no partial uploads here")
    entry = await put(backend, Location(bucket, "f"), b"0123456789")
    session = await backend.open_upload(Location(bucket, "f"), TEXT, NONE, base=entry.etag)
    await session.copy_base(4)
    await session.send(b"xx")
    await session.copy_base(4)
    entry = await session.send(b"", final=True) or entry
    assert await backend.read(entry, 0, 100) == b"0123xx6789"


async def test_a_long_copy_is_several_requests(
    backend: FilesBackend, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Extension.RANGES_UPLOAD not in backend.extensions:
        pytest.skip("no partial uploads here")
    monkeypatch.setattr("filesfs.backend.sessions.COPY_AT_MOST", 3)
    entry = await put(backend, Location(bucket, "f"), b"0123456789")
    session = await backend.open_upload(Location(bucket, "f"), TEXT, NONE, base=entry.etag)
    await session.copy_base(10)
    assert session.offset == 10
    entry = await session.send(b"x", final=True) or entry
    assert await backend.read(entry, 0, 100) == b"0123456789x"


# -- changes of names ----------------------------------------------------------------------------
async def test_directories(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    entry = await backend.make_directory(Location(bucket, "d"), NONE)
    assert (entry.kind, entry.location) == (Kind.DIRECTORY, Location(bucket, "d"))
    with pytest.raises(Conflict) as caught:
        await backend.make_directory(Location(bucket, "d"), NONE)
    assert caught.value.reason == "exists"
    assert names((await backend.list_directory(Location(bucket))).entries) == ["d"]
    assert (await backend.list_directory(Location(bucket, "d"))).entries == ()
    await put(backend, Location(bucket, "d/f"))
    with pytest.raises(Conflict) as caught:
        await backend.remove(Location(bucket, "d"), Kind.DIRECTORY)
    assert caught.value.reason == "not-empty"
    await backend.remove(Location(bucket, "d/f"), Kind.FILE)
    await backend.remove(Location(bucket, "d"), Kind.DIRECTORY)
    with pytest.raises(NotFound):
        await backend.stat(Location(bucket, "d"))


async def test_a_directory_outlives_its_last_file(backend: FilesBackend, bucket: str) -> None:
    await put(backend, Location(bucket, "d/f"))
    await backend.remove(Location(bucket, "d/f"), Kind.FILE)
    assert (await backend.stat(Location(bucket, "d"))).kind is Kind.DIRECTORY
    assert (await backend.list_directory(Location(bucket, "d"))).entries == ()


async def test_remove_what_is_missing(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    with pytest.raises(NotFound):
        await backend.remove(Location(bucket, "f"), Kind.FILE)


async def test_an_empty_bucket_is_removed(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    if is_plain(backend):
        with pytest.raises(Unsupported):
            await backend.remove(Location(bucket), Kind.DIRECTORY)
        return
    await backend.remove(Location(bucket), Kind.DIRECTORY)
    with pytest.raises(NotFound):
        await backend.stat(Location(bucket))


async def test_move_a_file(backend: FilesBackend, bucket: str) -> None:
    source, target = Location(bucket, "d/s"), Location(bucket, "e/t")
    await put(backend, source, b"moved")
    await put(backend, target, b"replaced")
    with pytest.raises(PreconditionFailed):
        await backend.move(source, target, Kind.FILE, overwrite=False)
    await backend.move(source, target, Kind.FILE)
    assert (await backend.read_whole(target, 100))[1] == b"moved"
    with pytest.raises(NotFound):
        await backend.stat(source)
    assert (await backend.stat(Location(bucket, "d"))).kind is Kind.DIRECTORY


async def test_move_a_directory(backend: FilesBackend, bucket: str) -> None:
    await put(backend, Location(bucket, "d/f"))
    await put(backend, Location(bucket, "d/e/g"))
    await backend.make_directory(Location(bucket, "d/empty"), NONE)
    await put(backend, Location(bucket, "full/x"))
    with pytest.raises(Conflict):
        await backend.move(Location(bucket, "d"), Location(bucket, "full"), Kind.DIRECTORY)
    await backend.move(Location(bucket, "d"), Location(bucket, "m"), Kind.DIRECTORY)
    assert names((await backend.list_directory(Location(bucket, "m"))).entries) == [
        "e",
        "empty",
        "f",
    ]
    with pytest.raises(NotFound):
        await backend.stat(Location(bucket, "d"))


async def test_move_what_is_missing(backend: FilesBackend, bucket: str) -> None:
    await backend.make_directory(Location(bucket), NONE)
    with pytest.raises(NotFound):
        await backend.move(Location(bucket, "a"), Location(bucket, "b"), Kind.FILE)


async def test_exchange(backend: FilesBackend, bucket: str) -> None:
    one, other = Location(bucket, "one"), Location(bucket, "other")
    await put(backend, one, b"1")
    await put(backend, Location(bucket, "other/in"), b"2")
    if is_plain(backend):
        with pytest.raises(Unsupported):
            await backend.move(one, other, Kind.FILE, exchange=True)
        return
    await backend.move(one, other, Kind.FILE, exchange=True)
    assert (await backend.read_whole(other, 10))[1] == b"1"
    assert (await backend.read_whole(Location(bucket, "one/in"), 10))[1] == b"2"

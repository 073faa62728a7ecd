"""The backend over a network that breaks: every acknowledged effect happens, once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.paths import Targets
from filesfs.backend.requester import Requester
from filesfs.backend.rich import RichDialect
from filesfs.backend.settings import BackendSettings
from filesfs.domain import AttributeChange, Kind, Location
from filesfs.errors import (
    AccessDenied,
    Conflict,
    Corrupted,
    DeadlineExceeded,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from filesfs.wire import Extension
from tests.fakes.plain_server import PlainServer
from tests.fakes.proxy import (
    AnswerStatus,
    Corrupt,
    DropAnswer,
    Duplicate,
    Fault,
    FaultProxy,
    Refuse,
    Reset,
    Rule,
    Stall,
    Truncate,
)

pytestmark = pytest.mark.trio
NONE = AttributeChange()
TEXT = "text/plain"
MIB = 1 << 20
LONG = 3 * MIB + 7
BIG = 3 * 1024 * 1024


@pytest.fixture(params=["plain", "server"])
def proxy(request: pytest.FixtureRequest) -> Iterator[FaultProxy]:
    """In front of a plain server, and of ours."""
    plain = request.getfixturevalue("plain_server") if request.param == "plain" else None
    url = plain.url if plain is not None else request.getfixturevalue("server_url")
    with FaultProxy.to(url) as proxy:
        if plain is not None:
            plain.url = proxy.url  # so that what it hands out comes through the proxy too
        yield proxy


@pytest.fixture
def rich_proxy(server_url: str) -> Iterator[FaultProxy]:
    with FaultProxy.to(server_url) as proxy:
        yield proxy


async def through(proxy: FaultProxy, seconds: float) -> HttpBackend:
    return await connect_backend(BackendSettings(base_url=proxy.url, timeout=seconds))


@pytest.fixture
async def backend(proxy: FaultProxy) -> AsyncIterator[HttpBackend]:
    backend = await through(proxy, 6)
    yield backend
    await backend.aclose()


@pytest.fixture
async def rich(rich_proxy: FaultProxy) -> AsyncIterator[HttpBackend]:
    backend = await through(rich_proxy, 6)
    yield backend
    await backend.aclose()


FAULTS: list[Fault] = [
    Refuse(),
    Reset(),
    Reset(after=30),
    Reset(after=20, request=True),
    Truncate(after=250),
    DropAnswer(),
    Duplicate(),
    AnswerStatus(503, (("Retry-After", "0"),)),
    AnswerStatus(429),
    AnswerStatus(502, body=b"<html>bad gateway</html>"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
async def test_everything_survives_any_single_fault(
    backend: HttpBackend, proxy: FaultProxy, bucket: str, fault: Fault
) -> None:
    location, moved = Location(bucket, "d/f"), Location(bucket, "d/g")
    # Whoever repeats a DELETE unasked makes its answer untrue: no client can know.
    methods = ("GET", "POST", "PUT", "PATCH", "HEAD", "DELETE", "MOVE")
    for method in methods[: 5 if isinstance(fault, Duplicate) else 7]:
        proxy.add(Rule(fault, method))
    await backend.make_directory(Location(bucket), NONE)
    await backend.put(location, b"content", TEXT, NONE)
    assert (await backend.read_whole(location, 100))[1] == b"content"
    await backend.move(location, moved, Kind.FILE)
    if Extension.PATCH in backend.extensions:
        await backend.set_attributes(moved, Kind.FILE, AttributeChange(mode=0o600))
    listing = await backend.list_directory(Location(bucket, "d"))
    assert [entry.location for entry in listing.entries] == [moved]
    await backend.remove(moved, Kind.FILE)
    with pytest.raises(NotFound):
        await backend.stat(moved)


@pytest.mark.parametrize("fault", [Reset(after=1_000_000), Truncate(after=200_000)], ids=repr)
async def test_a_broken_read_is_read_again(
    backend: HttpBackend, proxy: FaultProxy, bucket: str, fault: Fault
) -> None:
    data = os.urandom(BIG)
    entry = await backend.put(Location(bucket, "f"), data, TEXT, NONE)
    proxy.add(Rule(fault, "GET", times=2))
    assert await backend.read(entry, 0, BIG) == data


async def test_a_stalled_read_is_read_again(proxy: FaultProxy, bucket: str) -> None:
    backend = await through(proxy, 3)
    data = os.urandom(BIG)
    entry = await backend.put(Location(bucket, "f"), data, TEXT, NONE)
    proxy.add(Rule(Stall(after=100_000), "GET"))
    assert await backend.read(entry, 0, BIG) == data
    await backend.aclose()


@pytest.mark.parametrize("size", [1000, BIG])
async def test_a_cancelled_read_harms_nothing(
    backend: HttpBackend, proxy: FaultProxy, bucket: str, size: int
) -> None:
    data = os.urandom(size)
    entry = await backend.put(Location(bucket, "f"), data, TEXT, NONE)
    proxy.add(Rule(Stall(after=100), "GET"))
    with trio.move_on_after(0.2) as scope:
        await backend.read(entry, 0, size)
    assert scope.cancelled_caught
    assert await backend.read(entry, 0, size) == data


@pytest.mark.parametrize(
    "fault",
    [Reset(after=700_000, request=True), DropAnswer(), Refuse(), AnswerStatus(503)],
    ids=repr,
)
async def test_an_upload_goes_on_where_it_broke(
    backend: HttpBackend, proxy: FaultProxy, bucket: str, fault: Fault
) -> None:
    data = os.urandom(3 * 1_000_000)
    session = await backend.open_upload(Location(bucket, "f"), TEXT, NONE, size=len(data))
    for start in range(0, len(data), 1_000_000):
        proxy.add(Rule(fault, "POST", "session:"))
        is_last = start + 1_000_000 == len(data)
        entry = await session.send(data[start : start + 1_000_000], final=is_last)
    assert entry is not None
    assert await backend.read(entry, 0, len(data)) == data


async def test_no_answer_at_all_ends_at_the_deadline(proxy: FaultProxy, bucket: str) -> None:
    backend = await through(proxy, 0.5)
    proxy.down()
    with trio.fail_after(3), pytest.raises(DeadlineExceeded):
        await backend.stat(Location(bucket))
    proxy.up()
    with pytest.raises(NotFound):
        await backend.stat(Location(bucket))
    await backend.aclose()


async def test_idle_connections_that_were_cut_are_replaced(
    backend: HttpBackend, proxy: FaultProxy, bucket: str
) -> None:
    data = os.urandom(BIG)
    for _ in range(2):
        proxy.cut()
        entry = await backend.put(Location(bucket, "f"), data, TEXT, NONE)
        assert await backend.read(entry, 0, BIG) == data


async def test_a_lost_creation_is_known_again(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str
) -> None:
    location = Location(bucket, "f")
    rich_proxy.add(Rule(DropAnswer(), "PUT"))
    entry = await rich.put(location, b"mine", TEXT, NONE, only_new=True)
    assert (await rich.stat(location)).resource_id == entry.resource_id
    rich_proxy.add(Rule(DropAnswer(), "PUT"))
    with pytest.raises(PreconditionFailed):  # it was there before
        await rich.put(location, b"mine", TEXT, NONE, only_new=True)
    rich_proxy.add(Rule(DropAnswer(), "PUT"))
    assert (await rich.put(location, b"next", TEXT, NONE, if_match=entry.etag)).size == 4


async def test_a_lost_mkdir_is_known_again(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str
) -> None:
    rich_proxy.add(Rule(DropAnswer(), "PUT"))
    await rich.make_directory(Location(bucket, "d"), NONE)
    rich_proxy.add(Rule(DropAnswer(), "PUT"))
    with pytest.raises(Conflict):
        await rich.make_directory(Location(bucket, "d"), NONE)


async def test_a_lost_exchange_is_not_undone(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str
) -> None:
    one, other = Location(bucket, "one"), Location(bucket, "other")
    await rich.put(one, b"1", TEXT, NONE)
    await rich.put(other, b"2", TEXT, NONE)
    rich_proxy.add(Rule(DropAnswer(), "MOVE"))
    await rich.move(one, other, Kind.FILE, exchange=True)
    assert (await rich.read_whole(one, 10))[1] == b"2"


async def used(rule: Rule) -> None:
    with trio.fail_after(5):
        while not rule.used:  # noqa: ASYNC110  # the proxy is threads
            await trio.sleep(0.01)


@pytest.mark.parametrize("method", ["DELETE", "MOVE"])
async def test_a_change_of_which_nobody_heard_is_not_done_again_to_what_came_since(
    rich: HttpBackend, rich_proxy: FaultProxy, server_url: str, bucket: str, method: str
) -> None:
    """Another client puts a file of its own under the name before the second try."""
    place, new = Location(bucket, "f"), Location(bucket, "g")
    await rich.put(place, b"ours", TEXT, NONE)
    other = await connect_backend(BackendSettings(base_url=server_url, timeout=6))
    rich_proxy.add(Rule(DropAnswer(), method))
    waits = rich_proxy.add(Rule(AnswerStatus(503, (("Retry-After", "1"),)), method))
    async with trio.open_nursery() as nursery:
        if method == "MOVE":
            nursery.start_soon(rich.move, place, new, Kind.FILE)
        else:
            nursery.start_soon(rich.remove, place, Kind.FILE)
        await used(waits)
        await other.put(place, b"theirs", TEXT, NONE)
    assert (await other.read_whole(place, 10))[1] == b"theirs"
    if method == "MOVE":
        assert (await other.read_whole(new, 10))[1] == b"ours"
    await rich.remove(place, Kind.FILE)  # that one is meant
    with pytest.raises(NotFound):
        await other.stat(place)
    await other.aclose()


async def test_lost_moves_and_links(rich: HttpBackend, rich_proxy: FaultProxy, bucket: str) -> None:
    one, other, third = (Location(bucket, name) for name in ("one", "other", "third"))
    await rich.put(one, b"1", TEXT, NONE)
    rich_proxy.add(Rule(DropAnswer(), "MOVE"))
    await rich.move(one, other, Kind.FILE, overwrite=False)
    rich_proxy.add(Rule(DropAnswer(), "BIND"))
    assert (await rich.link(other, third)).nlink == 2


async def test_corruption_is_seen(rich: HttpBackend, rich_proxy: FaultProxy, bucket: str) -> None:
    data = os.urandom(BIG)
    entry = await rich.put(Location(bucket, "f"), data, TEXT, NONE)
    rich_proxy.add(Rule(Corrupt(position=5000), "GET"))
    assert await rich.read(entry, 0, BIG) == data
    rich_proxy.always(Corrupt(position=5000), "GET")
    with pytest.raises(Corrupted):
        await rich.read(entry, 0, BIG)


@pytest.mark.parametrize(
    "fault",
    [Reset(after=2_500_000), Truncate(after=1_200_000), Corrupt(1_500_000), Corrupt(0)],
    ids=repr,
)
async def test_a_range_that_arrives_in_blocks_survives_faults(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str, fault: Fault
) -> None:
    """Whatever is told is right; in the end all of it was, in order."""
    data = os.urandom(LONG)
    entry = await rich.put(Location(bucket, "f"), data, TEXT, NONE)
    rich_proxy.add(Rule(fault, "GET"))
    told = bytearray()

    def arrived(start: int, block: memoryview) -> None:
        assert block == data[start : start + len(block)]
        if start == len(told):
            told.extend(block)

    assert await rich.read(entry, 0, LONG, arrived) == b""
    assert told == data


async def test_what_is_always_corrupted_is_told_up_to_there(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str
) -> None:
    data = os.urandom(LONG)
    entry = await rich.put(Location(bucket, "f"), data, TEXT, NONE)
    rich_proxy.always(Corrupt(position=MIB + 5), "GET")
    told = set()

    def arrived(start: int, block: memoryview) -> None:
        assert block == data[start : start + len(block)]
        told.add(start)

    with pytest.raises(Corrupted):
        await rich.read(entry, 0, LONG, arrived)
    assert told == {0}


class SmallPages(RichDialect):
    page = 2


async def test_a_listing_of_many_pages(server_url: str, bucket: str) -> None:
    requester = Requester(BackendSettings(base_url=server_url, timeout=5))
    dialect = SmallPages(requester, Targets("/v1"), frozenset(Extension))
    keys = ["d/a/1", "d/a/2", "d/a.x", "d/a0", "d/b", "d/c/1", "d/c/2", "d/d", "d/e/f/g"]
    for key in keys:
        await dialect.put(Location(bucket, key), b"", TEXT, NONE)
    listing = await dialect.list_directory(Location(bucket, "d"))
    names = [entry.location.name for entry in listing.entries]
    assert names == ["a", "a.x", "a0", "b", "c", "d", "e"]
    await requester.aclose()


async def test_only_the_servers_own_404_means_missing(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str
) -> None:
    await rich.put(Location(bucket, "f"), b"", TEXT, NONE)
    rich_proxy.add(Rule(AnswerStatus(404, body=b"not here"), "GET", times=2))
    assert (await rich.stat(Location(bucket, "f"))).size == 0


async def test_the_feed_ends_with_its_connection_and_goes_on(
    rich: HttpBackend, rich_proxy: FaultProxy, bucket: str
) -> None:
    location = Location(bucket, "f")
    async with rich.changes() as changes:
        await rich.put(location, b"1", TEXT, NONE)
        while location not in (await anext(changes)).locations:
            pass
        rich_proxy.cut()
        with pytest.raises(Unavailable):
            await anext(changes)
    await rich.put(location, b"2", TEXT, NONE)  # nobody listens, but the cursor is kept
    async with rich.changes() as changes:
        assert location in (await anext(changes)).locations


async def test_ranges_that_a_plain_server_ignores(bucket: str) -> None:
    with PlainServer(honour_range=False) as server:
        backend = await connect_backend(BackendSettings(base_url=server.url, timeout=5))
        data = os.urandom(10_000)
        entry = await backend.put(Location(bucket, "f"), data, TEXT, NONE)
        for start in range(0, 10_000, 1000):
            assert await backend.read(entry, start, 1000) == data[start : start + 1000]
        reads = [path for method, path in server.requests if path.startswith("/content")]
        assert len(reads) == 1
        await backend.aclose()


async def test_a_wrong_token_is_told_at_once() -> None:
    with PlainServer(token="right") as server:
        with pytest.raises(AccessDenied):
            await connect_backend(BackendSettings(base_url=server.url, token="wrong"))
        right = BackendSettings(base_url=server.url, token="right")
        await (await connect_backend(right)).aclose()


async def test_a_url_that_expired_is_fetched_again(plain_server: PlainServer, bucket: str) -> None:
    with FaultProxy.to(plain_server.url) as proxy:
        plain_server.url = proxy.url
        backend = await through(proxy, 5)
        entry = await backend.put(Location(bucket, "f"), b"content", TEXT, NONE)
        proxy.add(Rule(AnswerStatus(403), "GET", "/content/"))
        assert await backend.read(entry, 0, 7) == b"content"
        await backend.aclose()


async def test_other_origins_get_no_credentials(bucket: str) -> None:
    with PlainServer(token="secret") as server, PlainServer() as elsewhere:
        settings = BackendSettings(base_url=server.url, token="secret", timeout=5)
        backend = await connect_backend(settings)
        entry = await backend.put(Location(bucket, "f"), b"here", TEXT, NONE)
        elsewhere.files = server.files
        elsewhere.token = "no client of the other origin sends this"
        foreign = entry.url.replace(server.url, elsewhere.url)
        server_url, server.url = server.url, elsewhere.url
        with pytest.raises(AccessDenied):
            await backend.read(await backend.stat(Location(bucket, "f")), 0, 4)
        elsewhere.token = None
        assert foreign.startswith(elsewhere.url)
        assert await backend.read(await backend.stat(Location(bucket, "f")), 0, 4) == b"here"
        server.url = server_url
        await backend.aclose()

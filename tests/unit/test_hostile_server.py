"""A broken or hostile server: every answer that makes no sense is EIO, in time, and told in a line.

It gives each request of one kind the same answer, whatever was asked.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec import structs

from filesfs.backend import parse
from filesfs.backend.changes import EventParser
from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.rows import rows_page
from filesfs.backend.settings import BackendSettings
from filesfs.domain import AttributeChange, Change, Entry, ETag, Kind, Location, ResourceId
from filesfs.errors import Corrupted, Unavailable
from filesfs.fuse.guard import errno_of
from filesfs.packed import Listing
from filesfs.state.directories import cursor_number
from filesfs.wire import Extension
from tests.fakes.memory_backend import MemoryBackend
from tests.unit.filesystem_rig import ROOT_USER, rig

pytestmark = pytest.mark.trio

SECONDS = 1.0  # the deadline of each request
PLACE = Location("b", "d/f")
NONE = AttributeChange()
FILE: dict[str, object] = {
    "bucket": "b", "key": "d/f", "mime_type": "text/plain", "url": "/v1/files/b/d/f", "bytes": 5,
    "created_at": 1, "etag": '"e"', "modified_ns": 1, "changed_ns": 1, "accessed_ns": 1,
    "mode": 420, "uid": 0, "gid": 0, "nlink": 1, "resource_id": "r", "xattrs": {},
}  # fmt: skip
BUCKET: dict[str, object] = {
    "name": "b", "created_at": 1, "etag": '"e"', "modified_ns": 1, "changed_ns": 1,
    "accessed_ns": 1, "mode": 420, "uid": 0, "gid": 0, "nlink": 2, "resource_id": "r", "xattrs": {},
}  # fmt: skip
ENTRY = Entry(PLACE, Kind.FILE, 5, "text/plain", 1, "", ETag('"e"'), ResourceId("r"))

Call = Callable[[HttpBackend], Awaitable[object]]
CALLS: dict[str, Call] = {
    "stat": lambda backend: backend.stat(PLACE),
    "list": lambda backend: backend.list_directory(PLACE.parent),
    "walk": lambda backend: backend.list_walk(PLACE.parent, 1, 100),
    "look_up": lambda backend: backend.look_up(PLACE.parent),
    "buckets": lambda backend: backend.list_directory(Location("")),
    "usage": lambda backend: backend.usage(),
    "read": lambda backend: backend.read(ENTRY, 0, 5),
    "read_whole": lambda backend: backend.read_whole(PLACE, 100),
    "put": lambda backend: backend.put(PLACE, b"12345", "text/plain", NONE),
    "open_upload": lambda backend: _upload(backend),
    "patch": lambda backend: backend.set_attributes(PLACE, Kind.FILE, AttributeChange(mode=1)),
    "link": lambda backend: backend.link(PLACE, Location("b", "g")),
}


async def _upload(backend: HttpBackend) -> object:
    session = await backend.open_upload(PLACE, "text/plain", NONE, size=5)
    return await session.send(b"12345", final=True)


def answer(body: object, *headers: str, status: str = "200 OK") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith(("content-length", "transfer")) for line in headers):
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def changed(base: dict[str, object], **fields: object) -> dict[str, object]:
    return {**base, **fields}


def page(*files: object, more: bool = False) -> dict[str, object]:
    return {"data": list(files), "common_prefixes": [], "has_more": more}


DEEP = b'{"x":' + b"[" * 200_000
BIG = 1 << 70
ENTRIES: list[dict[str, object]] = [
    changed(FILE, bytes=-1),
    changed(FILE, bytes=BIG),
    changed(FILE, bytes=2**63 - 1),
    changed(FILE, bytes=1.5),
    changed(FILE, created_at=2**62),
    changed(FILE, created_at=-(2**62)),
    changed(FILE, modified_ns=BIG),
    changed(FILE, modified_ns=2**63),
    changed(FILE, changed_ns=-(2**63) - 1),
    changed(FILE, mode=1 << 40),
    changed(FILE, mode=-1),
    changed(FILE, uid=-1),
    changed(FILE, gid=1 << 32),
    changed(FILE, nlink=-1),
    changed(FILE, nlink=1 << 40),
    changed(FILE, xattrs={"user.a": "\u00e9"}),
    changed(FILE, xattrs=[]),
    changed(FILE, key=None),
    changed(FILE, etag=7),
]
BUCKETS: list[object] = [
    None,
    [],
    {},
    {"data": None},
    {"data": [None]},
    {"data": [changed(BUCKET, name=7)]},
    {"data": [changed(BUCKET, mode="x")]},
    {"data": [changed(BUCKET, modified_ns=BIG)]},
    {"data": [changed(BUCKET, created_at="now")]},
    {"data": [changed(BUCKET, xattrs={"user.a": 5})]},
    {"data": [changed(BUCKET, nlink=-1)]},
]
USAGES: list[object] = [
    None,
    [],
    {"total_bytes": -1, "free_bytes": 0, "files": 0},
    {"total_bytes": 1, "free_bytes": BIG, "files": 0},
    {"total_bytes": 1, "free_bytes": "x", "files": 0},
    {"total_bytes": 1, "free_bytes": 1, "files": 1.5},
    {"total_bytes": 1, "free_bytes": 1, "files": 1, "reserved_bytes": -1},
]
SESSIONS: list[object] = [
    {"url": "http://[::bad/x", "id": "1", "offset": 0, "size": 5},
    {"url": "http://127.0.0.1:99999/x", "id": "1", "offset": 0, "size": 5},
    {"url": "/x y\r\nA: b", "id": "1", "offset": 0, "size": 5},
    {"url": "/\u20ac", "id": "1", "offset": 0, "size": 5},
    {"url": "gopher://x/y", "id": "1", "offset": 0, "size": 5},
    {"url": 7},
    [],
    None,
]
ROW: list[object] = ["f", "text/plain", 5, 1, '"e"', "r", 1, 420, 0, 0, 1, 1, 1, None]
WRONG: dict[int, list[object]] = {  # by place in a row
    0: [None, 7], 1: [None], 2: [-1, BIG, 1.5, None], 3: [2**62, "now"], 4: [7], 5: [None],
    6: [-1, 1 << 40], 7: [1 << 40, -1, "x"], 8: [-1], 9: [1 << 32], 10: [BIG, None], 11: [2**63],
    12: [-(2**63) - 1], 13: [[], {"user.a": 5}, {"user.a": "\u00e9"}],
}  # fmt: skip
IN_ROWS = "Files-Rows: 1"


def rows(*found: object, url: object = ("/v1/", ""), more: object = False) -> bytes:
    return answer({"rows": list(found), "url": url, "has_more": more}, IN_ROWS)


ROWS: list[bytes] = [
    *(
        rows([*ROW[:place], value, *ROW[place + 1 :]])
        for place, values in WRONG.items()
        for value in values
    ),
    *(rows(row) for row in (None, 7, {}, [], ROW[:-1])),
    *(rows(ROW, url=url) for url in (None, "/v1/", ["/v1/"], ["/v1/", 7], ["", "", ""])),
    rows(ROW, more="yes"),
    rows(ROW, more=True),
    rows(more=True),
    *(answer(body, IN_ROWS) for body in (None, [], {}, page(FILE), DEEP, b"\xff\xfe")),
]
LISTING = {"rows": [ROW], "url": ["", ""], "has_more": False}
LOOKED_UP: list[bytes] = [
    *(
        answer(changed(FILE, key="d/", listing={**LISTING, "rows": [[*ROW[:place], *values[:1]]]}))
        for place, values in WRONG.items()
    ),
    *(answer(changed(FILE, key="d/", listing=value)) for value in (7, [], {}, [ROW])),
    *(answer(entry) for entry in ENTRIES),
]
WALKED: list[bytes] = [
    *(
        answer({**LISTING, "walk": [["d/e/", "r", [[*ROW[:place], *values[:1]]]]]}, IN_ROWS)
        for place, values in WRONG.items()
    ),
    *(
        answer({**LISTING, "walk": value}, IN_ROWS)
        for value in (
            None,
            7,
            {},
            [7],
            [[]],
            [["d/e/", "r"]],
            [["d/e/", 7, [ROW]]],
            [[None, "r", [ROW]]],
            [["", "r", []]],
            [["/", "r", []]],
            [["d/e/", "r", {}]],
            [["d/e/", "r", [7]]],
        )
    ),
    answer(b'{"rows":[],"url":["",""],"has_more":false,"walk":' + b"[" * 200_000, IN_ROWS),
]
SIZE = "Content-Length: "
EVERYWHERE = [
    answer(DEEP),
    answer(b"\xff\xfe"),
    answer(b"", SIZE + "9" * 30),
    answer(b"", SIZE + str(2**63 - 1)),
    answer(b"x", SIZE + str(1 << 44)),
    answer(b"", SIZE + "-5"),
    answer(b"fffffffffffffffff\r\nx", "Transfer-Encoding: chunked"),
    answer(b"", "X: " + "x" * (4 << 20)),
    b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    b"\0" * 100_000,
    answer({}, "Retry-After: nan", status="503 Later"),
    answer({}, "Retry-After: " + "9" * 400, status="503 Later"),
    answer({}, "Retry-After: -5", status="503 Later"),
    answer({}, "Retry-After: \xb2", status="503 Later"),
    answer({}, "Retry-After: Mon, 01 Jan 0001 00:00:00 -9999", status="503 Later"),
    answer({}, "Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT", status="503 Later"),
    answer({}, "Upload-Offset: " + "9" * 5000, status="409 Conflict"),
    answer({}, status="799 What"),
    answer(DEEP, status="404 Not Found"),
]
TABLE: list[tuple[str, bytes]] = [
    *((call, raw) for raw in EVERYWHERE for call in ("stat", "list", "read", "open_upload")),
    *(("stat", answer(entry)) for entry in ENTRIES),
    *(("put", answer(entry)) for entry in ENTRIES),
    *(("put", raw) for raw in EVERYWHERE[:3]),
    *(("list", answer(page(entry))) for entry in ENTRIES),
    *(("list", answer(body)) for body in (None, [], {}, {"data": {}}, page(None), page(7))),
    *(("list", raw) for raw in ROWS),
    *(("walk", raw) for raw in (*ROWS, *WALKED, *EVERYWHERE)),
    *(("look_up", raw) for raw in (*LOOKED_UP, *EVERYWHERE)),
    ("list", answer(page(more=True))),
    ("list", answer(page(FILE, more=True))),
    *(("buckets", answer(body)) for body in BUCKETS),
    *(("usage", answer(body)) for body in USAGES),
    *(("open_upload", answer(body)) for body in SESSIONS),
    ("read", answer(b"12345", "Files-Block-Digests: \xe9\xe9")),
    ("read", answer(b"12345", "Files-Block-Digests: ===")),
    ("read", answer(b"1234")),
    ("read_whole", answer(b"12345", "Files-Entry: {}")),
    ("read_whole", answer(b"12345", "Files-Entry: " + json.dumps(ENTRIES[0]))),
    ("patch", answer(changed(FILE, mode=1 << 40))),
    ("link", answer(7)),
]


@asynccontextmanager
async def hostile(raw: bytes) -> AsyncIterator[HttpBackend]:
    """A backend of a server that gives this answer to all but OPTIONS."""
    extensions = ", ".join(Extension)

    async def serve(stream: trio.SocketStream) -> None:
        first = answer(b"", f"Files-Extensions: {extensions}", "Files-Cursor: e-7")
        async with stream:
            with suppress(trio.BrokenResourceError):
                while asked := await stream.receive_some(65536):
                    await stream.send_all(first if asked.startswith(b"OPTIONS") else raw)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        settings = BackendSettings(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS)
        backend = await connect_backend(settings)
        try:
            yield backend
        finally:
            await backend.aclose()
        nursery.cancel_scope.cancel()


async def complaint(call: str, raw: bytes) -> str:
    """What is wrong with what comes of this answer; "" if nothing is."""
    async with hostile(raw) as backend:
        with trio.move_on_after(20 * SECONDS):
            try:
                await CALLS[call](backend)
            except Exception as error:
                code, level = errno_of(error)
                wrong = raw.startswith(b"HTTP/1.1 200") and code != errno.EIO
                return repr(error) if wrong or level >= logging.CRITICAL else ""
            return "it was taken for right"
        return "it hangs"


@pytest.mark.parametrize("call", CALLS)
async def test_what_makes_no_sense_is_an_error_in_time(call: str) -> None:
    answers = [raw for name, raw in TABLE if name == call]
    assert answers
    complaints: dict[bytes, str] = {}

    turns = trio.CapacityLimiter(6)  # or they would keep each other from being in time

    async def ask(raw: bytes) -> None:
        async with turns:
            complaints[raw] = await complaint(call, raw)

    async with trio.open_nursery() as nursery:
        for raw in answers:
            nursery.start_soon(ask, raw)
    assert {raw[:300]: wrong for raw, wrong in complaints.items() if wrong} == {}


@pytest.mark.parametrize("cursor", ["", "e", "e-", "e-\xb2", "e-1.5", "e-" + "9" * 5000])
async def test_a_cursor_that_is_none_counts_for_nothing(cursor: str) -> None:
    assert cursor_number(cursor) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n.", "\n", "/", "\0", "\ud83d\ude00"])
async def test_names_in_rows_that_no_name_leads_to_do_not_show(tmp_path: Path, name: str) -> None:
    body = json.dumps({"rows": [[name, *ROW[1:]], ROW], "url": ["", ""], "has_more": False})
    pairs, _, _, _ = rows_page(body.encode(), Location("b"))
    async with rig(tmp_path) as mine:

        async def listed(location: Location) -> Listing:
            return Listing(location, dict(pairs))

        mine.fs.core.directories.drop(mine.bucket)
        mine.backend.list_directory = listed  # type: ignore[method-assign]
        assert await mine.fs.tree.snapshot(mine.bucket) == [b"f"]


EVENTS = [
    b"id: e-\xc2\xb2\ndata: %s",
    b"id: e-" + b"9" * 5000 + b"\ndata: %s",
    b"id: \xff\xff\ndata: %s",
    b"id: -\ndata: %s",
]
DATA = [
    b'{"operation":"commit","keys":[["b","a"]]}',
    b'{"operation":"commit","keys":[["b","a"]],"resource_id":7}',
    b'{"operation":"commit","keys":[[7,8]]}',
    b'{"operation":"commit","keys":[["b"]]}',
    b'{"operation":"commit","keys":[["b","a","c"]]}',
    b'{"operation":"commit","keys":[["",""],["b","../..//x\\u0000/."]]}',
    b'{"operation":"move","keys":[["b","a"],["\\u20ac","/"]]}',
    b'{"operation":"commit","keys":[["b","a"]],"x":' + b"[" * 100_000,
    b"[]",
    b"null",
]


@pytest.mark.parametrize("data", DATA, ids=lambda data: data[:60].decode())
async def test_no_event_ends_the_mount(tmp_path: Path, data: bytes) -> None:
    """Each is applied, or is a gap."""
    async with rig(tmp_path) as mine:
        await mine.store(b"a", b"1")
        for head in EVENTS:
            for cursor, _, text in EventParser().feed(head % data + b"\n\n"):
                with suppress(Unavailable):
                    mine.fs.coherence.apply(parse.change_event(text, cursor, "me"))
        assert await mine.content(b"a") == b"1"


async def test_an_event_without_end_is_given_up() -> None:
    for end in (b"", b"\n"):
        parser, piece = EventParser(), b"data: " + b"x" * (1 << 20) + end
        for _ in range(16):
            parser.feed(piece)
        with pytest.raises(Unavailable):
            parser.feed(piece)


async def test_an_error_that_nobody_thought_of_is_a_gap_in_the_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig(tmp_path, feed=True) as mine:

        def broken(change: Change) -> None:
            raise RuntimeError("nobody thought of it")

        with monkeypatch.context() as patch:
            patch.setattr(mine.fs.coherence, "apply", broken)
            other = MemoryBackend(mine.backend.tree, origin="other")
            await other.put(Location("b", "a"), b"1", "text/plain", NONE)
            await trio.testing.wait_all_tasks_blocked()
        assert not mine.fs.core.directories.feed
        assert "nobody thought of it" in caplog.text


@pytest.mark.parametrize("kind", [Kind.DIRECTORY, Kind.FILE])
async def test_a_directory_that_is_said_to_be_in_itself_is_not(tmp_path: Path, kind: Kind) -> None:
    async with rig(tmp_path) as mine:
        above = await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        below = await mine.fs.namespace.mkdir(above, b"e", 0o755, ROOT_USER)
        assert above.entry is not None
        entry = structs.replace(above.entry, location=Location("b", "d/e/f"), kind=kind)
        for parent in (above, below):
            found = mine.fs.tree.adopt(parent, b"f", entry)
            assert found is not above
            assert mine.fs.tree.location(found).name == "f"
        assert mine.fs.tree.location(above) == Location("b", "d")


@pytest.mark.parametrize("data", [b"x:y", b"8", b"-1:-1", b"9" * 60 + b":1", b"\xff:1"])
async def test_a_device_of_no_number_is_an_error(tmp_path: Path, data: bytes) -> None:
    async with rig(tmp_path) as mine:
        kind = Kind.CHARDEVICE
        await mine.backend.put(Location("b", "a"), data, kind.value, NONE, kind=kind)
        mine.fs.core.directories.doubt(mine.bucket, b"a")
        node = await mine.lookup(b"a")
        assert node is not None
        with pytest.raises(Corrupted):
            await mine.fs.attributes.device(node)


async def test_a_link_without_end_is_not_read(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        kind = Kind.SYMLINK
        await mine.backend.put(Location("b", "a"), b"x" * 5000, kind.value, NONE, kind=kind)
        mine.fs.core.directories.doubt(mine.bucket, b"a")
        node = await mine.lookup(b"a")
        assert node is not None
        with pytest.raises(Corrupted):
            await mine.fs.attributes.readlink(node)


KEYS = ["d/..", "d/.", "d//", "d/", "d/_-_2f", "d/_-_00", "d/\u20ac", "x" * 5000, "", "/", "d/a\0b"]


async def test_names_that_cannot_be_are_not_shown(tmp_path: Path) -> None:
    async with rig(tmp_path) as mine:
        for key in KEYS:
            name = mine.fs.tree.shown_name(Location("b", key)) if key else None
            assert name is None or (len(name) <= 255 and not {0, ord("/")} & set(name)), key
            assert name not in (b"", b".", b".."), key

"""The backend's pure parts: retry policy, parsing, paths, digests, event stream, address."""

from __future__ import annotations

import base64
import struct

import pytest
import trio
from crc32c import crc32c

from filesfs.backend import digests, parse
from filesfs.backend.answers import Answer, check
from filesfs.backend.changes import EventParser
from filesfs.backend.imagined import ImaginedDirectories
from filesfs.backend.keys import FoldedBucket
from filesfs.backend.paths import Targets, target_of, with_query
from filesfs.backend.retry import RetryPolicy, Tries, repeat
from filesfs.backend.settings import BackendSettings
from filesfs.domain import AttributeChange, Entry, Kind, Location
from filesfs.errors import (
    AccessDenied,
    Conflict,
    Corrupted,
    DeadlineExceeded,
    FilesfsError,
    Gone,
    InvalidRequest,
    NoSpace,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unavailable,
    Unsupported,
    UsageError,
)


def test_pauses_grow_and_are_bounded() -> None:
    policy = RetryPolicy()
    pauses = [policy.pause(attempt, 1.0, None) for attempt in range(1, 200)]
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert max(pauses) == policy.longest
    assert policy.pause(1, 0.0, None) == 0.025
    assert policy.pause(1, 1.0, 7) == 7


async def _down() -> None:
    raise Unavailable("down", sent=False)


def test_the_loop_ends_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    tries = Tries()

    async def main() -> float:
        with pytest.raises(DeadlineExceeded) as caught:
            await repeat(RetryPolicy(timeout=30), _down, tries)
        assert isinstance(caught.value.__cause__, Unavailable)
        return trio.current_time()

    start = autojump_clock.current_time()
    assert 25 < trio.run(main, clock=autojump_clock) - start <= 30
    assert not tries.lost
    assert 15 < tries.count < 40


def test_progress_puts_the_deadline_off(autojump_clock: trio.testing.MockClock) -> None:
    calls = 0

    async def attempt() -> str:
        nonlocal calls
        calls += 1
        if calls < 200:
            raise Unavailable("slow")
        return "done"

    async def main() -> str:
        return await repeat(RetryPolicy(timeout=5), attempt, progress=trio.current_time)

    assert trio.run(main, clock=autojump_clock) == "done"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, InvalidRequest),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, Unavailable),
        (405, Unsupported),
        (409, Conflict),
        (410, Gone),
        (412, PreconditionFailed),
        (413, TooLarge),
        (429, Unavailable),
        (500, Unavailable),
        (501, Unsupported),
        (503, Unavailable),
        (507, NoSpace),
        (302, InvalidRequest),
    ],
)
def test_statuses(status: int, expected: type[FilesfsError]) -> None:
    with pytest.raises(expected):
        check(Answer(status, {}, b"<html>"), only_error_objects=True)


def test_errors_carry_what_the_server_said() -> None:
    body = b'{"status": 409, "title": "Conflict", "detail": "no"}'
    headers = {"files-error": "offset", "upload-offset": "17", "retry-after": "3"}
    with pytest.raises(Conflict, match="no") as caught:
        check(Answer(409, headers, body), only_error_objects=True)
    assert (caught.value.reason, caught.value.offset) == ("offset", 17)
    with pytest.raises(Unavailable) as busy:
        check(Answer(503, headers, b""), only_error_objects=True)
    assert busy.value.retry_after == 3
    with pytest.raises(NotFound):
        check(Answer(404, {}, body), only_error_objects=True)
    with pytest.raises(NotFound):
        check(Answer(404, {}, b""), only_error_objects=False)


def test_targets_are_sent_as_they_stand() -> None:
    targets = Targets("/x/v1")
    assert targets.of(Location("b", "a/b.c"), "q=1") == "/x/v1/files/b/a/b.c?q=1"
    assert targets.of(Location("b", "d"), kind=Kind.DIRECTORY) == "/x/v1/files/b/d/"
    assert target_of("http://h:1/p/q?x=%2F") == "/p/q?x=%2F"
    assert with_query("/p?x", "y=1") == "/p?x&y=1"


def test_settings_say_what_is_wrong() -> None:
    settings = BackendSettings(base_url="https://[::1]/base/")
    assert (settings.port, settings.host_header, settings.prefix) == (443, "[::1]", "/base/v1")
    assert BackendSettings(base_url="http://h:8080/v1").prefix == "/v1"
    assert BackendSettings(base_url="http://h:8080/v1").server_id == "http://h:8080"
    for wrong in ("ftp://h", "h:80", "http://", "http://u:p@h"):
        with pytest.raises(UsageError):
            BackendSettings(base_url=wrong)
    with pytest.raises(UsageError):
        BackendSettings(token="with\nnewline")


def test_block_digests() -> None:
    data = bytes(range(256)) * 5000
    sums = [crc32c(data[at : at + digests.BLOCK]) for at in range(0, len(data), digests.BLOCK)]
    header = base64.b64encode(struct.pack(f">{len(sums)}I", *sums)).decode()
    digests.verify({"files-block-digests": header}, data)
    digests.verify({"content-digest": digests.digest_of(data)}, data)
    digests.verify({}, data)
    wrong = data[:-1] + b"\0"
    for headers in (
        {"files-block-digests": header},
        {"content-digest": digests.digest_of(data)},
    ):
        with pytest.raises(Corrupted):
            digests.verify(headers, wrong)


def test_events_come_out_of_any_pieces() -> None:
    stream = b": hi\n\nevent: change\r\nid: e-1\r\ndata: a\r\ndata: b\r\n\r\nid: e-2\ndata: c\n\n"
    expected = [("e-1", "change", "a\nb"), ("e-2", "", "c")]
    for size in range(1, len(stream) + 1):
        parser = EventParser()
        found = []
        for start in range(0, len(stream), size):
            found += parser.feed(stream[start : start + size])
        assert found == expected


def test_the_body_of_a_patch_has_only_what_changes() -> None:
    assert parse.patch_body(AttributeChange()) == b"{}"
    change = AttributeChange(mode=0, xattrs={"user.a": b"\xff", "user.b": None})
    assert parse.patch_body(change) == b'{"mode":0,"xattrs":{"user.a":"/w==","user.b":null}}'


def test_malformed_answers_are_the_servers_trouble() -> None:
    with pytest.raises(Unavailable):
        parse.file_entry(b'{"key": "a"}')
    with pytest.raises(Unavailable):
        parse.listing_page(b'{"data": [{}]}')
    with pytest.raises(Unavailable):
        Answer(200, {}, b"{cut").json()


def _file(key: str) -> Entry:
    return Entry(Location("b", key), Kind.FILE, 1, "text/plain", 0)


def test_keys_fold_into_directories() -> None:
    folded = FoldedBucket("b", [_file(key) for key in ("a/b/c", "a/d", "a.x", "e")])
    assert sorted(folded.children("") or {}) == ["a", "a.x", "e"]
    assert sorted(folded.children("a") or {}) == ["b", "d"]
    assert folded.children("a/d") is None
    assert [entry.location.key for entry in folded.below("a")] == ["a/b/c", "a/d"]


def test_imagined_directories_keep_their_parents() -> None:
    imagined = ImaginedDirectories()
    imagined.add(Location("b", "x/y/z"))
    assert [entry.location.key for entry in imagined.children(Location("b", "x"))] == ["x/y"]
    imagined.rename(Location("b", "x/y"), Location("b", "w"))
    assert Location("b", "w/z") in imagined
    assert Location("b", "x/y") not in imagined
    assert Location("b", "x") in imagined

"""An answer with many small files is taken apart strictly: it may be anybody's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crc32c import crc32c

from filesfs.backend.many import contents_of
from filesfs.domain import Location
from filesfs.errors import Unavailable
from filesfs.packed import unpack

HERE = Location("b", "in")
NAMES = ("f", "g")
TIMES = [3, 4, 5]


def row(name: str, content: bytes, **changed: object) -> list[Any]:
    told: dict[str, object] = {"mime_type": "text/plain", "bytes": len(content), "crc": None}
    told |= changed
    crc = crc32c(content) if told["crc"] is None else told["crc"]
    etag, rid = f'"{name}"', f"r{name}"
    kind, size = told["mime_type"], told["bytes"]
    return [name, kind, size, 1, etag, rid, 1, 0o640, 3, 4, *TIMES, None, crc]


def body(
    rows: object, *contents: bytes, length: int | None = None, url: object = ("", "")
) -> bytes:
    head = json.dumps({"rows": rows, "url": url, "has_more": False}).encode()
    prefix = (len(head) if length is None else length).to_bytes(4, "big")
    return b"".join((prefix, head, *contents))


def test_what_was_asked_for_is_taken() -> None:
    rows = [row("g", b"one"), row("f", b"")]
    found, contents = contents_of(body(rows, b"one"), HERE, NAMES)
    assert [name for name, _ in found] == ["g", "f"]
    assert contents == {"g": b"one", "f": b""}
    assert unpack(found[0][1]).location == Location("b", "in/g")
    assert unpack(found[0][1]).size == 3


def test_content_that_is_wrong_is_left_out_and_the_others_are_not() -> None:
    rows = [row("f", b"one", crc=7), row("g", b"two")]
    found, contents = contents_of(bytearray(body(rows, b"one", b"two")), HERE, NAMES)
    assert ([name for name, _ in found], contents) == (["g"], {"g": b"two"})


FINE = row("f", b"one")
WRONG = [
    b"", b"\0\0\0", b"\0\0\0\2{}", b"\0\0\0\0", b"\0\0\0\7[[[[[[[", b"\xff\xff\xff\xff{}",
    body([FINE]), body([FINE], b"on"), body([FINE], b"one!"), body([], b"one"),
    body([FINE], b"one", length=3), body([FINE], b"one", length=1 << 31),
    body([FINE, FINE], b"one", b"one"),
    body([row("h", b"one")], b"one"),
    body([row("f/", b"one")], b"one"),
    body([row("f", b"one", mime_type="inode/directory")], b"one"),
    body([row("f", b"one", mime_type="inode/symlink")], b"one"),
    body([row("f", b"one", bytes=-1)], b"one"), body([row("f", b"one", bytes=1 << 61)], b"one"),
    body([row("f", b"one", bytes="3")], b"one"), body([row("f", b"one", crc=-1)], b"one"),
    body([row("f", b"one", crc=1 << 32)], b"one"), body([row("f", b"one", crc="x")], b"one"),
    body([FINE[:-1]], b"one"), body([[]]), body({}), body(None), body([FINE], b"one", url="u"),
    body([row("f", b"one"), row("g", b"two", bytes=1 << 40)], b"one", b"two"),
]  # fmt: skip


@pytest.mark.parametrize("raw", WRONG)
def test_what_makes_no_sense_is_no_answer(raw: bytes) -> None:
    with pytest.raises(Unavailable):
        contents_of(raw, HERE, NAMES)

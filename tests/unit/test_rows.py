"""A directory's rows go to rest without an Entry; unpacked, each is the entry it tells of."""

from __future__ import annotations

import json
from typing import Any

from filesfs.backend.rows import rows_page
from filesfs.domain import PLACE, Attributes, Entry, ETag, Kind, Location, ResourceId
from filesfs.packed import form_of, kind_of_form, pack, unpack
from filesfs.wire import DIRECTORY

TIMES = [1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 1_700_000_000_000_000_003]
ROWS = [
    ["file", "text/plain", 7, 1_700_000_000, '"a"', "ra", 2, 0o640, 3, 4, *TIMES, {"a": "eQ=="}],
    ["folder/", DIRECTORY, 0, 1_700_000_000, '"b"', "rb", 1, None, None, None, *TIMES, None],
    ["other", "text/plain", 8, 1_700_000_000, '"c"', "rc", 1, 0o600, 0, 0, *TIMES, None],
    ["named/", "text/plain", 0, 1_700_000_000, '"d"', "rd", 1, 0o700, 0, 0, *TIMES, {}],
]  # fmt: skip
URL = ["http://here/", "?alt=media"]


def entry(name: str, row: list[Any], kind: Kind, xattrs: dict[str, bytes]) -> Entry:
    _, mime_type, size, created_at, etag, resource_id, nlink, mode, uid, gid, *times, _ = row
    attributes = Attributes(mode, uid, gid, *times, xattrs)
    return Entry(
        Location("b", f"in/{name}"), kind, size, mime_type, created_at, PLACE.join(URL),
        ETag(etag), ResourceId(resource_id), nlink, attributes,
    )  # fmt: skip


def test_each_is_the_entry_that_it_tells_of() -> None:
    body = json.dumps({"rows": ROWS, "url": URL, "has_more": True}).encode()
    found, last, more, walk = rows_page(body, Location("b", "in"))
    expected = {
        "file": entry("file", ROWS[0], Kind.FILE, {"a": b"y"}),
        "folder": entry("folder", ROWS[1], Kind.DIRECTORY, {}),
        "other": entry("other", ROWS[2], Kind.FILE, {}),
        "named": entry("named", ROWS[3], Kind.DIRECTORY, {}),
    }
    assert {name: unpack(packed) for name, packed in found} == expected
    assert [packed for _, packed in found] == [pack(each) for each in expected.values()]
    kinds = [kind_of_form(form_of(packed)) for _, packed in found]
    assert kinds == [each.kind for each in expected.values()]
    assert (last, more, walk) == ("in/named/", True, [])

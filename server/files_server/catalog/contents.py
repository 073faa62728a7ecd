"""Small files of one directory, each with what it is and its content, of one moment. Reads only.

It must not read blobs, nor decide how many files are enough: whoever reads on takes the next one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from typing import NamedTuple

from files_server.catalog import listing
from files_server.catalog.schema import FILE
from filesfs.wire import SPECIAL_TYPES

# The names come first, in their order; for each of them the indexes lead to the rest.
_FOUND = (
    f"SELECT {listing.ROW}, n.sort_name, r.rid, v.size, v.blob, v.crc32c, v.blocks, c.data"
    " FROM json_each(?) names"
    " CROSS JOIN nodes n ON n.parent_id = ? AND n.sort_name = names.value"
    " CROSS JOIN resources r ON r.id = n.resource_id"
    " CROSS JOIN versions v ON v.id = r.version_id"
    " LEFT JOIN contents c ON c.version_id = v.id"
    f" WHERE r.kind = {FILE} AND v.size <= ? AND r.mime_type NOT IN"
    f" ({', '.join('?' * len(SPECIAL_TYPES))})"
)
_SPECIAL = tuple(sorted(SPECIAL_TYPES))


class Found(NamedTuple):
    """A file. `row`: as in `Files-Rows`; `blob`: where the content is that is not in `data`."""

    row: str
    name: str
    rid: str
    size: int
    blob: str | None
    crc32c: bytes
    blocks: bytes | None
    data: bytes | None


def small_files(
    connection: sqlite3.Connection, directory: int, names: Sequence[str], most: int
) -> Generator[Found, None, None]:
    """Of these names in a directory those that are files of at most `most` bytes, in order."""
    values = (json.dumps(names), directory, most, *_SPECIAL)
    cursor = connection.execute(_FOUND, values)
    try:
        yield from map(Found._make, cursor)
    finally:
        cursor.close()  # who takes no more lets go of the snapshot

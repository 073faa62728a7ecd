"""From an answer with many small files to entries at rest and their content.

It must not believe it: what was not asked for, and lengths that do not fit, are no answer at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec
from crc32c import crc32c

from filesfs.backend import parse
from filesfs.backend.connection import Buffer
from filesfs.domain import Kind, Location, kind_of

log = logging.getLogger(__name__)
_PREFIX = 4  # bytes that say how long the JSON behind them is

Contents = dict[str, memoryview]  # by wire name


class _Row(parse.Row, gc=False, array_like=True):
    """A row of a listing, and the crc32c of the content."""

    crc: parse.Number


class _Page(msgspec.Struct, gc=False):
    rows: list[_Row]
    url: tuple[str, str]


_page = msgspec.json.Decoder(_Page)


def contents_of(
    body: Buffer, directory: Location, names: Iterable[str]
) -> tuple[parse.Names, Contents]:
    """Of these names those that the answer has whole. Raises Unavailable. The contents are views
    of `body`.
    """
    view = memoryview(body).toreadonly()
    begin = _PREFIX + int.from_bytes(view[:_PREFIX], "big")
    try:
        if begin > len(view):
            raise ValueError(f"{len(view)} bytes cannot hold a head of {begin}")
        page = _page.decode(view[_PREFIX:begin])
        contents = _cut(page.rows, view[begin:], set(names))
        whole = [row for row in page.rows if row.name in contents]
        return parse.names_of(whole, page.url, directory), contents
    except parse.MALFORMED as error:
        raise parse.malformed(body, error) from error


def _cut(rows: Sequence[_Row], view: memoryview, asked: set[str]) -> Contents:
    """The content of each row, without what does not match its crc32c. Raises ValueError."""
    contents, at = {}, 0
    for row in rows:
        if row.name not in asked or kind_of(row.mime_type) is not Kind.FILE:
            raise ValueError(f"{row.name[:100]!r} was not asked for, or twice, or is no file")
        asked.discard(row.name)
        content = view[at : at + row.bytes]
        at += row.bytes
        if len(content) == row.bytes and crc32c(content) == row.crc:
            contents[row.name] = content
        else:
            log.warning("%r came along with other bytes than its crc32c tells of", row.name)
    if at != len(view):
        raise ValueError(f"{len(view)} bytes of content came, of {at}")
    return contents

"""A page of a directory in rows, and with it the directories that a walk comes to next.

No Entry is made of any. It must not keep anything, nor know how pages are asked for.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Annotated

import msgspec
from msgspec import Meta

from filesfs.backend import parse
from filesfs.backend.connection import Buffer
from filesfs.domain import Location, ResourceId
from filesfs.packed import Listing


class _Followed(msgspec.Struct, gc=False, array_like=True):
    """A directory that a walk comes to next, whole. Its key ends with a slash."""

    key: Annotated[str, Meta(min_length=2)]
    resource_id: str
    rows: list[parse.Row]


class _Page(parse.Rows, gc=False):
    """Rows, and what comes behind them."""

    walk: list[_Followed] = []


_page = msgspec.json.Decoder(_Page)


def rows_page(
    body: Buffer, directory: Location, cursor: str = ""
) -> tuple[parse.Names, str, bool, list[Listing]]:
    """What is in the directory, the last key, whether more follow; and what is in the directories
    that come next.
    """
    try:
        page = _page.decode(body)
        found = parse.names_of(page.rows, page.url, directory)
        walk = [
            _followed(each, page.url, directory.bucket, cursor)
            for each in page.walk
            if not any(map(_has_other_names, each.rows))
        ]
    except parse.MALFORMED as error:
        raise parse.malformed(body, error) from error
    base = f"{directory.key}/" if directory.key else ""
    return found, base + page.rows[-1].name if found else "", page.has_more, walk


def _has_other_names(row: parse.Row) -> bool:
    """A file that has: an event about it may leave this one out."""
    return row.nlink > 1 and row.name[-1:] != "/"


def _followed(found: _Followed, url: tuple[str, str], bucket: str, cursor: str) -> Listing:
    location = Location(bucket, found.key[:-1])
    names = sorted(parse.names_of(found.rows, url, location), key=itemgetter(0))
    return Listing(location, dict(names), cursor, ResourceId(found.resource_id))

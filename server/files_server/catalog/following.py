"""What a walk comes to after one directory: what is in those below it, then in those behind it,
depth first.

It must not build answers, nor hold anybody up: what is looked at is bounded by what is asked for.
Each listing is of one moment, none of them before the caller took the feed's cursor.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from files_server.catalog import nodes
from files_server.catalog.listing import ROW

# To find a directory and to begin its listing takes as long as so many entries of it: 10 us.
WEIGHT = 10
_INSIDE = (
    f"SELECT n.id, n.sort_name, r.rid, {ROW} FROM nodes n JOIN resources r ON r.id = n.resource_id"
    " WHERE n.parent_id = ? ORDER BY n.sort_name LIMIT ?"
)
# Among so many names only: there may be a million files before the next directory.
_DIRECTORIES = (
    "SELECT n.id, n.sort_name, r.rid FROM (SELECT id, sort_name, resource_id FROM nodes"
    " WHERE parent_id = ? AND sort_name > ? ORDER BY sort_name LIMIT ?) n"
    " CROSS JOIN resources r ON r.id = n.resource_id WHERE substr(n.sort_name, -1) = '/' LIMIT ?"
)
_PARENT = "SELECT parent_id FROM nodes WHERE id = ?"


class Followed(NamedTuple):
    """A directory, its key with the slash, and all that is in it: JSON rows with commas."""

    key: str
    rid: str
    rows: str


def following(
    connection: sqlite3.Connection, bucket: str, directory: str, levels: int, most: int
) -> Iterator[Followed]:
    """Of the directories below "a/b" ("": the bucket), then of those behind it in the directory
    above, and so on, `levels` up: as many as are whole within `most` entries, each directory
    counted as WEIGHT of them besides.
    """
    names = nodes.sort_names(bucket, directory)
    here = nodes.find_id(connection, names)
    if here is None:
        return
    ahead = _directories(connection, here, "".join(names[1:]), "", most)
    while True:
        while ahead:
            node_id, key, rid = ahead.pop()
            rows = connection.execute(_INSIDE, (node_id, most + 1)).fetchall()
            most -= len(rows) + WEIGHT
            if most < 0:
                return
            yield Followed(key, rid, ",".join([row[3] for row in rows]))
            ahead += [(row[0], key + row[1], row[2]) for row in reversed(rows) if _leads(row[1])]
        if not levels or len(names) == 1:
            return
        levels -= 1
        behind, parent = names.pop(), connection.execute(_PARENT, (here,)).fetchone()
        if parent is None:  # it went meanwhile
            return
        here = parent[0]
        ahead = _directories(connection, here, "".join(names[1:]), behind, most)


def _leads(name: str) -> bool:
    """Whether this sort name is a directory's."""
    return name[-1:] == "/"


def _directories(
    connection: sqlite3.Connection, parent: int, key: str, behind: str, most: int
) -> list[tuple[int, str, str]]:
    """Id, key and resource of the directories behind a name, the last one first."""
    wanted = (parent, behind, most, most // WEIGHT)
    found = connection.execute(_DIRECTORIES, wanted).fetchall()
    return [(node_id, key + name, rid) for node_id, name, rid in reversed(found)]

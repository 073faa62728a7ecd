"""What a listing tells the kernel of each entry, in one object that is used again for the next."""

from __future__ import annotations

import itertools

import pyfuse3

from filesfs.domain import Inode, Kind
from filesfs.filesystem import Stat
from filesfs.fuse.attributes import Successive, entry_attributes

FIRST = Stat(Inode(2), Kind.FILE, 0o644, 1, 0, 0, 4096, 1, 2, 3, 60.0)
STATS = [
    FIRST,
    FIRST._replace(inode=Inode(3)),
    FIRST._replace(accessed_ns=-1, modified_ns=5 * 10**18, changed_ns=7),
    FIRST._replace(size=1),
    FIRST._replace(size=0),
    FIRST._replace(kind=Kind.DIRECTORY, size=0, nlink=2),
    FIRST._replace(kind=Kind.SYMLINK, mode=0o777, size=12),
    FIRST._replace(mode=0o4755),
    FIRST._replace(nlink=2),
    FIRST._replace(uid=7),
    FIRST._replace(gid=7),
    FIRST._replace(ttl=0.0),
]


def told(attributes: pyfuse3.EntryAttributes) -> dict[str, object]:
    return {name: getattr(attributes, name) for name in dir(attributes) if name[:2] != "__"}


def test_each_is_told_as_if_it_were_alone() -> None:
    for before, after in itertools.product(STATS, repeat=2):
        successive = Successive()
        assert told(successive.of(before)) == told(entry_attributes(before))
        assert told(successive.of(after)) == told(entry_attributes(after))

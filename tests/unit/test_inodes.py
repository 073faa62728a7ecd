"""InodeTable: which node stands for which resource; what it costs to know many."""

from __future__ import annotations

import gc
import tracemalloc

from filesfs.domain import PLACE, Attributes, Entry, ETag, Kind, Location, ResourceId
from filesfs.packed import pack, unpack
from filesfs.state.directories import DirectoryCache
from filesfs.state.inodes import InodeTable, Node, derived_inode

MANY = 20_000
_BYTES = 700  # a million of them may take 700 MiB


def entry(number: int, *, version: int = 0, resource: str | None = None) -> Entry:
    when = 1_796_047_605_968_150_000 + number
    return Entry(
        Location("bucket", f"folder/file-{number}.dat"),
        Kind.FILE,
        4096 + number,
        "application/octet-stream",
        1_796_047_605 + number,
        f"http://localhost/v1/files/{PLACE}?alt=media",
        ETag(f'"{version:032x}"'),
        ResourceId(resource or f"{number:022x}"),
        1,
        Attributes(0o640, 1000, 1000, when, when + 1, when + 2),
    )


def table() -> InodeTable:
    return InodeTable(Entry(Location(""), Kind.DIRECTORY, 0, "", 0))


def known(inodes: InodeTable, number: int) -> Node:
    node = inodes.new_for(entry(number))
    inodes.add_name(node, inodes.root, b"%d" % number)
    inodes.remember(node)
    return node


def test_an_entry_at_rest_is_the_same_entry() -> None:
    for each in (
        entry(1),
        Entry(Location("b"), Kind.DIRECTORY, 0, "inode/directory", 5),
        Entry(Location("b", "k"), Kind.FILE, 1, "a/b", 0, "http://elsewhere/x?signed"),
        Entry(
            Location("b", "k"), Kind.FIFO, 0, "inode/fifo", 0, "", ETag("e"), ResourceId("r"), 3,
            Attributes(modified_ns=-5, xattrs={"user.a": b"\0\xff"}), True,
        ),
    ):  # fmt: skip
        pack(entry(2))  # so that the answer is not remembered from the question
        packed = pack(each)
        unpack(pack(entry(2)))
        assert unpack(packed) == each


def test_a_resource_is_found_under_its_number_until_it_is_forgotten() -> None:
    inodes = table()
    node = known(inodes, 1)
    assert node.inode == derived_inode(entry(1).resource_id or "")
    assert inodes.find(entry(1, version=2)) is node
    inodes.forget(node.inode, 1)
    assert inodes.find(entry(1)) is None
    assert known(inodes, 1).inode == node.inode


def test_a_detached_node_is_found_no_more_not_even_when_the_new_one_goes() -> None:
    inodes = table()
    old = known(inodes, 1)
    inodes.detach(old)
    assert inodes.find(entry(1)) is None
    new = known(inodes, 1)
    assert new.inode != old.inode
    assert inodes.find(entry(1)) is new
    inodes.forget(new.inode, 1)
    assert inodes.find(entry(1)) is None
    inodes.forget(old.inode, 1)
    assert known(inodes, 1).inode == old.inode


def test_what_was_made_here_is_found_once_the_server_has_it() -> None:
    inodes = table()
    node = inodes.new_local(Kind.FILE)
    inodes.remember(node)
    inodes.set_entry(node, entry(1))
    assert inodes.find(entry(1)) is node
    inodes.set_entry(node, entry(1, resource="another"))
    assert inodes.find(entry(1)) is None
    assert inodes.find(entry(1, resource="another")) is node
    inodes.forget(node.inode, 1)
    assert inodes.find(entry(1, resource="another")) is None
    assert len(inodes) == 1


def test_many_known_inodes_take_little_and_give_it_back() -> None:
    inodes, directories = table(), DirectoryCache()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        names = {b"file-%d.dat" % number: pack(entry(number)) for number in range(MANY)}
        directories.keep_listing(inodes.root, names, directories.stamp(inodes.root))
        for name, packed in names.items():
            node = inodes.new_for(unpack(packed))
            inodes.add_name(node, inodes.root, name)
            inodes.remember(node)
        del names, node
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        assert held / MANY < _BYTES
        for each in inodes:
            inodes.forget(each.inode, 1)
        directories.drop(inodes.root)
        del each
        gc.collect()
        assert (tracemalloc.get_traced_memory()[0] - before) / MANY < _BYTES / 10
    finally:
        tracemalloc.stop()

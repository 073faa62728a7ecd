"""From stat values to pyfuse3's EntryAttributes and back. Translates; decides nothing."""

from __future__ import annotations

import stat
from typing import Any

import pyfuse3

from filesfs.domain import AttributeChange, Kind
from filesfs.filesystem import Stat

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARDEVICE: stat.S_IFCHR,
    Kind.BLOCKDEVICE: stat.S_IFBLK,
}
_KINDS = {type_: kind for kind, type_ in _TYPES.items()}
BLOCK_BYTES = 4096  # st_blksize would make cp use it as its buffer size: larger is better
_IO_BYTES = 1 << 20
# Of a directory it is what glibc reads at a time: 400 entries. pyfuse3 makes and clears memory of
# just this size for each answer, which of 1 MiB takes longer than the entries.
_LISTING_BYTES = 1 << 16
_TIME_LIMIT = 1 << 63  # nanoseconds: from the year 1677 to 2262


def kind_of_mode(mode: int) -> Kind:
    """The kind that mknod's mode asks for."""
    return _KINDS.get(stat.S_IFMT(mode), Kind.FILE)


def entry_attributes(value: Stat, device: int = 0) -> pyfuse3.EntryAttributes:
    inode, kind, mode, nlink, uid, gid, size, accessed_ns, modified_ns, changed_ns, ttl = value
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino = inode
    attributes.st_mode = _TYPES[kind] | mode
    attributes.st_nlink = nlink
    attributes.st_uid = uid
    attributes.st_gid = gid
    attributes.st_size = size
    attributes.st_blocks = (size + 511) // 512
    attributes.st_blksize = _LISTING_BYTES if kind is Kind.DIRECTORY else _IO_BYTES
    attributes.st_rdev = device
    attributes.st_atime_ns = accessed_ns
    attributes.st_mtime_ns = modified_ns
    attributes.st_ctime_ns = changed_ns
    attributes.entry_timeout = ttl
    attributes.attr_timeout = ttl
    return attributes


class Successive:
    """`entry_attributes` of one value after the other, in one object: only what differs from the
    one before is set. For listings, where pyfuse3 copies it and most of it is the same.
    """

    def __init__(self) -> None:
        self._attributes = pyfuse3.EntryAttributes()
        self._shared: object = None
        self._size = 0

    def of(self, value: Stat) -> pyfuse3.EntryAttributes:
        inode, kind, mode, nlink, uid, gid, size, accessed_ns, modified_ns, changed_ns, ttl = value
        shared, attributes = (kind, mode, nlink, uid, gid, ttl), self._attributes
        if shared != self._shared:
            self._shared, self._size = shared, size
            self._attributes = entry_attributes(value)
            return self._attributes
        attributes.st_ino = inode
        attributes.st_atime_ns = accessed_ns
        attributes.st_mtime_ns = modified_ns
        attributes.st_ctime_ns = changed_ns
        if size != self._size:
            self._size = attributes.st_size = size
            attributes.st_blocks = (size + 511) // 512
        return attributes


def absent(ttl: float) -> pyfuse3.EntryAttributes:
    """A negative entry that the kernel may keep for `ttl` seconds."""
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino = 0
    attributes.entry_timeout = ttl
    return attributes


def attribute_change(attributes: Any, fields: Any) -> AttributeChange:
    """What a setattr request changes, size apart. A mode beside a size is the kernel's own, without
    setuid; it does not know all that Linux takes off, the file system does.
    """
    chmod = fields.update_mode and not fields.update_size
    return AttributeChange(
        mode=stat.S_IMODE(attributes.st_mode) if chmod else None,
        uid=attributes.st_uid if fields.update_uid else None,
        gid=attributes.st_gid if fields.update_gid else None,
        modified_ns=_held(attributes.st_mtime_ns) if fields.update_mtime else None,
        accessed_ns=_held(attributes.st_atime_ns) if fields.update_atime else None,
    )


def _held(time_ns: int) -> int:
    """The nearest time that 64 bits hold, as Linux does for what its file systems cannot hold."""
    return max(-_TIME_LIMIT, min(time_ns, _TIME_LIMIT - 1))

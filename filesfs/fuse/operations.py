"""Operations: pyfuse3's calls translated into the file system's. No I/O, no policy.

Each method answers through the guard; between a reply that hands an inode to the kernel and
`remember` there is no await, so that a forget cannot come between.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Sequence
from functools import partial
from typing import cast

import pyfuse3

from filesfs.domain import DEVICES, FILE, Handle, Inode
from filesfs.filesystem import Caller, Filesystem, Stat
from filesfs.fuse.attributes import (
    BLOCK_BYTES,
    Successive,
    absent,
    attribute_change,
    entry_attributes,
    kind_of_mode,
)
from filesfs.fuse.guard import guard_all
from filesfs.state import acl
from filesfs.state.inodes import Node


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask, partial(_groups, ctx.pid), ctx.pid)


def _groups(pid: int) -> Container[int]:
    """The supplementary groups of a process; none of one that cannot be looked at."""
    try:
        return pyfuse3.get_sup_groups(pid)
    except (OSError, RuntimeError):
        return ()


@guard_all
class Operations(pyfuse3.Operations):
    """The request handlers."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__()
        self._fs = filesystem
        self._xattr = filesystem.core.rules.xattr
        self.enable_writeback_cache = filesystem.core.rules.exclusive
        self.enable_acl = filesystem.core.rules.acl

    def _node(self, inode: int) -> Node:
        return self._fs.core.node(Inode(inode))

    async def _attributes(self, node: Node, status: Stat | None = None) -> pyfuse3.EntryAttributes:
        device = 0
        if node.kind in DEVICES:
            device = await self._fs.attributes.device(node)
        return entry_attributes(status or self._fs.attributes.stat(node), device)

    async def _entered(self, node: Node) -> pyfuse3.EntryAttributes:
        attributes = await self._attributes(node)
        self._fs.core.inodes.remember(node)
        return attributes

    # -- names ------------------------------------------------------------------------------------
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if len(name) > 255:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        parent = self._node(parent_inode)
        node = await self._fs.look_up(parent, name, ctx.pid)
        if node is not None:
            return await self._entered(node)
        directories = self._fs.core.directories
        # In a directory that others have moved it would be kept, and be there when that comes back.
        if directories.feed and not directories.has_strayed(parent):
            return absent(self._fs.attributes.ttl(parent.entry))
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            self._fs.forget(Inode(inode), count)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = await self._fs.namespace.special(
            self._node(parent_inode), name, kind_of_mode(mode), mode, rdev, _caller(ctx)
        )
        return await self._entered(node)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = await self._fs.namespace.mkdir(self._node(parent_inode), name, mode, _caller(ctx))
        return await self._entered(node)

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = await self._fs.namespace.symlink(
            self._node(parent_inode), name, target, _caller(ctx)
        )
        return await self._entered(node)

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = await self._fs.namespace.link(
            self._node(inode), self._node(new_parent_inode), new_name
        )
        return await self._entered(node)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.namespace.unlink(self._node(parent_inode), name)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.namespace.rmdir(self._node(parent_inode), name)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        old = (self._node(parent_inode_old), name_old)
        new = (self._node(parent_inode_new), name_new)
        await self._fs.renaming.rename(old, new, flags)

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await self._fs.attributes.readlink(self._node(inode))

    # -- attributes -------------------------------------------------------------------------------
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        return await self._attributes(node, await self._fs.fresh(node, ctx.pid))

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        change = attribute_change(attr, fields)
        caller = _caller(ctx)
        if fields.update_size:
            await self._fs.files.truncate(node, attr.st_size, caller, open_=fh is not None)
        await self._fs.attributes.set(node, change, caller)
        return await self._attributes(node)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        usage = await self._fs.usage()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_BYTES
        data.f_blocks = usage.total_bytes // BLOCK_BYTES
        data.f_bavail = usage.free_bytes // BLOCK_BYTES
        data.f_bfree = (usage.free_bytes + usage.reserved_bytes) // BLOCK_BYTES
        # Names take no fixed slots: as many as 4 KiB pieces are free.
        data.f_ffree = data.f_favail = data.f_bavail
        data.f_files = usage.files + data.f_ffree
        data.f_namemax = 255
        return data

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        raise pyfuse3.FUSEError(errno.ENOSYS)  # the kernel checks, with default_permissions

    # -- files ------------------------------------------------------------------------------------
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node, handle, keep = await self._fs.namespace.create(
            self._node(parent_inode), name, mode, flags, _caller(ctx)
        )
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep), await self._entered(node)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        handle, keep = await self._fs.files.open(self._node(inode), flags, _caller(ctx))
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        # pyfuse3 replies from any buffer without copying it; its annotation says bytes.
        data = await self._fs.files.read(Handle(fh), off, size)
        return cast("bytes", data)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._fs.files.write(Handle(fh), off, buf)

    async def flush(self, fh: int) -> None:
        await self._fs.files.flush(Handle(fh))

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fs.files.fsync(Handle(fh))

    async def release(self, fh: int) -> None:
        await self._fs.files.release(Handle(fh))

    # -- directories ------------------------------------------------------------------------------
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return await self._fs.opendir(Inode(inode))

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        parent = self._fs.directories[Handle(fh)].node
        snapshot = await self._fs.entries(Handle(fh), start_id)
        if not self._dots(parent, start_id, token):
            return
        counts, successive = self._fs.listing_counts(parent), Successive()
        reply, remember = pyfuse3.readdir_reply, self._fs.core.inodes.remember
        start = max(0, start_id - 2)
        for position, name, node, status in self._fs.listed(parent, snapshot, start, counts=counts):
            if node.kind is FILE or node.kind not in DEVICES:
                attributes = successive.of(status)
            else:
                attributes = await self._attributes(node)
            if not counts:
                attributes.entry_timeout = 0
            if not reply(token, name, attributes, position + 3):
                self._fs.core.inodes.release(node)
                return
            remember(node)

    def _dots(self, node: Node, start: int, token: pyfuse3.ReaddirToken) -> bool:
        """`.` and `..`, which carry no lookup count. False when the buffer is full."""
        above = node.names[0][0] if node.names else node
        for index, (name, which) in enumerate(((b".", node), (b"..", above))):
            if start <= index:
                attributes = entry_attributes(self._fs.attributes.stat(which))
                if not pyfuse3.readdir_reply(token, name, attributes, index + 1):
                    return False
        return True

    async def releasedir(self, fh: int) -> None:
        self._fs.releasedir(Handle(fh))

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fs.fsyncdir(self._fs.directories[Handle(fh)].node.inode)

    # -- xattrs -----------------------------------------------------------------------------------
    # ENOSYS tells the kernel once and for all not to ask, which writes would otherwise pay for.
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        self._need_xattr()
        values = self._fs.attributes.xattrs(self._node(inode))
        if _text(name) not in values:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return values[_text(name)]

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        self._need_xattr()
        names = self._fs.attributes.xattr_names(self._node(inode))
        return [name.encode("utf-8", "surrogateescape") for name in names]

    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        self._need_xattr()
        await self._set_xattr(self._node(inode), _text(name), value, ctx)

    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._need_xattr()
        await self._set_xattr(self._node(inode), _text(name), None, ctx)

    async def _set_xattr(
        self, node: Node, name: str, value: bytes | None, ctx: pyfuse3.RequestContext
    ) -> None:
        if self.enable_acl and name in acl.NAMES:
            member = _caller(ctx).is_in(self._fs.attributes.stat(node).gid)
            await self._fs.attributes.set_acl(node, name, value, keeps_setgid=member)
        else:
            await self._fs.attributes.set_xattr(node, name, value)

    def _need_xattr(self) -> None:
        if not self._xattr:
            raise pyfuse3.FUSEError(errno.ENOSYS)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

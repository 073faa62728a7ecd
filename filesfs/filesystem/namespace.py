"""Namespace: what changes names. mkdir, create, link, unlink, rmdir, and everything else but
rename.

The server decides and stamps; what is not on the server yet is changed here alone. The kernel
serialises changes of one directory; what it does not (a commit under way) is held off by the
content's lock.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress

from msgspec.structs import replace

from filesfs.domain import AttributeChange, Entry, Handle, Kind
from filesfs.errors import (
    Conflict,
    FilesfsError,
    FileSystemError,
    NotFound,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from filesfs.filesystem.content import Content
from filesfs.filesystem.core import Caller, Core
from filesfs.filesystem.files import Files
from filesfs.filesystem.tree import Tree
from filesfs.state import acl, mime
from filesfs.state.inodes import Node

log = logging.getLogger(__name__)

_S_ISGID = 0o2000


class Namespace:
    def __init__(self, core: Core, tree: Tree, files: Files) -> None:
        self._core = core
        self._tree = tree
        self._files = files

    # -- create -----------------------------------------------------------------------------------
    async def create(
        self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Node, Handle, bool]:
        """A new file, open. It stays local until its first close or fsync, unless O_EXCL is asked
        for.
        """
        self._check(parent, Kind.FILE)
        existing = await self._tree.child(parent, name)
        if existing is not None:
            if flags & os.O_EXCL:
                raise FileSystemError(errno.EEXIST)
            handle, keep = await self._files.open(existing, flags, caller)
            return existing, handle, keep
        change = self._creation(parent, mode, caller)
        if flags & os.O_EXCL:
            node = await self._create_exclusive(parent, name, change)
        else:
            node = self._create_local(parent, name, change)
        # Whoever makes a file has it stored at close, written or not.
        return node, self._files.attach(node, flags | os.O_WRONLY, caller), False

    async def _create_exclusive(self, parent: Node, name: bytes, change: AttributeChange) -> Node:
        kind = mime.mime_type(name, b"")
        return await self._put(parent, name, b"", kind, change, Kind.FILE)

    def _create_local(self, parent: Node, name: bytes, change: AttributeChange) -> Node:
        node = self._core.inodes.new_local(Kind.FILE)
        node.pending, node.pending_ctime = change, self._core.now()
        self._files.commits.content(node).touched = True
        self._core.inodes.add_name(node, parent, name)
        self._core.directories.of(parent).local[name] = node
        self._core.touched(parent)
        return node

    def _creation(self, parent: Node, mode: int, caller: Caller) -> AttributeChange:
        """Attributes at birth: the umask applied, or the directory's default access list instead of
        it; the group of a setgid directory inherited.
        """
        gid = caller.gid
        attributes = parent.entry.attributes if parent.entry is not None else None
        if attributes is not None and (attributes.mode or 0) & _S_ISGID:
            gid = attributes.gid if attributes.gid is not None else self._core.rules.gid
        now = self._core.now()
        mode, xattrs = _born(parent, mode & 0o7777, caller.umask)
        return AttributeChange(
            mode=mode,
            uid=caller.uid,
            gid=gid,
            modified_ns=now,
            accessed_ns=now,
            xattrs=xattrs,
        )

    async def _put(
        self,
        parent: Node,
        name: bytes,
        data: bytes,
        mime_type: str,
        change: AttributeChange,
        kind: Kind,
    ) -> Node:
        """A small new thing, on the server at once; EEXIST when the name is taken there."""
        async with self._core.namespace.held(stays=(parent,)):
            place = self._tree.place(parent, name)
            before = self._core.clock()
            try:
                entry = await self._core.backend.put(
                    place, data, mime_type, change, only_new=True, kind=kind
                )
            except PreconditionFailed as error:
                self._core.directories.doubt(parent, name)
                raise FileSystemError(errno.EEXIST) from error
            self._core.saw_commit(entry, before)
        return self.appeared(parent, name, entry)

    def appeared(self, parent: Node, name: bytes, entry: Entry) -> Node:
        """We made this entry: into the cache, and the parent's times."""
        self._core.directories.mutate(parent, name, entry)
        self._core.touched(parent, entry.attributes.changed_ns)
        return self._tree.adopt(parent, name, entry)

    async def symlink(self, parent: Node, name: bytes, target: bytes, caller: Caller) -> Node:
        self._check(parent, Kind.SYMLINK)
        if not 1 <= len(target) <= 4095:
            raise FileSystemError(errno.ENAMETOOLONG if target else errno.ENOENT)
        change = self._creation(parent, 0o777, Caller(caller.uid, caller.gid, 0))
        change = replace(change, mode=0o777, xattrs=None)  # a link has no access list
        await self._refuse_existing(parent, name)
        node = await self._put(parent, name, target, Kind.SYMLINK.value, change, Kind.SYMLINK)
        node.target = target
        return node

    async def special(
        self, parent: Node, name: bytes, kind: Kind, mode: int, device: int, caller: Caller
    ) -> Node:
        """mknod: a FIFO, socket or device node, or an empty regular file."""
        self._check(parent, kind)
        data = b""
        if kind in (Kind.CHARDEVICE, Kind.BLOCKDEVICE):
            data = b"%d:%d" % (os.major(device), os.minor(device))
        await self._refuse_existing(parent, name)
        mime_type = kind.value or mime.mime_type(name, b"")
        change = self._creation(parent, mode, caller)
        node = await self._put(parent, name, data, mime_type, change, kind)
        node.target = data or None
        return node

    async def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Node:
        self._check(parent, Kind.DIRECTORY)
        change = self._creation(parent, mode, caller)
        attributes = parent.entry.attributes if parent.entry is not None else None
        if attributes is not None and (attributes.mode or 0) & _S_ISGID:
            change = change.then(AttributeChange(mode=(change.mode or 0) | _S_ISGID))
        default = _default_acl(parent)
        if default is not None:
            change = change.then(AttributeChange(xattrs={acl.DEFAULT: default}))
        await self._refuse_existing(parent, name)
        place = self._tree.place(parent, name)
        stamp = self._core.directories.stamp(parent)
        try:
            before = self._core.clock()
            entry = await self._core.backend.make_directory(place, change)
            self._core.saw_commit(entry, before)
        except (Conflict, PreconditionFailed) as error:
            self._core.directories.doubt(parent, name)
            raise FileSystemError(errno.EEXIST) from error
        node = self.appeared(parent, name, entry)
        if not self._core.directories.told_of(place):  # else others may have put something in it
            self._core.directories.keep_listing(node, {}, stamp)
        self.count_link(parent, 1)
        return node

    async def _refuse_existing(self, parent: Node, name: bytes) -> None:
        if await self._tree.child(parent, name) is not None:
            raise FileSystemError(errno.EEXIST)

    def _check(self, parent: Node, kind: Kind) -> None:
        """May something of this kind come to be here?"""
        if self._tree.read_only(parent):
            raise FileSystemError(errno.EROFS, "read-only")
        if self._above_buckets(parent) and kind is not Kind.DIRECTORY:
            raise FileSystemError(errno.EPERM, "only buckets (directories) live at the root")
        if not parent.names and parent is not self._core.inodes.root:
            raise FileSystemError(errno.ENOENT, "the directory was removed")

    def _above_buckets(self, node: Node) -> bool:
        return node is self._core.inodes.root and not self._core.rules.root.bucket

    def count_link(self, directory: Node, step: int) -> None:
        """A subdirectory came or went."""
        if directory.entry is not None:
            nlink = max(2, directory.entry.nlink + step)
            self._core.refine(directory, _with_nlink(directory.entry, nlink))

    # -- link -------------------------------------------------------------------------------------
    async def link(self, node: Node, parent: Node, name: bytes) -> Node:
        """A hard link. What is not on the server yet is committed first."""
        self._check(parent, node.kind)
        if node.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EPERM, "a directory has one name")
        await self._refuse_existing(parent, name)
        if node.local or (isinstance(node.content, Content) and node.content.dirty):
            await self._files.commits.push(node)
        if not node.names:
            raise FileSystemError(errno.ENOENT, "the file has no name any more")
        try:
            entry = await self._core.backend.link(
                self._tree.location(node), self._tree.place(parent, name)
            )
        except (Conflict, PreconditionFailed) as error:
            raise FileSystemError(errno.EEXIST) from error
        except Unsupported as error:
            raise FileSystemError(errno.EPERM, "this server has no hard links") from error
        self._core.inodes.set_entry(node, entry)
        self._core.inodes.add_name(node, parent, name)
        self._core.directories.mutate(parent, name, entry)
        self._core.touched(parent, entry.attributes.changed_ns)
        self.relink(node, entry)
        return node

    def relink(self, node: Node, entry: Entry) -> None:
        """The entry (its link count) under the node's other names too."""
        for parent, name in node.names:
            self._core.directories.mutate(parent, name, entry)

    # -- remove -----------------------------------------------------------------------------------
    async def unlink(self, parent: Node, name: bytes) -> Node:
        node = await self._existing(parent, name)
        if node.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EISDIR)
        if isinstance(node.content, Content):
            async with node.content.lock:
                await self._unlink(node, parent, name)
            await self._files.commits.settle(node)
        else:
            await self._unlink(node, parent, name)
        return node

    async def _unlink(self, node: Node, parent: Node, name: bytes) -> None:
        directory = self._core.directories.of(parent)
        covered = name in directory.local and name in directory.entries
        if not node.local or covered or not self._files.commits.backlog.movable(node):
            await self._sent_or_refused(node)
        stamped = 0
        if not node.local or covered:
            stamped = await self._remove(parent, name, node.kind)
        self.disappeared(node, parent, name, stamped)

    async def _sent_or_refused(self, node: Node) -> None:
        """What the journal has of it is not on its way any more."""
        try:
            await self._files.commits.backlog.clear(node)
        except Unavailable:
            raise
        except (FilesfsError, OSError) as error:  # such as no space, which this may well make
            log.info("removed before it was stored: %s", error)

    def disappeared(self, node: Node, parent: Node, name: bytes, stamped: int = 0) -> None:
        """The name is gone, here and on the server, which stamped it so."""
        if len(node.names) == 1:  # none: it was forgotten while the server was asked
            node.last_location = self._tree.location(node)
        self._core.directories.of(parent).local.pop(name, None)
        self._core.directories.mutate(parent, name, None)
        self._core.inodes.drop_name(node, parent, name)
        now = stamped or self._core.now()
        self._core.touched(parent, now)
        if node.entry is not None and node.kind is not Kind.DIRECTORY:
            node.entry = _with_nlink(node.entry, node.entry.nlink - 1, now)
            if node.entry.nlink > 0:
                self.relink(node, node.entry)
        if not node.names:
            self._core.inodes.detach(node)
            if isinstance(node.content, Content):
                self._files.commits.backlog.forget(node)

    async def _remove(self, parent: Node, name: bytes, kind: Kind) -> int:
        place = self._tree.place(parent, name)
        try:
            return await self._core.backend.remove(place, kind)
        except NotFound as error:
            raise FileSystemError(errno.ENOENT) from error
        except Unavailable:  # it may have been done, and the feed's event is our own
            self._core.leases.moved(place, tree=False)
            self._core.directories.doubt(parent, name)
            self._core.kernel.entry_changed(parent.inode, name)
            raise

    async def rmdir(self, parent: Node, name: bytes) -> Node:
        node = await self._existing(parent, name)
        if node.kind is not Kind.DIRECTORY:
            raise FileSystemError(errno.ENOTDIR)
        known = self._core.directories.known(node)
        if known is not None and known.local:
            raise FileSystemError(errno.ENOTEMPTY)
        async with self._core.namespace.held(stays=(parent,), moves=(node,)):
            stamped = await self._remove(parent, name, Kind.DIRECTORY)
        self.disappeared(node, parent, name, stamped)
        self._core.directories.drop(node)
        self.count_link(parent, -1)
        return node

    async def _existing(self, parent: Node, name: bytes) -> Node:
        if self._tree.read_only(parent):
            raise FileSystemError(errno.EROFS, "read-only")
        node = await self._tree.child(parent, name)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        return node


def _default_acl(parent: Node) -> bytes | None:
    xattrs = parent.entry.attributes.xattrs if parent.entry is not None else {}
    return xattrs.get(acl.DEFAULT) if xattrs else None


def _born(parent: Node, mode: int, umask: int) -> tuple[int, dict[str, bytes | None] | None]:
    """Mode and access list of what is created here."""
    default = _default_acl(parent)
    if default is not None:
        with suppress(ValueError):  # another client stored something else under this name
            mode, access = acl.inherited(default, mode)
            return mode, None if access is None else {acl.ACCESS: access}
    return mode & ~umask, None


def _with_nlink(entry: Entry, nlink: int, changed_ns: int | None = None) -> Entry:
    attributes = entry.attributes
    if changed_ns is not None:
        attributes = replace(attributes, changed_ns=max(changed_ns, attributes.changed_ns or 0))
    return replace(entry, nlink=nlink, attributes=attributes)

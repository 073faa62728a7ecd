"""Attributes: what stat shows of a node, and chmod, chown, utimensat, xattrs.

What is not on the server yet, or has bytes on the way there, keeps its changes for that commit;
everything else is one PATCH.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from msgspec.structs import replace

from filesfs.domain import (
    DEVICES,
    DIRECTORY,
    FILE,
    NO_CHANGE,
    AttributeChange,
    Attributes,
    Entry,
    Kind,
    kind_of,
)
from filesfs.errors import Corrupted, FileSystemError, NotFound, Unsupported
from filesfs.filesystem.content import Content, unsent
from filesfs.filesystem.core import Caller, Core, Stat
from filesfs.filesystem.files import Files
from filesfs.filesystem.tree import Tree
from filesfs.packed import Form
from filesfs.state import acl
from filesfs.state.inodes import Node
from filesfs.wire import is_registered

_NS = 1_000_000_000
_S_ISGID = 0o2000
_NO_ATTRIBUTES = Attributes()
_DIGITS = 10  # of a device's number, which has 32 bits
_LINK_MOST = 4095  # bytes of a link's target, as with Linux
_ROOT = Caller()
_XATTR_BYTES = 64 << 10  # an entry, names and values: the contract's limit
# Of system.* only access control lists, see set_acl, and those only where the kernel enforces them.
_XATTR_NAMESPACES = ("user.", "trusted.", "security.")
MIME_XATTR = "user.mime_type"
_MIME_TYPE_LENGTH = 255  # the contract's limit
_TOLD = "user.files."  # told by the server, not to be set


class AttributeView:
    def __init__(self, core: Core, tree: Tree, files: Files) -> None:
        self._core = core
        self._tree = tree
        self._files = files

    # -- stat -------------------------------------------------------------------------------------
    def stat(self, node: Node) -> Stat:
        """The node as it is known now; no request."""
        entry = node.entry
        known = entry.attributes if entry is not None else _NO_ATTRIBUTES
        if node.pending is not NO_CHANGE:
            known = _changed(known, node.pending)
        created_at = entry.created_at if entry is not None else 0
        nlink, size, ttl = self._nlink(node, entry), self._size(node, entry), self.ttl(entry)
        return self._stat(node, known, created_at, nlink, size, ttl)

    def stat_at_rest(self, node: Node, form: Form, ttl: float) -> Stat:
        """As `stat`, of a node that is at rest with what this is the form of. `ttl`: for all that
        the feed tells of.
        """
        size, nlink, known_by = form.size, form.nlink, form.resource_id
        if node.kind is not FILE:
            nlink = max(2, nlink) if node.kind is DIRECTORY else nlink
            size = 0 if node.kind in DEVICES else size
        if known_by is not None and is_registered(known_by):
            ttl = self._ttl(known_by)
        return self._stat(node, form, form.created_at, nlink, size, ttl)

    def _stat(
        self,
        node: Node,
        known: Attributes | Form,
        created_at: int,
        nlink: int,
        size: int,
        ttl: float,
    ) -> Stat:
        modified, changed, accessed = known.modified_ns, known.changed_ns, known.accessed_ns
        if modified is None:
            modified = created_at * _NS
        if changed is None:
            changed = modified
        mode, uid, gid = known.mode, known.uid, known.gid
        values = (
            node.inode,
            node.kind,
            mode if mode is not None else self._default_mode(node),
            nlink,
            uid if uid is not None else self._core.rules.uid,
            gid if gid is not None else self._core.rules.gid,
            size,
            accessed if accessed is not None else modified,
            modified,
            node.pending_ctime if node.pending_ctime > changed else changed,
            ttl,
        )
        return tuple.__new__(Stat, values)  # in half the time of Stat(...)

    def ttl(self, entry: Entry | None) -> float:
        """Seconds for which the kernel may believe what we say of it, or of what is not in it. Of
        registered locations the feed tells nothing.
        """
        return self._ttl(entry.resource_id if entry is not None else None)

    def _ttl(self, known: str | None) -> float:
        told = self._core.directories.feed and not (known and is_registered(known))
        return self._core.rules.feed_ttl if told else self._core.rules.ttl

    def _default_mode(self, node: Node) -> int:
        full = 0o777 if node.kind in (Kind.DIRECTORY, Kind.SYMLINK) else 0o666
        return full if node.kind is Kind.SYMLINK else full & ~self._core.rules.umask

    def _nlink(self, node: Node, entry: Entry | None) -> int:
        if entry is None:
            return len(node.names)
        if node.kind is Kind.DIRECTORY:
            is_there = node.above is not None or node is self._core.inodes.root
            return max(2, entry.nlink) if is_there else 0
        return entry.nlink

    def _size(self, node: Node, entry: Entry | None) -> int:
        content = node.content
        if isinstance(content, Content) and content.size is not None:
            return content.size
        if node.kind in DEVICES or entry is None:
            return 0
        return entry.size

    async def fresh(self, node: Node) -> Stat:
        """stat for the kernel, which asks because what it knew has run out."""
        if node.names and not node.local and node is not self._core.inodes.root:
            parent, name = node.names[0]
            known, entry = self._core.directories.lookup(parent, name)
            listed = known and entry is not None and not node.shows(entry)  # since it was asked for
            if node.opens == 0 and (listed or not known) and not self._is_detached(node):
                found = await self._tree.child(parent, name)
                if found is None or found is not node:
                    raise FileSystemError(errno.ESTALE, "the name leads elsewhere by now")
        if node is self._core.inodes.root and not self._core.directories.feed:
            await self._refresh_root(node)
        return self.stat(node)

    def _is_detached(self, node: Node) -> bool:
        """Whether another node has its place: who still holds this one sees what it was."""
        return node.entry is not None and self._core.inodes.find(node.entry) is not node

    async def _refresh_root(self, node: Node) -> None:
        if self._core.rules.root.bucket:
            entry = await self._core.backend.stat(self._core.rules.root)
            self._core.inodes.set_entry(node, entry)

    async def device(self, node: Node) -> int:
        """The device number of a device node: its content says "MAJOR:MINOR"."""
        if node.target is None and node.entry is not None:
            entry = self._tree.located(node)
            node.target = await self._core.backend.read(entry, 0, 64)
        major, _, minor = (node.target or b"0:0").partition(b":")
        if not (major.isdigit() and minor.isdigit() and max(len(major), len(minor)) < _DIGITS):
            raise Corrupted(f"{str(self._tree.location(node))!r} names no device")
        return os.makedev(int(major), int(minor))

    async def readlink(self, node: Node) -> bytes:
        if node.kind is not Kind.SYMLINK or node.entry is None:
            raise FileSystemError(errno.EINVAL)
        if node.target is None:
            entry = self._tree.located(node)
            if entry.size > _LINK_MOST:
                raise Corrupted(f"a link of {entry.size} bytes at {str(entry.location)!r}")
            # The kernel's interface takes bytes alone, and an answer may be any buffer.
            node.target = bytes(await self._core.backend.read(entry, 0, entry.size))
        return node.target

    # -- change -----------------------------------------------------------------------------------
    async def set(self, node: Node, change: AttributeChange, caller: Caller = _ROOT) -> None:
        """chmod, chown, utimensat. A chown clears setuid and setgid as Linux does."""
        if self._tree.read_only(node):
            raise FileSystemError(errno.EROFS, "read-only")
        if change.uid is not None or change.gid is not None:
            change = self._after_chown(node, change, caller)
        change = self._with_acl(node, change)
        if not change or self._is_only_ctime(node, change):
            return
        if self._waits(node):
            node.pending = node.pending.then(change)
            node.pending_ctime = self._core.now()
            self._files.commits.backlog.change(node, change)
            return
        await self._patch(node, change)

    def _is_only_ctime(self, node: Node, change: AttributeChange) -> bool:
        """A kernel that gathers writes sends the times that it keeps of a file after each rename
        and link, of which only ctime is new, and the server has stamped its own.
        """
        if not self._core.rules.exclusive or node.kind is not Kind.FILE:
            return False
        return change == AttributeChange(modified_ns=self.stat(node).modified_ns)

    def _after_chown(self, node: Node, change: AttributeChange, caller: Caller) -> AttributeChange:
        before = self.stat(node)
        mode = change.mode if change.mode is not None else before.mode
        if node.kind is Kind.DIRECTORY or not mode & 0o6000:
            return change
        cleared = caller.without_setid(mode, before.gid)
        return change.then(AttributeChange(mode=cleared)) if cleared != mode else change

    def _with_acl(self, node: Node, change: AttributeChange) -> AttributeChange:
        """A chmod changes the access list too, also where this mount does not enforce it."""
        value = self._stored(node).get(acl.ACCESS)
        if change.mode is None or change.xattrs is not None or value is None:
            return change
        with suppress(ValueError):
            change = replace(change, xattrs={acl.ACCESS: acl.after_chmod(value, change.mode)})
        return change

    def _waits(self, node: Node) -> bool:
        """Whether the next commit takes the change along."""
        return unsent(node) or not (node.names or node is self._core.inodes.root)

    async def _patch(self, node: Node, change: AttributeChange) -> None:
        where = self._tree.location(node)
        if not where.bucket:
            raise FileSystemError(errno.EPERM, "the root above the buckets has no attributes")
        try:
            before = self._core.clock()
            entry = await self._core.backend.set_attributes(where, node.kind, change)
            self._core.saw_commit(entry, before)
        except NotFound as error:
            raise FileSystemError(errno.ENOENT) from error
        except Unsupported:
            node.pending = node.pending.then(change)  # a plain server: for the life of the mount
            return
        self.learned(node, entry)

    def learned(self, node: Node, entry: Entry) -> None:
        """The server's answer about this node's attributes; its version stays what the open handles
        have.
        """
        if node.opens and self._files.commits.is_ours_anew(node, entry):
            self._files.commits.rebase(node, entry)
        elif node.entry is not None and node.opens:
            attributes = entry.attributes
            entry = replace(node.entry, attributes=attributes, mime_type=entry.mime_type)
        self._core.inodes.set_entry(node, entry)
        node.pending_ctime = 0
        for parent, name in node.names:
            self._core.directories.mutate(parent, name, entry)

    # -- xattrs (only with -o xattr) --------------------------------------------------------------
    def xattrs(self, node: Node) -> dict[str, bytes]:
        """All of them, the ones that tell where the file is on the server included."""
        values = acl.shown(self._stored(node), enforced=self._core.rules.acl)
        return {**values, **self._informative(node)}

    def xattr_names(self, node: Node) -> list[str]:
        """Those that a copy takes along: where the file is on the server is only told when asked
        for by name.
        """
        return [name for name in self.xattrs(node) if not name.startswith(_TOLD)]

    def _stored(self, node: Node) -> dict[str, bytes]:
        values = dict(node.entry.attributes.xattrs) if node.entry is not None else {}
        for name, value in (node.pending.xattrs or {}).items():
            if value is None:
                values.pop(name, None)
            else:
                values[name] = value
        return values

    def _informative(self, node: Node) -> dict[str, bytes]:
        if node.kind is not Kind.FILE or node.entry is None or not node.names:
            return {}
        entry = self._tree.located(node)
        return {
            MIME_XATTR: entry.mime_type.encode(),
            "user.files.url": entry.content_url.encode(),
            "user.files.bucket": entry.location.bucket.encode(),
            "user.files.key": entry.location.key.encode(),
        }

    async def set_xattr(self, node: Node, name: str, value: bytes | None) -> None:
        """None removes. user.mime_type changes the mime type."""
        if not name.startswith(_XATTR_NAMESPACES):
            raise FileSystemError(errno.ENOTSUP, f"{name}: no such class of attributes here")
        present = self.xattrs(node)
        if value is None and name not in present:
            raise FileSystemError(errno.ENODATA)
        self._need_catalog(node)
        if name.startswith(_TOLD):
            raise FileSystemError(errno.EPERM, "told by the server")
        total = sum(len(key) + len(data) for key, data in present.items())
        if value is not None and total + len(name) + len(value) > _XATTR_BYTES:
            raise FileSystemError(errno.ENOSPC, "64 KiB of extended attributes an entry")
        if name == MIME_XATTR and node.kind is Kind.FILE:
            await self.set(node, AttributeChange(mime_type=_mime_type(value)))
        else:
            await self.set(node, AttributeChange(xattrs={name: value}))

    def _need_catalog(self, node: Node) -> None:
        """Told at once: a close() that the server refuses for an attribute would lose the data."""
        if self._tree.registered(node):
            raise FileSystemError(errno.ENOTSUP, "a registered location keeps no such attributes")

    async def set_acl(
        self, node: Node, name: str, value: bytes | None, *, keeps_setgid: bool
    ) -> None:
        """Set or remove an access control list. An access list sets the mode with it, in one
        change; a caller outside the file's group takes setgid off.
        """
        stored = self._stored(node)
        if value is not None:
            self._need_catalog(node)
        if value is None and name not in stored:
            return  # as with Linux's own file systems
        if name == acl.DEFAULT or value is None:
            await self.set(node, AttributeChange(xattrs={name: value}))
            return
        try:
            mode, kept = acl.applied(value, self.stat(node).mode)
        except ValueError as error:
            raise FileSystemError(errno.EINVAL, str(error)) from error
        if not keeps_setgid:
            mode &= ~_S_ISGID
        xattrs = {name: kept} if kept is not None or name in stored else {}
        await self.set(node, AttributeChange(mode=mode, xattrs=xattrs))


def _mime_type(value: bytes | None) -> str:
    """A file's, as it can stand in a header: what the server refuses would fail the next close."""
    text = (value or b"application/octet-stream").decode("ascii", "replace")
    fits = text.isascii() and text.isprintable() and len(text) <= _MIME_TYPE_LENGTH
    if not fits or kind_of(text) is not Kind.FILE:
        raise FileSystemError(errno.EINVAL, f"{value!r} is no mime type of a file")
    return text


def _changed(known: Attributes, change: AttributeChange) -> Attributes:
    """What stat shows of them once the change is made."""
    return replace(
        known,
        mode=change.mode if change.mode is not None else known.mode,
        uid=change.uid if change.uid is not None else known.uid,
        gid=change.gid if change.gid is not None else known.gid,
        modified_ns=change.modified_ns if change.modified_ns is not None else known.modified_ns,
        accessed_ns=change.accessed_ns if change.accessed_ns is not None else known.accessed_ns,
    )

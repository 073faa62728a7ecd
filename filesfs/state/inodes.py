"""InodeTable: which inode stands for which resource, and how often the kernel holds it.

All methods are sync, hence atomic. It must not talk to the server nor to the kernel. A node stays
in the table while the kernel holds a lookup, a handle is open, something of it is not on the server
yet, or a node below it lives.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence

from filesfs.domain import NO_CHANGE, Entry, Inode, Kind, Location, ResourceId
from filesfs.packed import Form, Packed, kind_of_form, pack, unpack
from filesfs.wire import is_registered

ROOT = Inode(1)
# Inodes of what is not on the server yet, until it gets a resource id to derive its number from
# after a forget.
_FIRST_LOCAL = 1 << 62
_EMPTY_DIGEST = hashlib.blake2b(digest_size=8)
_copy = _EMPTY_DIGEST.copy
_number = int.from_bytes


class Node:
    """One inode. Mutated by InodeTable and, in the fields below the line, by the filesystem layer
    alone. There may be a million, so no field has an object of its own until it needs one.
    """

    __slots__ = (
        *("inode", "kind", "_entry", "above", "name", "_others", "lookups", "opens", "children"),
        *("pending", "pending_ctime", "content", "last_location", "cached_version", "target"),
    )

    def __init__(self, inode: Inode, kind: Kind, entry: Entry | Packed | None) -> None:
        self.inode = inode
        self.kind = kind
        self._entry: Entry | Packed | None = entry
        self.above: Node | None = None  # with `name` its first name; set by `names` and `named`
        self.name = b""
        self._others: tuple[tuple[Node, bytes], ...] = ()
        self.lookups = 0
        self.opens = 0
        self.children = 0  # live nodes that have a name in this directory
        # -----------------------------------------------------------------------------------------
        self.pending = NO_CHANGE  # goes with the next commit
        self.pending_ctime = 0  # nanoseconds; of the latest local change, 0 when there is none
        self.content: object | None = None  # filesystem.content.Content while open or unsent
        self.last_location: Location | None = None  # where it was when its last name went
        self.cached_version: str | None = None  # the version whose pages the kernel may hold
        self.target: bytes | None = None  # of a symlink

    def __repr__(self) -> str:
        return f"<Node {self.inode} {self.kind.name} {[name for _, name in self.names]}>"

    @property
    def names(self) -> tuple[tuple[Node, bytes], ...]:
        """The first one makes its path."""
        if self.above is None:
            return ()
        if self._others:
            return ((self.above, self.name), *self._others)
        return ((self.above, self.name),)

    @names.setter
    def names(self, names: Sequence[tuple[Node, bytes]]) -> None:
        self.above, self.name = names[0] if names else (None, b"")
        self._others = tuple(names[1:])

    def named(self, parent: Node, name: bytes) -> None:
        """Give it its first name."""
        self.above, self.name = parent, name
        parent.children += 1

    @property
    def entry(self) -> Entry | None:
        """The server's last word on it; None while it is not on the server."""
        entry = self._entry
        return unpack(entry) if isinstance(entry, bytes) else entry

    @entry.setter
    def entry(self, entry: Entry | Packed) -> None:
        self._entry = entry

    @property
    def busy(self) -> bool:
        """Open, or not all of it on the server: its entry stays at hand."""
        return bool(self.opens) or self.content is not None

    def shows(self, entry: Entry) -> bool:
        """Whether it is at rest with this very entry, hence nothing is to be learned from it."""
        held = self._entry
        return held is entry or (isinstance(held, bytes) and held == pack(entry))

    def rest(self) -> None:
        """Nobody has it open: the entry takes less room until it is used again."""
        entry = self._entry
        if isinstance(entry, Entry) and not self.busy:
            self._entry = pack(entry)

    def rests_as(self, packed: Packed, parent: Node, name: bytes) -> bool:
        """Whether it is at rest with this entry, under this name alone, and no change waits."""
        return (
            self._entry == packed
            and self.above is parent
            and self.name == name
            and not (self._others or self.opens)
            and self.content is None
            and self.pending is NO_CHANGE
        )

    @property
    def local(self) -> bool:
        """Not on the server yet."""
        return self._entry is None

    @property
    def held(self) -> bool:
        return bool(self.lookups or self.opens or self.children or self.content is not None)


def identity(entry: Entry) -> str:
    """What makes two answers speak of one thing: the resource, or on a plain server the name."""
    return entry.resource_id or f"@{entry.location}"


def inside(node: Node, ancestor: Node) -> bool:
    """Whether the node is `ancestor` or below it."""
    while node is not ancestor:
        if node.above is None:
            return False
        node = node.above
    return True


def registered(node: Node) -> bool:
    """Whether it lies in a registered location; what is not there yet: if its directory does."""
    entry = node.entry
    while node.above is not None and (entry is None or entry.resource_id is None):
        node = node.above
        entry = node.entry
    known = entry.resource_id if entry is not None else None
    return known is not None and is_registered(known)


def _derived(key: str) -> Inode:
    """A number that survives a forget: 61 bits of a digest, above the root's."""
    digest = _copy()  # in a third of the time of a new one
    digest.update(key.encode())
    return (_number(digest.digest(), "big") >> 3) | 2  # type: ignore[return-value]  # a call less


# One that is not found is derived again when it is made.
derived_inode = functools.lru_cache(maxsize=16)(_derived)


class InodeTable:
    """Owner of all nodes."""

    def __init__(self, root: Entry | None) -> None:
        self.on_release: Callable[[Node], None] = lambda node: None
        self.root = Node(ROOT, Kind.DIRECTORY, root)
        self.root.lookups = 1
        self._by_inode: dict[Inode, Node] = {ROOT: self.root}
        # By identity, what is not at the number that is derived from it; None: nothing stands for
        # it, the node that has the number was detached.
        self._strays: dict[str, Node | None] = {}
        self._next_local = _FIRST_LOCAL

    def __len__(self) -> int:
        return len(self._by_inode)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._by_inode.values()))

    def get(self, inode: Inode) -> Node | None:
        return self._by_inode.get(inode)

    def find(self, entry: Entry) -> Node | None:
        """The node that stands for this entry's resource, if one is known."""
        known_by = identity(entry)
        if known_by in self._strays:
            return self._strays[known_by]
        node = self._by_inode.get(derived_inode(known_by))
        return node if node is None or node.shows(entry) else self._find(known_by)

    def of_resource(self, resource_id: ResourceId) -> Node | None:
        return self._find(resource_id)

    def _find(self, known_by: str) -> Node | None:
        if known_by in self._strays:
            return self._strays[known_by]
        node = self._by_inode.get(derived_inode(known_by))
        entry = node.entry if node is not None else None
        return node if entry is not None and identity(entry) == known_by else None

    def new_local(self, kind: Kind) -> Node:
        """A node for something that the server does not have yet."""
        self._next_local += 1
        node = Node(Inode(self._next_local), kind, None)
        self._by_inode[node.inode] = node
        return node

    def new_for(self, entry: Entry) -> Node:
        """A node for a resource seen for the first time, or in a version that its old node cannot
        show.
        """
        known_by = identity(entry)
        inode = derived_inode(known_by)
        taken = inode in self._by_inode
        if taken:
            self._next_local += 1
            inode = Inode(self._next_local)
        node = self._by_inode[inode] = Node(inode, entry.kind, entry)
        self._bind(known_by, node, derived=not taken)
        return node

    def at_rest(self, form: Form, packed: Packed, parent: Node, name: bytes) -> Node | None:
        """The node of a listed name, where nothing has to be thought about: it has that name alone
        and shows just this, or nothing was known of the resource. Else None; see `Tree.adopt`.
        """
        known_by = form.resource_id
        if not known_by or known_by in self._strays:
            return None
        inode = _derived(known_by)
        node = self._by_inode.get(inode)
        if node is not None:
            return node if node.rests_as(packed, parent, name) else None
        node = self._by_inode[inode] = Node(inode, kind_of_form(form), packed)
        node.named(parent, name)
        return node

    def _bind(self, known_by: str, node: Node, *, derived: bool) -> None:
        if derived:
            self._strays.pop(known_by, None)
        else:
            self._strays[known_by] = node

    def set_entry(self, node: Node, entry: Entry) -> None:
        """The server's newer word on the node; binds it to the entry's resource."""
        if node.shows(entry):
            return
        known_by = identity(entry)
        held = entry if node.busy else pack(entry)  # now, while the packer remembers it
        known = node.entry
        if known is None or identity(known) != known_by:
            self.detach(node)
            self._bind(known_by, node, derived=derived_inode(known_by) == node.inode)
        node.entry = held

    def detach(self, node: Node) -> None:
        """The resource gets another node at its next lookup; open handles keep this one."""
        entry = node.entry
        if entry is not None and self.find(entry) is node:
            self._strays[identity(entry)] = None

    def _unbind(self, node: Node) -> None:
        """The node goes, and nothing is left of its identity."""
        del self._by_inode[node.inode]
        entry = node.entry if self._strays else None  # without any, nothing can be left
        if entry is None:
            return
        known_by = identity(entry)
        if self._strays.get(known_by, node) in (None, node):
            self._strays.pop(known_by, None)
            if self._find(known_by) is not None:  # a detached one that is still open
                self._strays[known_by] = None

    def add_name(self, node: Node, parent: Node, name: bytes) -> None:
        if (parent, name) not in node.names:
            node.names = (*node.names, (parent, name))
            parent.children += 1

    def drop_name(self, node: Node, parent: Node, name: bytes) -> None:
        if (parent, name) in node.names:
            node.names = tuple(pair for pair in node.names if pair != (parent, name))
            parent.children -= 1
            self.release(parent)

    def move_name(self, node: Node, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> None:
        """`new` takes the place of `old` among the node's names."""
        if node.names == (old,):  # nearly always
            old[0].children -= 1
            node.named(*new)
            self.release(old[0])
            return
        self.add_name(node, *new)
        others = [pair for pair in node.names if pair != new]
        # A lookup of the new name may have heard of the move before us, and dropped the old one.
        others.insert(others.index(old) if old in others else 0, new)
        node.names = tuple(others)
        self.drop_name(node, *old)

    def remember(self, node: Node) -> None:
        """The kernel took a reference (lookup, create, a listed entry)."""
        node.lookups += 1
        if type(node._entry) is not bytes:
            node.rest()

    def forget(self, inode: Inode, count: int) -> None:
        node = self._by_inode.get(inode)
        if node is not None and node is not self.root:
            node.lookups = max(0, node.lookups - count)
            self.release(node)

    def release(self, node: Node) -> None:
        """Drop the node if nothing holds it any more, and then its parents likewise."""
        if node is self.root or node.held or self._by_inode.get(node.inode) is not node:
            node.rest()
            return
        self._unbind(node)
        self.on_release(node)
        for parent, _ in node.names:
            parent.children -= 1
            self.release(parent)
        # names stay readable for a handle-less straggler, but no longer count in the parents
        node.names = ()

"""InodeTable: which inode stands for which resource, and how often the kernel holds it.

All methods are sync, hence atomic. It must not talk to the server nor to the kernel. A node stays
in the table while the kernel holds a lookup, a handle is open, something of it is not on the server
yet, or a node below it lives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from filesfs.domain import AttributeChange, Entry, Inode, Kind, Location, ResourceId

ROOT = Inode(1)
# Inodes of what is not on the server yet, until it gets a resource id to derive its number from
# after a forget.
_FIRST_LOCAL = 1 << 62


@dataclass(slots=True, eq=False)
class Node:
    """One inode. Mutated by InodeTable and, in the fields below the line, by the filesystem layer
    alone.
    """

    inode: Inode
    kind: Kind
    entry: Entry | None  # the server's last word on it; None while it is not on the server
    names: list[tuple[Node, bytes]] = field(
        default_factory=list, repr=False
    )  # the first one makes its path
    lookups: int = 0
    opens: int = 0
    children: int = 0  # live nodes that have a name in this directory
    # -------------------------------------------------------------------------------------------
    pending: AttributeChange = field(default_factory=AttributeChange)  # goes with the next commit
    pending_ctime: int = 0  # nanoseconds; of the latest local change, 0 when there is none
    content: object | None = None  # filesystem.content.Content while open or unsent
    last_location: Location | None = None  # where it was when its last name went
    cached_version: str | None = None  # the version whose pages the kernel may hold
    target: bytes | None = None  # of a symlink

    @property
    def local(self) -> bool:
        """Not on the server yet."""
        return self.entry is None

    @property
    def held(self) -> bool:
        return bool(self.lookups or self.opens or self.children or self.content is not None)


def identity(entry: Entry) -> str:
    """What makes two answers speak of one thing: the resource, or on a plain server the name."""
    return entry.resource_id or f"@{entry.location}"


def derived_inode(key: str) -> Inode:
    """A number that survives a forget: 61 bits of a digest, above the root's."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return Inode((int.from_bytes(digest, "big") >> 3) | 2)


class InodeTable:
    """Owner of all nodes."""

    def __init__(self, root: Entry | None) -> None:
        self.on_release: Callable[[Node], None] = lambda node: None
        self.root = Node(ROOT, Kind.DIRECTORY, root)
        self.root.lookups = 1
        self._by_inode: dict[Inode, Node] = {ROOT: self.root}
        self._by_identity: dict[str, Node] = {}
        self._next_local = _FIRST_LOCAL

    def __len__(self) -> int:
        return len(self._by_inode)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._by_inode.values()))

    def get(self, inode: Inode) -> Node | None:
        return self._by_inode.get(inode)

    def find(self, entry: Entry) -> Node | None:
        """The node that stands for this entry's resource, if one is known."""
        return self._by_identity.get(identity(entry))

    def of_resource(self, resource_id: ResourceId) -> Node | None:
        return self._by_identity.get(resource_id)

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
        inode = derived_inode(identity(entry))
        if inode in self._by_inode:
            self._next_local += 1
            inode = Inode(self._next_local)
        node = Node(inode, entry.kind, entry)
        self._by_inode[inode] = node
        self._by_identity[identity(entry)] = node
        return node

    def set_entry(self, node: Node, entry: Entry) -> None:
        """The server's newer word on the node; binds it to the entry's resource."""
        if node.entry is None or identity(node.entry) != identity(entry):
            self.detach(node)
            self._by_identity[identity(entry)] = node
        node.entry = entry

    def detach(self, node: Node) -> None:
        """The resource gets another node at its next lookup; open handles keep this one."""
        if node.entry is not None and self._by_identity.get(identity(node.entry)) is node:
            del self._by_identity[identity(node.entry)]

    def add_name(self, node: Node, parent: Node, name: bytes) -> None:
        if (parent, name) not in node.names:
            node.names.append((parent, name))
            parent.children += 1

    def drop_name(self, node: Node, parent: Node, name: bytes) -> None:
        if (parent, name) in node.names:
            node.names.remove((parent, name))
            parent.children -= 1
            self.release(parent)

    def remember(self, node: Node) -> None:
        """The kernel took a reference (lookup, create, a listed entry)."""
        node.lookups += 1

    def forget(self, inode: Inode, count: int) -> None:
        node = self._by_inode.get(inode)
        if node is not None and node is not self.root:
            node.lookups = max(0, node.lookups - count)
            self.release(node)

    def release(self, node: Node) -> None:
        """Drop the node if nothing holds it any more, and then its parents likewise."""
        if node is self.root or node.held or self._by_inode.get(node.inode) is not node:
            return
        del self._by_inode[node.inode]
        self.detach(node)
        self.on_release(node)
        for parent, _ in node.names:
            parent.children -= 1
            self.release(parent)
        # names stay readable for a handle-less straggler, but no longer count in the parents
        node.names.clear()

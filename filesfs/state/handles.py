"""HandleTable: open files and directories by the number that the kernel knows. Sync; no I/O."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from filesfs.domain import Handle
from filesfs.state.inodes import Node


@dataclass(slots=True, eq=False)
class FileHandle:
    """One open file. `opener` stands for who writes, which FUSE does not say."""

    node: Node
    append: bool
    opener: Any  # filesystem.Caller
    writable: bool
    stream: Any = None  # read.ReadStream of `version`, made at the first read
    version: str | None = None


@dataclass(slots=True, eq=False)
class DirectoryHandle:
    """One open directory with the names as they were at opendir (or the last rewind)."""

    node: Node
    snapshot: list[bytes] = field(default_factory=list)
    started: bool = False


HandleType = TypeVar("HandleType", FileHandle, DirectoryHandle)


class HandleTable(Generic[HandleType]):
    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[Handle, HandleType] = {}

    def add(self, handle: HandleType) -> Handle:
        number = Handle(next(self._numbers))
        self._open[number] = handle
        return number

    def __getitem__(self, number: Handle) -> HandleType:
        return self._open[number]

    def pop(self, number: Handle) -> HandleType | None:
        return self._open.pop(number, None)

    def written(self) -> frozenset[Node]:
        """What is open for writing."""
        handles = self._open.values()
        return frozenset(h.node for h in handles if isinstance(h, FileHandle) and h.writable)

    def __len__(self) -> int:
        return len(self._open)

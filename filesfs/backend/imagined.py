"""What a plain server does not hold: directories without files, kept for the life of the mount.

It must not do I/O.
"""

from __future__ import annotations

import time

from filesfs.backend import parse
from filesfs.domain import Entry, Location


class ImaginedDirectories:
    """Owner of the directories that exist in this mount alone. Sync, so each method is atomic.

    Invariant: with a directory all its parents below the bucket are held too.
    """

    def __init__(self) -> None:
        self._held: dict[Location, Entry] = {}

    def __contains__(self, location: Location) -> bool:
        return location in self._held

    def get(self, location: Location) -> Entry | None:
        return self._held.get(location)

    def add(self, location: Location) -> Entry | None:
        """Hold a directory and its parents; a bucket is the server's own affair."""
        each = location
        while each.key and each not in self._held:
            entry = parse.directory(each)
            self._held[each] = Entry(
                entry.location, entry.kind, 0, entry.mime_type, int(time.time())
            )
            each = each.parent
        return self._held.get(location)

    def discard(self, location: Location) -> None:
        self._held.pop(location, None)

    def children(self, location: Location) -> list[Entry]:
        """The imagined directories directly in this one."""
        return [entry for each, entry in self._held.items() if each.parent == location]

    def rename(self, source: Location, destination: Location) -> None:
        """Move a directory and all below it."""
        prefix = f"{source.key}/"
        for each in list(self._held):
            if each.bucket == source.bucket and f"{each.key}/".startswith(prefix):
                del self._held[each]
                self.add(
                    Location(destination.bucket, destination.key + each.key[len(source.key) :])
                )

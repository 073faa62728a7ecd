"""The state of an in-memory Files server: buckets, resources, names, versions, change events.

It must not be asynchronous and injects no faults: `memory_backend.py` wraps it as a FilesBackend.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from filesfs.domain import (
    AttributeChange,
    Attributes,
    Change,
    Entry,
    ETag,
    Kind,
    Location,
    ResourceId,
    kind_of,
)
from filesfs.errors import Conflict, Gone, InvalidRequest, NotFound, PreconditionFailed, Unsupported
from filesfs.packed import Packed, pack
from filesfs.wire import CONTENT_BYTES, CONTENTS_BYTES, DIRECTORY, Operation

Subscriber = Callable[[str, Change], None]


@dataclass
class Resource:
    """What a name stands for; several names may share one (hard links)."""

    resource_id: ResourceId
    mime_type: str
    created_at: int
    etag: ETag
    content: bytes = b""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    modified_ns: int = 0
    changed_ns: int = 0
    accessed_ns: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return kind_of(self.mime_type)


class MemoryTree:
    """Owner of everything that an in-memory server knows. Sync, so each method is atomic."""

    def __init__(self, clock: Callable[[], int] = time.time_ns, epoch: str = "e1") -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._subscribers: list[Subscriber] = []
        self.epoch = epoch
        self.event_number = 0
        self.buckets: dict[str, Resource] = {}
        self.names: dict[Location, Resource] = {}  # files, links and explicit directories
        self.versions: dict[ETag, bytes] = {}  # every content ever committed

    @property
    def cursor(self) -> str:
        return f"{self.epoch}-{self.event_number}"

    # -- reading ----------------------------------------------------------------------------------
    def stat(self, location: Location) -> Entry:
        if not location.bucket:
            return Entry(location, Kind.DIRECTORY, 0, DIRECTORY, 0, resource_id=ResourceId("root"))
        if (resource := self._find(location)) is not None:
            return self._entry(location, resource)
        if self.is_directory(location):
            implied = ResourceId(f"implied-{location}")
            return Entry(location, Kind.DIRECTORY, 0, DIRECTORY, 0, resource_id=implied)
        raise NotFound(f"There is nothing at {str(location)!r}.")

    def children(self, location: Location) -> list[Entry]:
        """The entries directly in a directory, in key order; NotFound, or Conflict for a file."""
        if self.stat(location).kind is not Kind.DIRECTORY:
            raise Conflict(f"{str(location)!r} is not a directory.", "not-directory")
        if not location.bucket:
            return [self.stat(Location(name)) for name in sorted(self.buckets)]
        names = {name.key[len(_prefix(location)) :].split("/")[0] for name in self.below(location)}
        return [self.stat(location.child(name)) for name in sorted(names)]

    def small_files(
        self, directory: Location, names: Iterable[str]
    ) -> tuple[dict[str, Packed], dict[str, memoryview]]:
        """As `read_many` tells of them."""
        entries = {entry.location.name: entry for entry in self.children(directory)}
        at_rest: dict[str, Packed] = {}
        contents: dict[str, memoryview] = {}
        left = CONTENTS_BYTES
        for name in names:
            entry = entries.get(name)
            if entry is None or entry.kind is not Kind.FILE or entry.size > CONTENT_BYTES:
                continue
            left -= entry.size
            if left < 0:
                break
            content = self.resource(directory.child(name)).content
            at_rest[name], contents[name] = pack(entry), memoryview(content)
        return at_rest, contents

    def below(self, location: Location) -> Iterator[Location]:
        """Every stored name under a directory, itself left out."""
        prefix = _prefix(location)
        for name in self.names:
            if name.bucket == location.bucket and name.key.startswith(prefix) and name.key:
                yield name

    def is_directory(self, location: Location) -> bool:
        resource = self._find(location)
        if resource is not None:
            return resource.kind is Kind.DIRECTORY
        return not location.bucket or any(True for _ in self.below(location))

    def resource(self, location: Location) -> Resource:
        if (resource := self._find(location)) is None:
            raise NotFound(f"There is nothing at {str(location)!r}.")
        return resource

    # -- changing ---------------------------------------------------------------------------------
    def commit(
        self,
        location: Location,
        content: bytes,
        mime_type: str,
        change: AttributeChange,
        *,
        only_new: bool = False,
        if_match: ETag | None = None,
        resource_id: ResourceId | None = None,
        origin: str = "",
    ) -> Entry:
        """Store content under a name, or in the resource wherever its names are now."""
        if resource_id is not None:
            location = self._name_of(resource_id)
        self.check_commit(location, only_new=only_new, if_match=if_match)
        resource = self.names.get(location)
        if resource is None or kind_of(mime_type) is not Kind.FILE:
            resource = self._new(mime_type)
            self._stamp_parent(location)
        now = self._clock()
        resource.content, resource.mime_type = bytes(content), mime_type
        resource.etag, resource.created_at = self._etag(), now // 10**9
        resource.modified_ns = resource.changed_ns = now
        self.versions[resource.etag] = resource.content
        self._apply(resource, change)
        self._require_bucket(location.bucket)
        self.names[location] = resource
        self._publish(Operation.COMMIT, (location,), resource, origin)
        return self.stat(location)

    def check_commit(self, location: Location, *, only_new: bool, if_match: ETag | None) -> None:
        """Raises what stands against a file at `location`."""
        if not location.key:
            raise InvalidRequest(f"{str(location)!r} is no key of a bucket.")
        for ancestor in _ancestors(location):
            if (found := self.names.get(ancestor)) and found.kind is not Kind.DIRECTORY:
                raise Conflict(f"{str(ancestor)!r} is a file.", "not-directory")
        existing = self.names.get(location)
        if only_new and (existing is not None or self.is_directory(location)):
            raise PreconditionFailed(f"{str(location)!r} exists.")
        if self.is_directory(location):
            raise Conflict(f"{str(location)!r} is a directory.", "is-directory")
        if if_match is not None and (existing is None or existing.etag != if_match):
            raise PreconditionFailed(f"{str(location)!r} is not at {if_match}.")

    def make_directory(self, location: Location, change: AttributeChange, origin: str) -> Entry:
        if self._find(location) is not None or self.is_directory(location):
            raise Conflict(f"{str(location)!r} exists.", "exists")
        if not location.key:
            self._apply(self._require_bucket(location.bucket), change)
            self._publish(Operation.BUCKET, (location,), self.buckets[location.bucket], origin)
            return self.stat(location)
        self.check_commit(location, only_new=False, if_match=None)
        self._require_bucket(location.bucket)
        self._apply(self._explicit(location), change)
        self._stamp_parent(location)
        self._publish(Operation.COMMIT, (location,), self.names[location], origin)
        return self.stat(location)

    def remove(self, location: Location, kind: Kind, origin: str) -> None:
        if kind is Kind.DIRECTORY and any(True for _ in self.below(location)):
            raise Conflict(f"{str(location)!r} is not empty.", "not-empty")
        resource = self.resource(location)
        if (resource.kind is Kind.DIRECTORY) != (kind is Kind.DIRECTORY):
            reason = "is-directory" if resource.kind is Kind.DIRECTORY else "not-directory"
            raise Conflict(f"{str(location)!r} is another kind of name.", reason)
        if location.key:
            self._keep_parent(location)
            del self.names[location]
            resource.changed_ns = self._clock()
            self._publish(Operation.DELETE, (location,), resource, origin)
        else:
            del self.buckets[location.bucket]
            self._publish(Operation.BUCKET, (location,), resource, origin)

    def move(
        self, source: Location, target: Location, *, overwrite: bool, exchange: bool, origin: str
    ) -> None:
        """Rename a file or a whole directory; see the contract's MOVE."""
        self._check_move(source, target, overwrite=overwrite, exchange=exchange)
        if source == target:
            return
        moved = self.stat(source)
        self._keep_parent(source)
        self._keep_parent(target)
        there = self._take(target)
        here = self._take(source)
        self._put_back(target, here)
        if exchange:
            self._put_back(source, there)
        operation = Operation.EXCHANGE if exchange else Operation.MOVE
        resource = self.names.get(target) or self._new(moved.mime_type)
        resource.changed_ns = self._clock()
        self._publish(operation, (source, target), resource, origin)

    def link(self, source: Location, target: Location, origin: str) -> Entry:
        resource = self.resource(source)
        if resource.kind is Kind.DIRECTORY:
            raise Conflict(f"{str(source)!r} is a directory.", "is-directory")
        if self._find(target) is not None or self.is_directory(target):
            raise Conflict(f"{str(target)!r} exists.", "exists")
        self.check_commit(target, only_new=False, if_match=None)
        self._stamp_parent(target)
        self.names[target] = resource
        resource.changed_ns = self._clock()
        self._publish(Operation.BIND, (source, target), resource, origin)
        return self.stat(target)

    def set_attributes(self, location: Location, change: AttributeChange, origin: str) -> Entry:
        if location.key and self.is_directory(location):
            self._explicit(location)
        resource = self.resource(location)
        if change.mime_type is not None and kind_of(change.mime_type) is not resource.kind:
            raise InvalidRequest("The kind of a name is fixed at its creation.")
        self._apply(resource, change)
        resource.changed_ns = self._clock()
        operation = Operation.ATTRIBUTES if location.key else Operation.BUCKET
        self._publish(operation, (location,), resource, origin)
        return self.stat(location)

    # -- events -----------------------------------------------------------------------------------
    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber(origin, change)` for each event; the answer ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def _publish(
        self, operation: Operation, names: tuple[Location, ...], resource: Resource, origin: str
    ) -> None:
        self.event_number += 1
        change = Change(operation, names, resource.resource_id, resource.etag, False, self.cursor)
        for subscriber in list(self._subscribers):
            subscriber(origin, change)

    # -- inner ------------------------------------------------------------------------------------
    def _find(self, location: Location) -> Resource | None:
        if not location.key:
            return self.buckets.get(location.bucket)
        return self.names.get(location)

    def _name_of(self, resource_id: ResourceId) -> Location:
        for location, resource in self.names.items():
            if resource.resource_id == resource_id:
                return location
        raise Gone(f"The resource {resource_id!r} has no name any more.")

    def _new(self, mime_type: str) -> Resource:
        now = self._clock()
        resource = Resource(
            ResourceId(f"r{next(self._numbers)}"), mime_type, now // 10**9, self._etag()
        )
        resource.modified_ns = resource.changed_ns = resource.accessed_ns = now
        return resource

    def _etag(self) -> ETag:
        return ETag(f'"{next(self._numbers):032x}"')

    def _require_bucket(self, bucket: str) -> Resource:
        if bucket not in self.buckets:
            self.buckets[bucket] = self._new(DIRECTORY)
        return self.buckets[bucket]

    def _explicit(self, location: Location) -> Resource:
        if location not in self.names:
            self.names[location] = self._new(DIRECTORY)
        return self.names[location]

    def _keep_parent(self, location: Location) -> None:
        if location.parent.key:
            self._explicit(location.parent)
        self._stamp_parent(location)

    def _stamp_parent(self, location: Location) -> None:
        if (parent := self._find(location.parent)) is not None:
            parent.modified_ns = parent.changed_ns = self._clock()

    def _take(self, location: Location) -> dict[str, Resource]:
        """Take a name and all below it out; keyed by what follows the location's key."""
        names = [location, *self.below(location)]
        return {
            name.key[len(location.key) :]: self.names.pop(name)
            for name in names
            if name in self.names
        }

    def _put_back(self, location: Location, taken: dict[str, Resource]) -> None:
        for rest, resource in taken.items():
            self.names[Location(location.bucket, location.key + rest)] = resource

    def _check_move(
        self, source: Location, target: Location, *, overwrite: bool, exchange: bool
    ) -> None:
        if not source.key or not target.key:
            raise Unsupported("A bucket cannot be moved.")
        moved = self.stat(source)
        if f"{target}/".startswith(f"{source}/") and target != source:
            raise InvalidRequest(f"{str(source)!r} cannot move into itself.")
        for ancestor in _ancestors(target):
            if (found := self.names.get(ancestor)) and found.kind is not Kind.DIRECTORY:
                raise Conflict(f"{str(ancestor)!r} is a file.", "not-directory")
        try:
            replaced = self.stat(target)
        except NotFound:
            if exchange:
                raise
            return
        if exchange or source == target:
            return
        if not overwrite:
            raise PreconditionFailed(f"{str(target)!r} exists.")
        if (replaced.kind is Kind.DIRECTORY) != (moved.kind is Kind.DIRECTORY):
            is_directory = replaced.kind is Kind.DIRECTORY
            reason = "is-directory" if is_directory else "not-directory"
            raise Conflict(f"{str(target)!r} is another kind of name.", reason)
        if replaced.kind is Kind.DIRECTORY and self.children(target):
            raise Conflict(f"{str(target)!r} is not empty.", "not-empty")

    def _apply(self, resource: Resource, change: AttributeChange) -> None:
        for name in ("mode", "uid", "gid", "modified_ns", "accessed_ns", "mime_type"):
            if (value := getattr(change, name)) is not None:
                setattr(resource, name, value)
        for name, content in (change.xattrs or {}).items():
            if content is None:
                resource.xattrs.pop(name, None)
            else:
                resource.xattrs[name] = content

    def _entry(self, location: Location, resource: Resource) -> Entry:
        attributes = Attributes(
            resource.mode,
            resource.uid,
            resource.gid,
            resource.modified_ns,
            resource.changed_ns,
            resource.accessed_ns,
            dict(resource.xattrs),
        )
        return Entry(
            location,
            resource.kind,
            len(resource.content),
            resource.mime_type,
            resource.created_at,
            f"memory://{location}",
            resource.etag,
            resource.resource_id,
            sum(1 for each in self.names.values() if each is resource) or 1,
            attributes,
        )


def _prefix(location: Location) -> str:
    return f"{location.key}/" if location.key else ""


def _ancestors(location: Location) -> Iterator[Location]:
    parent = location.parent
    while parent.key:
        yield parent
        parent = parent.parent

"""Where a version goes. A value: no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from filesfs.domain import AttributeChange, Entry, ETag, Location, ResourceId


@dataclass(frozen=True, slots=True)
class Target:
    """Where a version goes. `resource_id`: replace this resource wherever it is now."""

    location: Location
    mime_type: str
    change: AttributeChange
    base: Entry | None  # the version that the clean parts come from; None: a new file
    resource_id: ResourceId | None
    only_new: bool = False
    if_match: ETag | None = None

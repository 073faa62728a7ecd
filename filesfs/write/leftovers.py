"""Whether a cache folder that no mount uses holds anything that a server does not have yet.

It must not change the folder. What it does not know for certain it takes for unsent.
"""

from __future__ import annotations

from pathlib import Path

from filesfs.write.log import whole_records
from filesfs.write.records import FORMAT, done

# What a mount makes there, and what may go with the folder.
_KNOWN = frozenset(
    {
        "lock", "journal.log", "journal.new", "spool", "blocks", "control.sock", "filesfs.log",
        "filesfs.log.1", "filesfs.log.2",
    }
)  # fmt: skip


def has_unsent(folder: Path) -> bool:
    """The caller holds the folder's lock. OSError where it cannot be read."""
    names = {path.name for path in folder.iterdir()}
    if names - _KNOWN:
        return True  # "recovered", "journal.torn", or what somebody else put there
    if "spool" in names and any(path.stat().st_size for path in (folder / "spool").iterdir()):
        return True
    return "journal.log" in names and _has_records((folder / "journal.log").read_bytes())


def _has_records(data: bytes) -> bool:
    found = list(whole_records(data))
    if not found or found[-1][1] != len(data):
        return bool(data)  # torn: what it said is not known
    (header, _), *records = found
    if header.get("format", FORMAT + 1) > FORMAT:
        return True
    pending: set[object] = set()
    for value, _ in records:
        if (id := done(value)) is not None:
            pending.discard(id)
        else:
            pending.add(value.get("id"))
    return bool(pending)

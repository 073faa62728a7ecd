"""The escape of names that the API's keys leave out: pure functions, shared by mount and server.

It must not know which names are allowed, nor errors: `state/names.py` has that for the mount.

The key charset is `A-Za-z0-9_.-` (and `/`). A name with any other byte is escaped: `_-`, then the
name with each byte outside `A-Za-z0-9.-` as `_hh`, lower case. So is a name that would itself read
as an escape. Only what this module would write reads as an escape: `_-a` decodes to `a`, which
needs none, so the key `_-a` shows as `_-a`, from whichever client. Hence `encoded` is injective,
`decoded` is its inverse, and all keys that are no escapes show as they are.

Buckets have no `.` and at most 255 bytes: the same rule with a smaller alphabet, where `.` becomes
`_2e`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME_MAX = 255  # bytes of a name in Linux
NOT_NAMES = frozenset({b"", b".", b".."})
_MARK = b"_-"


@dataclass(frozen=True)
class Alphabet:
    """What a segment may hold. `plain`, a regex class, stands for itself in an escape."""

    what: str
    plain: bytes
    longest: int  # bytes that the server takes for one segment
    foreign: re.Pattern[bytes] = field(init=False)
    must_escape: re.Pattern[bytes] = field(init=False)
    escape: re.Pattern[bytes] = field(init=False)

    def __post_init__(self) -> None:
        hexes = b"_[0-9a-f][0-9a-f]"
        object.__setattr__(self, "foreign", re.compile(b"[^_" + self.plain + b"]"))
        object.__setattr__(self, "must_escape", re.compile(b"[^" + self.plain + b"]"))
        object.__setattr__(
            self, "escape", re.compile(_MARK + b"(?:[" + self.plain + b"]|" + hexes + b")*")
        )


KEY = Alphabet("name", rb"A-Za-z0-9.\-", 1024)
BUCKET = Alphabet("bucket name", rb"A-Za-z0-9\-", 255)


def encoded(name: bytes, alphabet: Alphabet = KEY) -> bytes:
    """The segment of a name; the caller holds it against `alphabet.longest`."""
    return _encode(name, alphabet) if _needs_escape(name, alphabet) else name


def decoded(segment: bytes, alphabet: Alphabet = KEY) -> bytes | None:
    """The name that `segment` is the escape of; None: it is none, and stands for itself."""
    return _decode(segment, alphabet) if segment.startswith(_MARK) else None


def _needs_escape(name: bytes, alphabet: Alphabet) -> bool:
    if alphabet.foreign.search(name):
        return True
    return name.startswith(_MARK) and _decode(name, alphabet) is not None


def _encode(name: bytes, alphabet: Alphabet) -> bytes:
    return _MARK + alphabet.must_escape.sub(lambda found: b"_%02x" % found.group()[0], name)


def _decode(wire: bytes, alphabet: Alphabet) -> bytes | None:
    """The name that `wire` is the escape of, else None. Ends: it gets shorter with each step."""
    if len(wire) > alphabet.longest or not alphabet.escape.fullmatch(wire):
        return None
    name = re.sub(b"_(..)", lambda found: bytes.fromhex(found[1].decode()), wire[len(_MARK) :])
    if name in NOT_NAMES or len(name) > NAME_MAX or b"/" in name or b"\0" in name:
        return None
    canonical = _needs_escape(name, alphabet) and _encode(name, alphabet) == wire
    return name if canonical else None

"""Names in the mount: pure functions between Linux names and segments of wire keys.

It must not know directories, inodes or requests, and does no I/O.

The key charset is `A-Za-z0-9_.-` (and `/`). A name with any other byte is escaped: `_-`, then the
name with each byte outside `A-Za-z0-9.-` as `_hh`, lower case. So is a name that would itself read
as an escape. Only what this module would write reads as an escape: `_-a` decodes to `a`, which
needs none, so the key `_-a` shows as `_-a`, from whichever client. Hence `to_wire` is injective,
`from_wire` is its inverse, and all keys that are no escapes show as they are.

Buckets have no `.` and at most 255 bytes: the same rule with a smaller alphabet, where `.` becomes
`_2e`.
"""

from __future__ import annotations

import errno
import functools
import re
from dataclasses import dataclass, field
from enum import StrEnum

from filesfs.errors import FileSystemError

NAME_MAX = 255
_MARK = b"_-"
_NOT_NAMES = frozenset({b"", b".", b".."})


class NamePolicy(StrEnum):
    """The option `names`: escape what the key charset leaves out, or refuse it."""

    ESCAPE = "escape"
    STRICT = "strict"


@dataclass(frozen=True)
class _Alphabet:
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


_KEY = _Alphabet("name", rb"A-Za-z0-9.\-", 1024)
_BUCKET = _Alphabet("bucket name", rb"A-Za-z0-9\-", 255)


# A path is made anew for each request, from names that come again and again.
@functools.lru_cache(maxsize=4096)
def to_wire(name: bytes, policy: NamePolicy = NamePolicy.ESCAPE) -> str:
    """The key segment of a name. FileSystemError: EINVAL or ENAMETOOLONG."""
    return _to_wire(name, policy, _KEY)


def from_wire(segment: str, policy: NamePolicy = NamePolicy.ESCAPE) -> bytes | None:
    """The name that a key segment shows under; None: no name leads to it, it is not shown."""
    return _from_wire(segment, policy, _KEY)


@functools.lru_cache(maxsize=256)
def bucket_to_wire(name: bytes, policy: NamePolicy = NamePolicy.ESCAPE) -> str:
    """The bucket of a name in the mount's root. FileSystemError: EINVAL or ENAMETOOLONG.

    An escape may exceed the 255 bytes of a bucket although the name does not: that is ENAMETOOLONG,
    too.
    """
    return _to_wire(name, policy, _BUCKET)


def bucket_from_wire(bucket: str, policy: NamePolicy = NamePolicy.ESCAPE) -> bytes | None:
    """The name that a bucket shows under in the mount's root; None: not shown."""
    return _from_wire(bucket, policy, _BUCKET)


def _to_wire(name: bytes, policy: NamePolicy, alphabet: _Alphabet) -> str:
    if len(name) > NAME_MAX:
        raise _too_long(name, alphabet, NAME_MAX)
    if name in _NOT_NAMES or b"/" in name or b"\0" in name:
        raise FileSystemError(errno.EINVAL, f"{name!r} is not a name of a file")
    if policy is NamePolicy.STRICT:
        return _strict(name, alphabet)
    wire = _encode(name, alphabet) if _needs_escape(name, alphabet) else name
    if len(wire) > alphabet.longest:
        raise _too_long(name, alphabet, alphabet.longest)
    return wire.decode("ascii")


def _from_wire(segment: str, policy: NamePolicy, alphabet: _Alphabet) -> bytes | None:
    if not segment.isascii():
        return None  # the charset forbids it, and the escaped name would lead to another key
    wire = segment.encode("ascii")
    if policy is NamePolicy.ESCAPE and wire.startswith(_MARK):
        name = _decode(wire, alphabet)
        if name is not None:
            return name
    shown = len(wire) <= NAME_MAX and wire not in _NOT_NAMES
    return wire if shown and not alphabet.foreign.search(wire) else None


def _strict(name: bytes, alphabet: _Alphabet) -> str:
    """Under names=strict every key stands for itself, those that look like escapes too."""
    if found := alphabet.foreign.search(name):
        raise FileSystemError(
            errno.EINVAL,
            f"{alphabet.what} {name!r} holds {found.group()!r}, which a key cannot hold; "
            "mount with names=escape to allow it",
        )
    return name.decode("ascii")


def _needs_escape(name: bytes, alphabet: _Alphabet) -> bool:
    if alphabet.foreign.search(name):
        return True
    return name.startswith(_MARK) and _decode(name, alphabet) is not None


def _encode(name: bytes, alphabet: _Alphabet) -> bytes:
    return _MARK + alphabet.must_escape.sub(lambda found: b"_%02x" % found.group()[0], name)


def _decode(wire: bytes, alphabet: _Alphabet) -> bytes | None:
    """The name that `wire` is the escape of, else None. Ends: it gets shorter with each step."""
    if len(wire) > alphabet.longest or not alphabet.escape.fullmatch(wire):
        return None
    name = re.sub(b"_(..)", lambda found: bytes.fromhex(found[1].decode()), wire[len(_MARK) :])
    if name in _NOT_NAMES or len(name) > NAME_MAX or b"/" in name or b"\0" in name:
        return None
    canonical = _needs_escape(name, alphabet) and _encode(name, alphabet) == wire
    return name if canonical else None


def _too_long(name: bytes, alphabet: _Alphabet, longest: int) -> FileSystemError:
    return FileSystemError(
        errno.ENAMETOOLONG,
        f"{alphabet.what} of {len(name)} bytes is too long: at most {longest} bytes on the server",
    )

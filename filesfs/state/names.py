"""Names in the mount: pure functions between Linux names and segments of wire keys.

It must not know directories, inodes or requests, and does no I/O.

How a name becomes a segment and back is `filesfs/escape.py`; here is which names there are.
"""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Sequence
from enum import StrEnum

from filesfs import escape
from filesfs.errors import FileSystemError
from filesfs.escape import BUCKET, KEY, NAME_MAX, NOT_NAMES, Alphabet


class NamePolicy(StrEnum):
    """The option `names`: escape what the key charset leaves out, or refuse it."""

    __hash__ = str.__hash__  # Enum's own goes through Python

    ESCAPE = "escape"
    STRICT = "strict"


# Names that are their own wire form: no escape, none of NOT_NAMES, not too long.
_ALL_PLAIN = re.compile(r"(?:(?!_-|\.\.?\n)[A-Za-z0-9_.-]{1,255}\n)*")


@functools.lru_cache(maxsize=1024)  # a path has the same directories each time
def to_wire(name: bytes, policy: NamePolicy = NamePolicy.ESCAPE) -> str:
    """The key segment of a name. FileSystemError: EINVAL or ENAMETOOLONG."""
    return _to_wire(name, policy, KEY)


def from_wire(segment: str, policy: NamePolicy = NamePolicy.ESCAPE) -> bytes | None:
    """The name that a key segment shows under; None: no name leads to it, it is not shown."""
    return _from_wire(segment, policy, KEY)


@functools.lru_cache(maxsize=256)
def bucket_to_wire(name: bytes, policy: NamePolicy = NamePolicy.ESCAPE) -> str:
    """The bucket of a name in the mount's root. FileSystemError: EINVAL or ENAMETOOLONG.

    An escape may exceed the 255 bytes of a bucket although the name does not: that is ENAMETOOLONG,
    too.
    """
    return _to_wire(name, policy, BUCKET)


def all_from_wire(
    segments: Sequence[str], policy: NamePolicy = NamePolicy.ESCAPE
) -> Sequence[bytes | None]:
    """As `from_wire` of each. Mostly all of them stand for themselves, which one look tells."""
    text = "\n".join(segments) + "\n"
    if text.count("\n") == len(segments) and _ALL_PLAIN.fullmatch(text):
        return text.encode("ascii").split(b"\n")[:-1]
    return [from_wire(segment, policy) for segment in segments]


def buckets_from_wire(
    buckets: Sequence[str], policy: NamePolicy = NamePolicy.ESCAPE
) -> Sequence[bytes | None]:
    """As `bucket_from_wire` of each."""
    return [bucket_from_wire(bucket, policy) for bucket in buckets]


def bucket_from_wire(bucket: str, policy: NamePolicy = NamePolicy.ESCAPE) -> bytes | None:
    """The name that a bucket shows under in the mount's root; None: not shown."""
    return _from_wire(bucket, policy, BUCKET)


def _to_wire(name: bytes, policy: NamePolicy, alphabet: Alphabet) -> str:
    if len(name) > NAME_MAX:
        raise _too_long(name, alphabet, NAME_MAX)
    if name in NOT_NAMES or b"/" in name or b"\0" in name:
        raise FileSystemError(errno.EINVAL, f"{name!r} is not a name of a file")
    if policy is NamePolicy.STRICT:
        return _strict(name, alphabet)
    wire = escape.encoded(name, alphabet)
    if len(wire) > alphabet.longest:
        raise _too_long(name, alphabet, alphabet.longest)
    return wire.decode("ascii")


def _from_wire(segment: str, policy: NamePolicy, alphabet: Alphabet) -> bytes | None:
    if not segment.isascii():
        return None  # the charset forbids it, and the escaped name would lead to another key
    wire = segment.encode("ascii")
    if policy is NamePolicy.ESCAPE and (name := escape.decoded(wire, alphabet)) is not None:
        return name
    shown = len(wire) <= NAME_MAX and wire not in NOT_NAMES
    return wire if shown and not alphabet.foreign.search(wire) else None


def _strict(name: bytes, alphabet: Alphabet) -> str:
    """Under names=strict every key stands for itself, those that look like escapes too."""
    if found := alphabet.foreign.search(name):
        raise FileSystemError(
            errno.EINVAL,
            f"{alphabet.what} {name!r} holds {found.group()!r}, which a key cannot hold; "
            "mount with names=escape to allow it",
        )
    return name.decode("ascii")


def _too_long(name: bytes, alphabet: Alphabet, longest: int) -> FileSystemError:
    return FileSystemError(
        errno.ENAMETOOLONG,
        f"{alphabet.what} of {len(name)} bytes is too long: at most {longest} bytes on the server",
    )

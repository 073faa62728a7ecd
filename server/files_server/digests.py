"""Content-Digest and Repr-Digest (RFC 9530): reading the headers and holding bytes against them.

It must not decide what happens to bytes that do not match.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from crc32c import crc32c

from files_server.errors import ApiError

_ITEM = re.compile(r"\s*([a-z0-9-]+)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?\Z")
_LENGTHS = {"sha-256": 32, "crc32c": 4}


class Source(Protocol):
    """Bytes that can be handed on from an offset, and whose crc32c may be known already."""

    def feed(self, sink: Callable[[bytes], object], start: int = 0) -> None: ...

    def crc_since(self, start: int) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Digests:
    """What a request says of its part (`content`) and of the whole file (`whole`)."""

    content: Mapping[str, bytes] = field(default_factory=dict)
    whole: Mapping[str, bytes] = field(default_factory=dict)

    def check(self, data: bytes) -> None:
        """For a part that is the whole file. ApiError 400 on a mismatch."""
        for header, wanted in (("Content-Digest", self.content), ("Repr-Digest", self.whole)):
            if wanted:
                sums = _Sums(wanted)
                sums.update(data)
                sums.compare(header, wanted)

    def check_content(self, source: Source, start: int) -> None:
        """The part that begins at `start`. Blocks. ApiError 400 on a mismatch."""
        if self.content:
            _check(source, start, "Content-Digest", self.content)

    def check_whole(self, source: Source) -> None:
        """The whole file, once it is there. Blocks. ApiError 400 on a mismatch."""
        if self.whole:
            _check(source, 0, "Repr-Digest", self.whole)


def parse(header: str, name: str) -> dict[str, bytes]:
    """The algorithms we know of a digest header. ApiError 400 where it is malformed."""
    found: dict[str, bytes] = {}
    for item in header.split(",") if header else ():
        match = _ITEM.match(item)
        if match is None:
            raise ApiError(400, f"{name} {header!r} is not ALGORITHM=:BASE64:, ...")
        algorithm, text = match.groups()
        if algorithm in _LENGTHS:
            found[algorithm] = _decoded(text, algorithm, name)
    return found


def crc_item(value: int) -> str:
    """A crc32c as a digest header's value."""
    return f"crc32c=:{base64.b64encode(struct.pack('>I', value)).decode()}:"


def sha_item(value: bytes) -> str:
    """A SHA-256 as a digest header's value."""
    return f"sha-256=:{base64.b64encode(value).decode()}:"


def _decoded(text: str, algorithm: str, name: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ApiError(400, f"{name}: {text!r} is no base64.") from None
    if len(value) != _LENGTHS[algorithm]:
        raise ApiError(
            400, f"{name}: {algorithm} has {_LENGTHS[algorithm]} bytes, not {len(value)}."
        )
    return value


def _check(source: Source, start: int, header: str, wanted: Mapping[str, bytes]) -> None:
    sums = _Sums(wanted)
    crc = source.crc_since(start) if wanted.keys() == {"crc32c"} else None
    if crc is None:
        source.feed(sums.update, start)  # reads all of it again
    else:
        sums.crc = crc
    sums.compare(header, wanted)


class _Sums:
    """Only what is asked for: a SHA-256 costs as much as everything else in an upload."""

    def __init__(self, wanted: Mapping[str, bytes]) -> None:
        self._sha = hashlib.sha256() if "sha-256" in wanted else None
        self.crc = 0

    def update(self, data: bytes) -> None:
        if self._sha is not None:
            self._sha.update(data)
        self.crc = crc32c(data, self.crc)

    def compare(self, header: str, wanted: Mapping[str, bytes]) -> None:
        found = {"crc32c": struct.pack(">I", self.crc)}
        if self._sha is not None:
            found["sha-256"] = self._sha.digest()
        for algorithm, value in wanted.items():
            if found[algorithm] != value:
                raise ApiError(
                    400,
                    f"{header}: the {algorithm} of the bytes that arrived is"
                    f" {found[algorithm].hex()}, not {value.hex()}. Send them again.",
                )

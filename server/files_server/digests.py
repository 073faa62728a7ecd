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
    """Bytes that can be handed on from an offset."""

    def feed(self, sink: Callable[[bytes], object], start: int = 0) -> None: ...


@dataclass(frozen=True, slots=True)
class Digests:
    """What a request says of its part (`content`) and of the whole file (`whole`)."""

    content: Mapping[str, bytes] = field(default_factory=dict)
    whole: Mapping[str, bytes] = field(default_factory=dict)

    def check(self, data: bytes) -> None:
        """For a part that is the whole file. ApiError 400 on a mismatch."""
        for header, wanted in (("Content-Digest", self.content), ("Repr-Digest", self.whole)):
            if wanted:
                sums = _Sums()
                sums.update(data)
                sums.compare(header, wanted)

    def check_content(self, source: Source, start: int) -> None:
        """The part that begins at `start`. Blocks. ApiError 400 on a mismatch."""
        if self.content:
            sums = _Sums()
            source.feed(sums.update, start)
            sums.compare("Content-Digest", self.content)

    def check_whole(self, source: Source) -> None:
        """The whole file, once it is there. Blocks. ApiError 400 on a mismatch."""
        if self.whole:
            sums = _Sums()
            source.feed(sums.update, 0)
            sums.compare("Repr-Digest", self.whole)


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


class _Sums:
    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._crc = 0

    def update(self, data: bytes) -> None:
        self._sha.update(data)
        self._crc = crc32c(data, self._crc)

    def compare(self, header: str, wanted: Mapping[str, bytes]) -> None:
        found = {"sha-256": self._sha.digest(), "crc32c": struct.pack(">I", self._crc)}
        for algorithm, value in wanted.items():
            if found[algorithm] != value:
                raise ApiError(
                    400,
                    f"{header}: the {algorithm} of the bytes that arrived is"
                    f" {found[algorithm].hex()}, not {value.hex()}. Send them again.",
                )

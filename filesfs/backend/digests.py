"""Checksums on the wire (RFC 9530): crc32c of parts sent, and of ranges received.

It must not do I/O.
"""

from __future__ import annotations

import base64
import re

import crc32c

from filesfs.backend.connection import Buffer
from filesfs.errors import Corrupted

BLOCK = 1024 * 1024  # the server keeps a crc32c of each MiB
_CRC = re.compile(r"crc32c=:([A-Za-z0-9+/=]*):")


def digest_of(data: Buffer) -> str:
    """A Content-Digest value."""
    return digest_item(crc32c.crc32c(data))


def digest_item(crc: int) -> str:
    """The value of a digest header for a crc32c that is known."""
    return f"crc32c=:{base64.b64encode(crc.to_bytes(4, 'big')).decode()}:"


def block_sums(headers: dict[str, str]) -> list[int] | None:
    """The crc32c of each MiB of the content, as an answer tells them; the only one may be of less.
    None if it does not. Raises Corrupted.
    """
    if blocks := headers.get("files-block-digests"):
        joined = _decoded(blocks.strip())  # four bytes a block
    elif match := _CRC.search(headers.get("content-digest", "")):
        joined = _decoded(match.group(1))
    else:
        return None
    return [int.from_bytes(joined[at : at + 4], "big") for at in range(0, len(joined) - 3, 4)]


def verify(headers: dict[str, str], data: Buffer) -> None:
    """Compare an answer's content with the checksums it came with, if any. Raises Corrupted."""
    view = memoryview(data)
    if blocks := headers.get("files-block-digests"):
        joined = _decoded(blocks.strip())  # four bytes a block
        for number in range(len(joined) // 4):
            start = number * BLOCK
            _compare(joined[4 * number : 4 * number + 4], view[start : start + BLOCK], start)
    elif match := _CRC.search(headers.get("content-digest", "")):
        _compare(_decoded(match.group(1)), view, 0)


def _compare(expected: bytes, data: memoryview, start: int) -> None:
    if expected and crc32c.crc32c(data).to_bytes(4, "big") != expected:
        raise Corrupted(f"The {len(data)} bytes from {start} do not match their crc32c.")


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise Corrupted(f"The checksum {value[:80]!r} is no base64.") from error

"""Which mime type a new file gets: from its name, else from its first bytes. Pure.

It must not read the system's mime tables (the answer would depend on the machine), and never
answers an `inode/*` type: those make links, devices and directories.
"""

from __future__ import annotations

import codecs
import mimetypes
import re

SNIFF_BYTES = 512  # what the longest test below wants to see of a file
BINARY = "application/octet-stream"
TEXT = "text/plain"

# What Python's table lacks, or names differently from what readers of the API expect.
_OWN = {
    "7z": "application/x-7z-compressed",
    "avif": "image/avif",
    "br": "application/x-brotli",
    "bz2": "application/x-bzip2",
    "cfg": TEXT,
    "conf": TEXT,
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
    "flac": "audio/flac",
    "go": TEXT,
    "gz": "application/gzip",
    "ini": TEXT,
    "jsonl": "application/jsonl",
    "log": TEXT,
    "lz4": "application/x-lz4",
    "md": "text/markdown",
    "mkv": "video/x-matroska",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ogg": "audio/ogg",
    "parquet": "application/vnd.apache.parquet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rs": TEXT,
    "rst": TEXT,
    "safetensors": BINARY,
    "sqlite": "application/vnd.sqlite3",
    "tgz": "application/gzip",
    "toml": "application/toml",
    "ts": TEXT,  # TypeScript here, more often than MPEG transport streams
    "wasm": "application/wasm",
    "webp": "image/webp",
    "woff2": "font/woff2",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xz": "application/x-xz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zst": "application/zstd",
}

# (offset, bytes, type)
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftyp", "video/mp4"),
    (257, b"ustar", "application/x-tar"),
)

# Whether any of them is there, in one look: mostly none is.
_ANY_MAGIC = re.compile(
    b"|".join(b".{%d}%b" % (offset, re.escape(magic)) for offset, magic, _ in _MAGIC), re.DOTALL
)
_NOT_TEXT = re.compile(rb"[\x00-\x07\x0b\x0e-\x1a\x1c-\x1f\x7f]")


def mime_type(name: bytes, head: bytes = b"") -> str:
    """The type of a file called `name` that begins with `head` (SNIFF_BYTES are enough)."""
    return _by_name(name) or _by_content(head[:SNIFF_BYTES])


def _by_name(name: bytes) -> str | None:
    stem, dot, extension = name.rpartition(b".")
    if not (stem and dot and extension.isalnum() and extension.isascii()):
        return None
    return _TYPES.get(extension.decode("ascii").lower())


def _by_content(head: bytes) -> str:
    if _ANY_MAGIC.match(head):
        return next(kind for offset, magic, kind in _MAGIC if head.startswith(magic, offset))
    return TEXT if _is_text(head) else BINARY


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters; a character cut off where the head ends is no fault."""
    if not head or _NOT_TEXT.search(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < SNIFF_BYTES)
    except UnicodeDecodeError:
        return False
    return True


def _table() -> dict[str, str]:
    # The instance starts from the table in Python's source; files of the system go to the module's
    # own alone.
    builtin = mimetypes.MimeTypes().types_map[True]
    table = {extension.removeprefix(".").lower(): kind for extension, kind in builtin.items()}
    return {k: v for k, v in (table | _OWN).items() if not v.startswith("inode/")}


_TYPES = _table()

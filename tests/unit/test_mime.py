"""The mime type of a new file: the same on every machine, and never an inode type."""

import mimetypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesfs.state.mime import BINARY, SNIFF_BYTES, mime_type


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        (b"notes.txt", b"\x89PNG\r\n\x1a\n", "text/plain"),  # the name has the say
        (b"a.HTML", b"", "text/html"),
        (b"data.json", b"{}", "application/json"),
        (b"backup.tar.gz", b"", "application/gzip"),
        (b"table.parquet", b"", "application/vnd.apache.parquet"),
        (b"Makefile", b"all:\n\ttrue\n", "text/plain"),
        (b"picture", b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"movie", b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"archive", b"\0" * 257 + b"ustar\0", "application/x-tar"),
        (b".bashrc", b"export A=1\n", "text/plain"),
        (b".txt", b"\0", BINARY),  # a hidden file called txt has no extension
        (b"\xff\xfe.png", b"", "image/png"),
        (b"a.\xff", b"\xff\xfe\xfd", BINARY),
        (b"unknown", b"", BINARY),
        (b"data:text/html,x", b"", BINARY),  # a name is not a URL
        (b"zeros", b"\0\0\0", BINARY),
        (b"cut", b"a" * (SNIFF_BYTES - 1) + "ü".encode(), "text/plain"),
        (b"broken", b"abc\xc3", BINARY),
    ],
)
def test_types(name: bytes, head: bytes, expected: str) -> None:
    assert mime_type(name, head) == expected


@given(st.binary(max_size=60), st.binary(max_size=SNIFF_BYTES + 8))
def test_never_an_inode_type(name: bytes, head: bytes) -> None:
    kind = mime_type(name, head)
    assert "/" in kind
    assert not kind.startswith("inode/")


def test_the_tables_of_the_system_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    mimetypes.add_type("inode/symlink", ".filesfs-test")
    assert mime_type(b"a.filesfs-test") == BINARY

"""Many small files in one request: the same of every FilesBackend that has it."""

from __future__ import annotations

import os

import pytest

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Kind, Location
from filesfs.errors import NotFound, Unsupported
from filesfs.packed import unpack
from filesfs.wire import CONTENT_BYTES, CONTENTS_BYTES, Extension

pytestmark = pytest.mark.trio
NONE = AttributeChange()


async def put(backend: FilesBackend, location: Location, data: bytes) -> None:
    await backend.put(location, data, "text/plain", NONE)


async def test_files_come_with_content(backend: FilesBackend, bucket: str) -> None:
    directory = Location(bucket, "a/d")
    if Extension.CONTENTS not in backend.extensions:
        with pytest.raises(Unsupported):
            await backend.read_many(directory, ["f"])
        return
    contents = {"z": b"1", "empty": b"", "m": os.urandom(CONTENT_BYTES), "a": os.urandom(70_000)}
    for name, data in contents.items():
        await put(backend, directory.child(name), data)
    await put(backend, directory.child("large"), bytes(CONTENT_BYTES + 1))
    await put(backend, directory.child("below").child("f"), b"x")
    await backend.put(directory.child("link"), b"z", "", NONE, kind=Kind.SYMLINK)
    names = ["z", "missing", "large", "empty", "below", "m", "link", "a"]
    many = await backend.read_many(directory, names)
    assert many.location == directory
    assert list(many.at_rest) == ["z", "empty", "m", "a"]
    assert {name: bytes(data) for name, data in many.contents.items()} == contents
    for name, packed in many.at_rest.items():
        assert unpack(packed) == await backend.stat(directory.child(name))
    assert many.cursor
    assert list((await backend.read_many(Location(bucket), ["a"])).at_rest) == []


async def test_one_answer_holds_so_much(backend: FilesBackend, bucket: str) -> None:
    if Extension.CONTENTS not in backend.extensions:
        pytest.skip("files are read one by one there")
    names = [f"f{number}" for number in range(CONTENTS_BYTES // CONTENT_BYTES + 1)]
    for name in names:
        await put(backend, Location(bucket, name), bytes(CONTENT_BYTES))
    many = await backend.read_many(Location(bucket), names)
    assert list(many.at_rest) == names[:-1]


async def test_a_directory_that_is_not_there(backend: FilesBackend, bucket: str) -> None:
    if Extension.CONTENTS not in backend.extensions:
        pytest.skip("files are read one by one there")
    with pytest.raises(NotFound):
        await backend.read_many(Location(bucket, "d"), ["f"])

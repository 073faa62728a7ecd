"""A program that writes a file whose parts go up meanwhile, and a server that can be held."""

from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.write.buffer import SpoolFolder, WriteBuffer
from filesfs.write.target import Target
from filesfs.write.upload import Uploader
from tests.unit.test_upload import Nothing, target
from tests.unit.upload_server import Server


class Writer:
    """A program that writes one file through the mount, as the file system does it."""

    def __init__(self, up: Uploader, buffer: WriteBuffer) -> None:
        self.up, self.buffer = up, buffer
        self.target: Target = target()
        self.expected = bytearray()

    async def write(self, data: bytes, offset: int | None = None) -> None:
        offset = self.buffer.size if offset is None else offset
        self.buffer.write(offset, data)
        self.expected[offset : offset + len(data)] = data
        self.up.note_write(self.buffer, lambda: self.target)
        await self.up.room(self.buffer)
        await trio.testing.wait_all_tasks_blocked()

    def truncate(self, size: int) -> None:
        self.buffer.truncate(size)
        self.expected = bytearray(bytes(self.expected[:size]).ljust(size, b"\0"))

    async def commit(self) -> None:
        await self.up.commit(self.buffer, self.target, Nothing())


def hold(server: Server, held: str) -> trio.Event:
    """Requests `held` wait until the event is set."""
    gate, called = trio.Event(), server.called

    async def waits(call: str) -> None:
        await called(call)
        if call == held:
            await gate.wait()

    server.called = waits  # type: ignore[method-assign]
    return gate


@pytest.fixture
def buffer(tmp_path: Path) -> WriteBuffer:
    return WriteBuffer(SpoolFolder(tmp_path), 0)

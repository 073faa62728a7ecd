"""What a stream reads from, with delays and errors as a test wants them."""

import random
from collections.abc import Callable

import trio

from filesfs.domain import Arrived, Entry, ETag, Kind, Location
from filesfs.errors import Unavailable
from filesfs.read.blocks import BLOCK_BYTES
from filesfs.read.window import MIB

CONTENT = random.Random(3).randbytes(10 * MIB + 12_345)


def entry_of(size: int = len(CONTENT), etag: str | None = '"e1"') -> Entry:
    return Entry(
        Location("bucket", "key"), Kind.FILE, size, "", 1, etag=ETag(etag) if etag else None
    )


class FakeReader:
    """Content with a latency. `asked` are the ranges; `fail` says which requests go wrong. Long
    ranges arrive block by block where `arrives`, some of their blocks twice."""

    def __init__(
        self,
        content: bytes = CONTENT,
        delay: Callable[[], float] = lambda: 1.0,
        fail: Callable[[int, int], bool] = lambda offset, length: False,
        arrives: bool = False,
    ) -> None:
        self.content = content
        self.delay = delay
        self.fail = fail
        self.arrives = arrives
        self.asked: list[tuple[int, int]] = []
        self.running = 0
        self.most_running = 0

    async def read(self, entry: Entry, offset: int, length: int, arrived: Arrived) -> bytes:
        self.asked.append((offset, length))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.sleep(self.delay())
            return await self._read(offset, length, arrived)
        finally:
            self.running -= 1

    async def _read(self, offset: int, length: int, arrived: Arrived) -> bytes:
        content = self.content[offset : offset + length]
        if self.arrives and length >= MIB:
            await self._tell(offset, content[: length // 2], arrived)
            if self.fail(offset, length):
                raise Unavailable("the fake says so")
            await self._tell(offset, content, arrived)
            return b""
        if self.fail(offset, length):
            raise Unavailable("the fake says so")
        return content

    async def _tell(self, offset: int, content: bytes, arrived: Arrived) -> None:
        at = 0
        while at < len(content):
            end = min(len(content), at + BLOCK_BYTES - (offset + at) % BLOCK_BYTES)
            arrived(offset + at, memoryview(content)[at:end])
            at = end
            await trio.sleep(self.delay() / 10)

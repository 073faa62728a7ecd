"""ReadStream: the right bytes of one version, each fetched once, errors told to those who wait."""

import random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from filesfs.errors import Corrupted, Stale, Unavailable
from filesfs.read.blocks import BLOCK_BYTES, BlockCache, version_of
from filesfs.read.stream import ReadStream
from filesfs.read.window import GRAIN, KIB, MIB
from tests.unit.stream_rig import CONTENT, FakeReader, entry_of


async def _until_something_is_on_its_way(stream: ReadStream, reader: FakeReader) -> None:
    """Read on from the beginning until a read leaves a prefetch running."""
    for offset in range(0, 8 * MIB, 128 * KIB):
        await stream.read(offset, 128 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        if reader.running:
            return
    pytest.fail("nothing was fetched ahead")


@pytest.fixture
def cache() -> BlockCache:
    return BlockCache(64 * MIB)


@pytest.mark.trio
async def test_reads_end_at_the_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    stream = ReadStream(FakeReader(), cache, nursery, entry_of())
    size = len(CONTENT)
    assert await stream.read(size - 10, 100) == CONTENT[-10:]
    assert await stream.read(size, 100) == b""
    assert await stream.read(size + 5, 1) == b""
    assert await stream.read(0, 0) == b""
    await stream.aclose()


@pytest.mark.trio
async def test_a_file_read_through_is_fetched_once_and_ahead(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    got = [await stream.read(offset, 128 * KIB) for offset in range(0, len(CONTENT), 128 * KIB)]
    assert b"".join(got) == CONTENT
    assert sum(length for _, length in reader.asked) == len(CONTENT)
    assert 2 <= reader.most_running <= 5
    await stream.aclose()


@pytest.mark.trio
async def test_what_was_read_is_there_for_another_handle_unless_the_kernel_has_its_block(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    await stream.read(7 * MIB, 500 * KIB)
    await stream.read(3 * MIB, 500 * KIB)
    requests = len(reader.asked)
    again = ReadStream(reader, cache, nursery, entry_of())
    assert await again.read(3 * MIB, 500 * KIB) == CONTENT[3 * MIB : 3 * MIB + 500 * KIB]
    assert len(reader.asked) == requests
    for offset in range(0, len(CONTENT), 128 * KIB):
        await again.read(offset, 128 * KIB)
    assert cache.used_bytes <= BLOCK_BYTES  # the first, which was read before it was in order
    await again.aclose()
    await stream.aclose()


@pytest.mark.trio
async def test_a_random_read_fetches_little(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    at = 5 * MIB + 3
    assert await stream.read(at, 4096) == CONTENT[at : at + 4096]
    assert reader.asked == [(5 * MIB, 2 * GRAIN)]
    await stream.aclose()


@pytest.mark.trio
async def test_a_whole_block_is_not_copied(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    block = CONTENT[:BLOCK_BYTES]
    stream = ReadStream(FakeReader(), cache, nursery, entry_of())
    cache.put(version_of(entry_of()), 0, block)
    assert await stream.read(0, BLOCK_BYTES) is block
    assert (await stream.view(10, 20)).obj is block
    await stream.aclose()


@pytest.mark.trio
async def test_reads_at_one_time_share_a_fetch(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    got = []

    async def read(offset: int) -> None:
        got.append(await stream.read(offset, 4096) == CONTENT[offset : offset + 4096])

    async with trio.open_nursery() as readers:
        for offset in range(6 * MIB, 6 * MIB + 64 * KIB, 4096):
            readers.start_soon(read, offset)
    assert got == [True] * 16
    assert sum(length for _, length in reader.asked) <= 256 * KIB
    assert len({start for start, _ in reader.asked}) == len(reader.asked)
    await stream.aclose()


@pytest.mark.trio
async def test_another_version_is_fetched_anew(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    old = ReadStream(FakeReader(), cache, nursery, entry_of())
    await old.read(0, 4096)
    changed = bytes(len(CONTENT))
    new = ReadStream(FakeReader(changed), cache, nursery, entry_of(etag='"e2"'))
    assert await new.read(0, 4096) == changed[:4096]
    assert await old.read(0, 4096) == CONTENT[:4096]
    await old.aclose()
    await new.aclose()


@pytest.mark.trio
async def test_an_error_is_told_to_the_read_and_the_next_one_tries_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader(fail=lambda offset, length: len(reader.asked) == 1)
    stream = ReadStream(reader, cache, nursery, entry_of())
    with pytest.raises(Unavailable, match="the fake says so"):
        await stream.read(0, 4096)
    assert await stream.read(0, 4096) == CONTENT[:4096]
    await stream.aclose()


@pytest.mark.trio
async def test_a_failed_prefetch_is_told_to_nobody_unless_one_waits(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    await stream.read(0, 128 * KIB)
    await stream.read(128 * KIB, 128 * KIB)
    reader.fail = lambda offset, length: True
    await stream.read(256 * KIB - 4096, 4096)  # cached; what is ahead fails meanwhile
    await trio.sleep(10)
    assert reader.running == 0
    reader.fail = lambda offset, length: False
    assert await stream.read(256 * KIB, 128 * KIB) == CONTENT[256 * KIB : 384 * KIB]
    reader.fail = lambda offset, length: True
    await trio.sleep(10)
    await stream.read(384 * KIB - 4096, 4096)
    with pytest.raises(Unavailable):
        await stream.read(5 * MIB, 128 * KIB)
    await stream.aclose()


@pytest.mark.parametrize(("etag", "error"), [('"e1"', Corrupted), (None, Stale)])
@pytest.mark.parametrize("length", [1000, 300_000])
@pytest.mark.trio
async def test_an_answer_of_the_wrong_length_is_not_served(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    cache: BlockCache,
    etag: str | None,
    error: type[Exception],
    length: int,
) -> None:
    stream = ReadStream(FakeReader(bytes(1000)), cache, nursery, entry_of(length + 500, etag))
    with pytest.raises(error, match="the server answered"):
        await stream.read(0, length + 500)
    await stream.aclose()


@pytest.mark.trio
async def test_aclose_cancels_what_is_on_its_way(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    await _until_something_is_on_its_way(stream, reader)
    assert cache.share == 32 * MIB  # one reader has it all
    got = []

    async def read() -> None:
        got.append(await stream.read(9 * MIB, 4096))

    async with trio.open_nursery() as waiting:
        waiting.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert reader.running > 1
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert reader.running == 1  # what a read waits for is not taken from it
    assert got == [CONTENT[9 * MIB : 9 * MIB + 4096]]
    assert cache.share == 32 * MIB


async def _run_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as daemon:
        task_status.started(daemon)
        await trio.sleep_forever()


@pytest.mark.trio
async def test_a_mount_that_ends_leaves_no_read_hanging(
    autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    async with trio.open_nursery() as readers:
        daemon = await readers.start(_run_nursery)
        stream = ReadStream(reader, cache, daemon, entry_of())

        async def read() -> None:
            with pytest.raises(Unavailable, match="the mount ended"):
                await stream.read(0, 4096)

        readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        daemon.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_reader_who_is_cancelled_leaves_the_fetch_to_the_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, cache: BlockCache
) -> None:
    reader = FakeReader()
    stream = ReadStream(reader, cache, nursery, entry_of())
    with trio.move_on_after(0.5) as scope:
        await stream.read(0, 4096)
    assert scope.cancelled_caught
    assert await stream.read(0, 4096) == CONTENT[:4096]
    assert len(reader.asked) == 1
    await stream.aclose()


@pytest.mark.trio
async def test_without_memory_reads_still_work(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stream = ReadStream(FakeReader(), BlockCache(0), nursery, entry_of())
    got = [await stream.read(offset, MIB) for offset in range(0, len(CONTENT), MIB)]
    assert b"".join(got) == CONTENT
    await stream.aclose()


@pytest.mark.trio
async def test_seeking_away_for_good_gives_up_what_was_ahead(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    content = bytes(512 * MIB)
    cache = BlockCache(64 * MIB)
    reader = FakeReader(content, delay=lambda: 100.0)
    stream = ReadStream(reader, cache, nursery, entry_of(len(content), '"z"'))
    await _until_something_is_on_its_way(stream, reader)
    async with trio.open_nursery() as readers:
        for k in range(1, 6):
            readers.start_soon(stream.read, k * 80 * MIB, 4096)
        await trio.testing.wait_all_tasks_blocked()
        assert reader.running == 5  # these alone
    await stream.aclose()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 4096, 100_000, BLOCK_BYTES, BLOCK_BYTES + 1, len(CONTENT)]),
    memory=st.sampled_from([0, 300_000, 3 * MIB, 64 * MIB]),
    failures=st.sampled_from([0.0, 0.2]),
    arrives=st.booleans(),
    reads=st.lists(
        st.tuples(st.sampled_from(["next", "jump", "back", "near"]), st.integers(1, 2 * MIB)),
        min_size=1,
        max_size=25,
    ),
)
def test_any_reads_give_the_right_bytes(
    seed: int,
    size: int,
    memory: int,
    failures: float,
    arrives: bool,
    reads: list[tuple[str, int]],
) -> None:
    rng = random.Random(seed)
    content = CONTENT[:size]
    reader = FakeReader(content, rng.random, lambda *_: rng.random() < failures, arrives)

    async def one(stream: ReadStream, offset: int, length: int) -> None:
        try:
            data = await stream.read(offset, length)
        except Unavailable:
            assert failures
        else:
            assert data == content[offset : offset + length]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            stream = ReadStream(reader, BlockCache(memory), nursery, entry_of(size))
            position = 0
            async with trio.open_nursery() as readers:
                for how, length in reads:
                    start = {
                        "next": position,
                        "jump": rng.randrange(size),
                        "back": max(0, position - 2 * length),
                        "near": max(0, position + rng.randrange(-200_000, 200_000)),
                    }[how]
                    position = start + length
                    readers.start_soon(one, stream, start, length)
                    if rng.random() < 0.7:
                        await trio.sleep(rng.random() * 2)
            await stream.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

"""Streams: what is written from the start goes up before close, and is void as soon as it is not
right any more.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Location
from filesfs.wire import Extension
from filesfs.write.buffer import SpoolFolder, WriteBuffer
from filesfs.write.stream import PARTS_AHEAD
from tests.unit.test_upload import PART, WHERE, Nothing, Reader, target, uploader
from tests.unit.upload_server import EVERYTHING, Server
from tests.unit.upload_stream_rig import Writer, buffer, hold

__all__ = ["buffer"]

pytestmark = pytest.mark.trio


async def test_parts_go_up_while_the_file_is_written(buffer: WriteBuffer) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        for number in range(50):
            await writer.write(bytes([number]) * 49)
        assert server.calls == ["open None", "send 1000", "send 1000"]
        assert WHERE not in server.files
        await writer.commit()
        assert server.calls[3:] == ["send 450 final"]
    assert server.files[WHERE][1] == writer.expected


async def test_a_file_that_ends_with_a_part_and_one_that_ends_with_a_hole(
    buffer: WriteBuffer,
) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * PART)
        await writer.commit()
        assert server.calls == ["open None", "send 1000", "send 0 final"]
        writer.truncate(PART + 10)
        buffer.rebase(0)
        buffer.write(0, bytes(writer.expected[:PART]))
        up.note_write(buffer, lambda: writer.target)
        await trio.testing.wait_all_tasks_blocked()
        buffer.truncate(PART + 10)
        await writer.commit()
    assert server.calls[-1] == "send 10 final"
    assert server.files[WHERE][1] == writer.expected


async def test_one_request_carries_what_is_written_meanwhile(buffer: WriteBuffer) -> None:
    server = Server(pushes=True)
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        for number in range(50):
            await writer.write(bytes([number]) * 49)
        assert server.calls == ["open None", "push", "push"]
        await writer.commit()
        assert server.calls[3:] == ["settle", "send 450 final"]
    assert server.files[WHERE][1] == writer.expected


async def test_a_writer_who_pauses_leaves_no_request_open(
    buffer: WriteBuffer, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server(pushes=True)
    async with uploader(server) as up:
        up.note_write(buffer, target)
        buffer.write(0, b"x" * 1500)
        up.note_write(buffer, target)
        await trio.sleep(10)
        assert server.calls == ["open None", "push", "settle"]
        buffer.write(1500, b"y" * 1500)
        up.note_write(buffer, target)
        await up.commit(buffer, target(), Nothing())
    assert server.files[WHERE][1] == b"x" * 1500 + b"y" * 1500
    assert len(server.sessions) == 1


async def test_a_small_file_and_a_plain_server_have_no_stream(tmp_path: Path) -> None:
    plain = Server(extensions=EVERYTHING - {Extension.DEFER_LENGTH})
    for server, size in ((Server(), PART - 1), (plain, 3 * PART)):
        async with uploader(server) as up:
            writer = Writer(up, WriteBuffer(SpoolFolder(tmp_path), 0))
            await writer.write(b"x" * size)
            assert server.calls == []
            await writer.commit()
        assert server.files[WHERE][1] == writer.expected


async def test_a_file_that_is_rewritten_over_its_old_content_streams_once_that_is_gone(
    tmp_path: Path,
) -> None:
    server = Server()
    old = server.store(WHERE, b"o" * 1500)
    buffer = WriteBuffer(SpoolFolder(tmp_path), 1500)
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        writer.target = target(old)
        writer.expected = bytearray(b"o" * 1500)
        await writer.write(b"n" * 1200, 0)
        assert server.calls == []
        await writer.write(b"n" * 400, 1200)
        assert server.calls == ["open None", "send 1000"]
        await up.commit(buffer, writer.target, Reader(server, old))
    assert server.files[WHERE][1] == b"n" * 1600


def _overwrite(writer: Writer) -> None:
    writer.buffer.write(5, b"HEADER")
    writer.expected[5:11] = b"HEADER"


def _cut(writer: Writer) -> None:
    writer.truncate(500)


def _cut_and_grow(writer: Writer) -> None:
    writer.truncate(500)
    writer.truncate(2500)


@pytest.mark.parametrize("change", [_overwrite, _cut, _cut_and_grow])
@pytest.mark.parametrize("noted", [True, False])
async def test_a_change_of_what_was_sent_makes_the_stream_void(
    buffer: WriteBuffer, change: Callable[[Writer], None], noted: bool
) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 2500)
        change(writer)
        if noted:
            await writer.write(b"more")
        await writer.commit()
        assert server.sessions[0].cancelled
    assert server.files[WHERE][1] == writer.expected


async def test_a_writer_that_keeps_changing_its_header_is_not_sent_for_ever(
    buffer: WriteBuffer,
) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 2000)
        for _ in range(10):
            await writer.write(b"HEADER", 0)
        assert len(server.sessions) == 2
        await writer.commit()
    assert server.files[WHERE][1] == writer.expected


async def test_a_change_while_the_last_parts_are_awaited_is_not_mixed_in(
    buffer: WriteBuffer,
) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        gate = hold(server, "send 1000")
        await writer.write(b"x" * 1500)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.commit)
            await trio.testing.wait_all_tasks_blocked()
            _overwrite(writer)
            gate.set()
        assert [session.cancelled for session in server.sessions] == [True, False]
    assert server.files[WHERE][1] == writer.expected


async def test_a_file_renamed_while_it_streams_goes_to_its_new_name(buffer: WriteBuffer) -> None:
    server = Server()
    new = Location("docs", "new")
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        writer.target = replace(writer.target, location=new)
        await writer.commit()
    assert list(server.files) == [new]


async def test_a_known_resource_renamed_while_it_streams_is_replaced_where_it_is(
    tmp_path: Path,
) -> None:
    server = Server()
    old, new = server.store(WHERE, b""), Location("docs", "new")
    async with uploader(server) as up:
        writer = Writer(up, WriteBuffer(SpoolFolder(tmp_path), 0))
        writer.target = target(old)
        await writer.write(b"x" * 1500)
        await server.move(WHERE, new, old.kind)
        writer.target = replace(writer.target, location=new)
        await writer.commit()
    assert {where: data for where, (_, data) in server.files.items()} == {new: b"x" * 1500}
    assert len(server.sessions) == 1


async def test_discard_ends_the_stream(buffer: WriteBuffer) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        await up.discard(buffer)
        await up.discard(buffer)
        assert server.sessions[0].cancelled
    assert not server.files


async def test_times_that_moved_follow_the_content(buffer: WriteBuffer) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        await writer.write(b"x" * 1500)
        writer.target = target(change=AttributeChange(mode=0o644, modified_ns=5))
        await writer.commit()
    assert server.calls[-2:] == ["send 500 final", "attributes"]
    attributes = server.files[WHERE][0].attributes
    assert (attributes.mode, attributes.modified_ns) == (0o644, 5)


async def test_a_file_that_became_private_is_never_seen_as_it_was(buffer: WriteBuffer) -> None:
    server = Server()
    async with uploader(server) as up:
        writer = Writer(up, buffer)
        writer.target = target(change=AttributeChange(mode=0o644))
        await writer.write(b"x" * 1500)
        writer.target = target(change=AttributeChange(mode=0o600))
        await writer.commit()
    assert server.sessions[0].cancelled
    assert "attributes" not in server.calls
    assert server.files[WHERE][0].attributes.mode == 0o600


async def test_a_writer_far_ahead_waits_for_the_server(buffer: WriteBuffer) -> None:
    server = Server()
    gate, allowed = hold(server, "send 1000"), PARTS_AHEAD * PART
    async with uploader(server) as up, trio.open_nursery() as nursery:
        buffer.write(0, b"x" * allowed)
        up.note_write(buffer, target)
        await up.room(buffer)  # at most that far: no wait
        await trio.testing.wait_all_tasks_blocked()
        buffer.write(allowed, b"x" * 2 * PART)
        done = trio.Event()

        async def waits() -> None:
            await up.room(buffer)
            done.set()

        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        gate.set()
        await done.wait()
        await up.commit(buffer, target(), Nothing())
    assert server.files[WHERE][1] == b"x" * (allowed + 2 * PART)


async def test_a_writer_waits_no_longer_than_a_moment(
    buffer: WriteBuffer, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server()
    hold(server, "send 1000")
    async with uploader(server) as up:
        buffer.write(0, b"x" * 20 * PART)
        up.note_write(buffer, target)
        await up.room(buffer)
        assert trio.current_time() < 2
        await up.discard(buffer)

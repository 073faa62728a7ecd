"""Properties of streams: whatever a program does, and however attributes change meanwhile."""

import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from filesfs.domain import AttributeChange
from filesfs.errors import Unavailable
from filesfs.wire import Extension
from filesfs.write.buffer import SpoolFolder, WriteBuffer
from filesfs.write.stream import may_follow
from filesfs.write.upload import Uploader
from tests.unit.test_upload import WHERE, Reader, failing, target, uploader
from tests.unit.upload_server import EVERYTHING, Server

pytestmark = pytest.mark.trio

_modes = st.none() | st.integers(0, 0o7777)
_owners = st.none() | st.integers(0, 2)
_lists = st.none() | st.dictionaries(st.sampled_from(["user.a", "system.acl"]), st.just(b"x"))
_changes = st.builds(AttributeChange, mode=_modes, uid=_owners, gid=_owners, xattrs=_lists)


@given(_changes, _changes)
async def test_what_may_follow_never_takes_a_right_away(
    began: AttributeChange, now: AttributeChange
) -> None:
    assert may_follow(began, replace(began, modified_ns=9))
    if not may_follow(began, now):
        return
    assert (began.mode or 0) & ~(now.mode or 0) == 0
    if (began.uid, began.gid) != (now.uid, now.gid):
        assert began.mode is not None
        assert began.mode & 0o077 == 0
    assert ("system.acl" in (began.xattrs or {})) == ("system.acl" in (now.xattrs or {}))


_programs = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 2500)),
        st.tuples(st.just("overwrite"), st.integers(0, 3000)),
        st.tuples(st.just("truncate"), st.integers(0, 4000)),
        st.tuples(st.just("wait"), st.just(0)),
        st.tuples(st.just("fail"), st.just(0)),
        st.tuples(st.just("commit"), st.just(0)),
    ),
    max_size=15,
)


@settings(max_examples=150, deadline=None)
@given(_programs, st.booleans())
async def test_whatever_a_program_does_the_commit_is_what_it_wrote(
    program: list[tuple[str, int]], pushes: bool
) -> None:
    server = Server(extensions=EVERYTHING - {Extension.RANGES_UPLOAD}, pushes=pushes)
    with tempfile.TemporaryDirectory() as folder:
        async with uploader(server) as up:
            await _run_program(server, up, SpoolFolder(Path(folder)), program)


async def _run_program(
    server: Server, up: Uploader, spool: SpoolFolder, program: list[tuple[str, int]]
) -> None:
    entry = server.store(WHERE, b"")
    buffer = WriteBuffer(spool, 0, memory_limit=1500)
    model = bytearray()
    for number, (step, value) in enumerate([*program, ("commit", 0)], start=1):
        match step:
            case "append" | "overwrite":
                offset = len(model) if step == "append" else min(value, len(model))
                data = bytes([number]) * (value if step == "append" else 100)
                buffer.write(offset, data)
                model[offset : offset + len(data)] = data
                up.note_write(buffer, partial(target, entry))
            case "truncate":
                buffer.truncate(value)
                model = bytearray(bytes(model[:value]).ljust(value, b"\0"))
            case "wait":
                await trio.testing.wait_all_tasks_blocked()
            case "fail":
                call = "push" if server.pushes else "send 1000"
                server.fault = failing(call, Unavailable("away"))
            case "commit":
                server.fault = lambda call: None
                entry = await up.commit(buffer, target(entry), Reader(server, entry))
                buffer.rebase(entry.size)
                assert server.files[WHERE][1] == model

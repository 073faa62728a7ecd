"""WriteBuffer against a bytearray, and on a full disk."""

import contextlib
import ctypes
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from filesfs.errors import Corrupted
from filesfs.write.buffer import SpoolFile, SpoolFolder, WriteBuffer
from filesfs.write.store import PAGE


class Base:
    """The version that a buffer lies over."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + length]


class FullFolder(SpoolFolder):
    """A spool on a disk that has no room: at the file's creation, or at its first write."""

    def __init__(self, path: Path, *, at_create: bool) -> None:
        super().__init__(path)
        self.at_create = at_create
        self.full = True

    def create(self) -> SpoolFile:
        if self.full and self.at_create:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file = super().create()
        return _FullFile(file, self) if self.full else file


class _FullFile(SpoolFile):
    def __init__(self, file: SpoolFile, folder: FullFolder) -> None:
        super().__init__(file.path, file._descriptor)
        self.folder = folder

    def write(self, offset: int, data: bytes | memoryview) -> None:
        if self.folder.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(offset, data)


def _content(buffer: WriteBuffer, base: Base) -> bytes:
    return trio.run(buffer.read, 0, buffer.size + 100, base)


_step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 300), st.binary(max_size=80)),
    st.tuples(st.just("truncate"), st.integers(0, 300), st.none()),
    st.tuples(st.just("read"), st.integers(0, 300), st.integers(0, 300)),
    st.tuples(st.just("rebase"), st.none(), st.none()),
    st.tuples(st.just("spill"), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0, 60, 1 << 20]), st.lists(_step, max_size=30))
def test_a_buffer_is_a_bytearray(
    data: bytes, limit: int, steps: list[tuple[str, int, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_follow, SpoolFolder(Path(folder)), data, limit, steps)
        assert os.listdir(folder) == []


async def _follow(
    spool: SpoolFolder, data: bytes, limit: int, steps: list[tuple[str, int, bytes]]
) -> None:
    base, model = Base(data), bytearray(data)
    buffer = WriteBuffer(spool, len(data), limit)
    for name, offset, value in steps:
        before, generation = bytes(model), buffer.generation
        match name:
            case "write":
                assert buffer.write(offset, value) == len(value)
                if value:
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + len(value)] = value
            case "truncate":
                buffer.truncate(offset)
                del model[offset:]
                model.extend(bytes(offset - len(model)))
            case "read":
                got = await buffer.read(offset, int(value), base)
                assert got == model[offset : offset + int(value)]
            case "rebase":
                base = Base(before)
                buffer.rebase(len(before))
                assert not buffer.dirty
            case "spill":
                buffer.spill()
        assert buffer.size == len(model)
        assert buffer.generation > generation or bytes(model) == before
        assert buffer.dirty or bytes(model) == base.data
    assert await buffer.read(0, len(model), base) == model
    assert buffer.head(10) == model[: min(buffer.run, 10)]
    buffer.close()


def test_a_far_write_costs_no_memory_and_leaves_zeros(tmp_path: Path) -> None:
    buffer = WriteBuffer(SpoolFolder(tmp_path), 0)
    buffer.write(1 << 40, b"end")
    assert buffer.size == (1 << 40) + 3
    assert trio.run(buffer.read, (1 << 40) - 2, 10, Base()) == b"\0\0end"
    buffer.close()


@pytest.mark.trio
async def test_what_is_written_while_the_base_is_awaited_is_not_mixed_in(tmp_path: Path) -> None:
    buffer = WriteBuffer(SpoolFolder(tmp_path), 4)
    buffer.write(0, b"A")

    class Meanwhile(Base):
        async def read(self, offset: int, length: int) -> bytes:
            buffer.write(0, b"Z")
            return await super().read(offset, length)

    assert await buffer.read(0, 4, Meanwhile(b"base")) == b"Aase"


@pytest.mark.trio
async def test_a_base_that_is_too_short_is_never_filled_with_zeros(tmp_path: Path) -> None:
    buffer = WriteBuffer(SpoolFolder(tmp_path), 10)
    with pytest.raises(Corrupted, match="5 bytes of 10 at 0"):
        await buffer.read(0, 10, Base(b"short"))


@pytest.mark.parametrize("at_create", [True, False])
def test_a_full_disk_refuses_the_write_and_keeps_what_was_acknowledged(
    tmp_path: Path, at_create: bool
) -> None:
    folder = FullFolder(tmp_path, at_create=at_create)
    buffer = WriteBuffer(folder, 0, memory_limit=PAGE)
    held = b"x" * PAGE
    buffer.write(0, held)
    with pytest.raises(OSError, match="No space left") as caught:
        buffer.write(PAGE - 2, b"9abc")
    assert caught.value.errno == errno.ENOSPC
    assert (buffer.size, buffer.generation) == (PAGE, 1)
    assert _content(buffer, Base()) == held
    assert os.listdir(tmp_path) == []
    folder.full = False  # somebody made room
    buffer.write(PAGE - 2, b"9abc")
    assert _content(buffer, Base()) == held[:-2] + b"9abc"


@contextlib.contextmanager
def _tiny_disk(path: Path, size: int) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size}".encode()
    if libc.mount(b"tmpfs", bytes(path), b"tmpfs", 0, options):
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        assert libc.umount2(bytes(path), 2) == 0  # MNT_DETACH


def _fill(buffer: WriteBuffer) -> int:
    written = 0
    with contextlib.suppress(OSError):
        while True:
            written += buffer.write(written, bytes([written // 5000]) * 5000)
    return written


def test_a_disk_that_fills_up_for_real(tmp_path: Path) -> None:
    with _tiny_disk(tmp_path, 64 << 10):
        buffer = WriteBuffer(SpoolFolder(tmp_path / "spool"), 0, memory_limit=0)
        written = _fill(buffer)
        assert buffer.size == written > 0
        expected = b"".join(bytes([number]) * 5000 for number in range(written // 5000))
        assert _content(buffer, Base()) == expected
        buffer.close()


def test_a_rewrite_from_scratch_leaves_the_journals_copy_alone(tmp_path: Path) -> None:
    buffer = WriteBuffer(SpoolFolder(tmp_path), 0)
    buffer.write(0, b"kept")
    held = buffer.spill().hold()
    buffer.truncate(0)
    buffer.write(0, b"NEW!")
    assert held.read(0, 4) == b"kept"
    assert _content(buffer, Base()) == b"NEW!"
    buffer.close()
    held.release()
    assert os.listdir(tmp_path) == []


def test_a_cut_leaves_bytes_that_the_journal_holds(tmp_path: Path) -> None:
    buffer = WriteBuffer(SpoolFolder(tmp_path), 0)
    buffer.write(0, b"abcdef")
    held = buffer.spill().hold()
    buffer.truncate(2)
    buffer.truncate(6)
    assert _content(buffer, Base()) == b"ab\0\0\0\0"
    assert held.read(0, 6) == b"abcdef"
    held.release()
    buffer.close()


def test_a_stream_is_void_once_a_byte_it_took_changes(tmp_path: Path) -> None:
    buffer = WriteBuffer(SpoolFolder(tmp_path), 0)
    buffer.write(0, b"0123456789")
    assert b"".join(buffer.take(0, 4)) == b"0123"
    buffer.write(4, b"X")
    buffer.truncate(8)
    assert buffer.intact
    buffer.truncate(3)
    assert not buffer.intact
    buffer.restart()
    assert buffer.intact

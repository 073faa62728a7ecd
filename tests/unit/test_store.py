"""ByteStore against a bytearray: pages in memory, taken over whole, and in the spool file."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from filesfs.write.extents import RangeSet
from filesfs.write.spool import SpoolFolder
from filesfs.write.store import PAGE, ByteStore

PLACES = st.integers(0, 4 * PAGE) | st.integers(0, 4).map(lambda page: page * PAGE)
LENGTHS = st.sampled_from([1, 4096, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE + 5])
STEPS = st.lists(
    st.tuples(st.just("write"), PLACES, LENGTHS)
    | st.tuples(st.just("blocks"), PLACES, st.sampled_from([100, 512, 4096, 5000]))
    | st.tuples(st.just("truncate"), PLACES, st.just(0))
    | st.tuples(st.just("spill"), st.just(0), st.just(0)),
    max_size=12,
)


@settings(deadline=None)
@given(STEPS, st.integers(0, 6 * PAGE))
def test_what_was_written_last_is_read(steps: list[tuple[str, int, int]], limit: int) -> None:
    model, dirty = bytearray(), RangeSet()
    with tempfile.TemporaryDirectory() as name:
        folder = SpoolFolder(Path(name))
        store = ByteStore(folder, limit)
        for number, (what, at, length) in enumerate(steps, start=1):
            if what in ("write", "blocks"):
                for start in range(at, at + (PAGE if what == "blocks" else 1), length):
                    data = bytes([number]) * length
                    store.write(start, data, dirty)
                    model.extend(bytes(max(0, start + length - len(model))))
                    model[start : start + length] = data
                    dirty.add(start, start + length)
            elif what == "truncate":
                store.truncate(at)
                del model[at:]
                dirty.cut(at)
            else:
                store.spill(dirty)
                assert folder.in_memory == 0
        for start, end in dirty:
            assert store.read(start, end - start) == model[start:end]
        store.release()
        assert folder.in_memory == 0
        assert list(Path(name).iterdir()) == []


def test_a_page_written_whole_is_not_copied(tmp_path: Path) -> None:
    store = ByteStore(SpoolFolder(tmp_path), 8 * PAGE)
    data = bytes(4 * PAGE)
    store.write(0, data, ())
    assert all(isinstance(p, memoryview) and p.obj is data for p in store.pieces(0, 4 * PAGE))


def test_blocks_are_a_page_once_it_is_whole_and_count_before(tmp_path: Path) -> None:
    folder = SpoolFolder(tmp_path)
    store = ByteStore(folder, 8 * PAGE)
    blocks = [bytes([number]) * 4096 for number in range(2 * PAGE // 4096)]
    for number, block in enumerate(blocks[:-1]):
        store.write(number * 4096, block, ())
        assert folder.in_memory == (number + 1) * 4096
    first, *rest = store.pieces(0, 2 * PAGE - 4096)
    assert isinstance(first, memoryview)  # whole, so it stands as it is
    assert b"".join([first, *rest]) == b"".join(blocks[:-1])
    store.write(2 * PAGE - 4096, blocks[-1], ())  # goes on where pieces were asked for
    assert store.read(0, 2 * PAGE) == b"".join(blocks)
    store.release()
    assert folder.in_memory == 0


def test_what_was_handed_out_stands_while_the_page_is_cut_and_grows(tmp_path: Path) -> None:
    store = ByteStore(SpoolFolder(tmp_path), 8 * PAGE)
    for start in range(0, PAGE + 4096, 4096):
        store.write(start, b"a" * 4096, ())
    pieces = list(store.pieces(0, PAGE + 4096))
    store.truncate(100)
    store.write(PAGE + 4096, b"b", ())
    assert b"".join(pieces) == b"a" * (PAGE + 4096)


def test_buffers_share_the_memory_of_their_folder(tmp_path: Path) -> None:
    folder = SpoolFolder(tmp_path, memory_bytes=2 * PAGE)
    one, two = ByteStore(folder, 8 * PAGE), ByteStore(folder, 8 * PAGE)
    one.write(0, bytes(2 * PAGE), ())
    two.write(0, b"x", ())
    assert one.file is None
    assert two.file is not None
    assert two.read(0, 1) == b"x"
    one.release()
    two.release()

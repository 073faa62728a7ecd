"""The read window: sequential reads earn ranges ahead, random reads fetch little."""

import itertools
import random

from hypothesis import example, given
from hypothesis import strategies as st

from filesfs.read.pace import Pace
from filesfs.read.window import (
    AHEAD,
    BLOCK,
    ENOUGH,
    FIRST,
    GRAIN,
    KIB,
    LARGEST,
    MIB,
    PIECE,
    REGION,
    RENTED,
    Range,
    ReadWindow,
)

GIB = 1024 * MIB


def _read(window: ReadWindow, start: int, length: int, fetched: list[Range]) -> None:
    """One read as the stream makes it, with every fetch done at once."""
    end = min(start + length, window.size)
    window.observe(start, end)
    if not any(part.start <= start and end <= part.end for part in fetched):
        fetched.append(window.demand(start, end))
    fetched += window.ahead()


def _fetched_for(offsets: list[int], length: int, size: int = GIB) -> list[Range]:
    window = ReadWindow(size)
    fetched: list[Range] = []
    for offset in offsets:
        _read(window, offset, length, fetched)
    return fetched


def test_sequential_reads_grow_to_the_largest_ranges_and_fetch_nothing_twice() -> None:
    fetched = _fetched_for(list(range(0, 128 * MIB, 128 * KIB)), 128 * KIB)
    assert fetched[0] == Range(0, FIRST)
    assert max(part.length for part in fetched) == LARGEST
    assert len(fetched) < 40
    for one, following in itertools.pairwise(fetched):
        assert one.end == following.start
    assert fetched[-1].end <= 128 * MIB + AHEAD


def test_a_reader_who_stops_early_has_cost_a_bounded_share() -> None:
    for reads in range(1, 200):
        fetched = _fetched_for(list(range(0, reads * 128 * KIB, 128 * KIB)), 128 * KIB)
        assert sum(part.length for part in fetched) <= 3 * reads * 128 * KIB


def test_long_ranges_end_on_blocks() -> None:
    for part in _fetched_for(list(range(0, 64 * MIB, MIB)), MIB):
        assert part.end % GRAIN == 0
        if part.length >= 2 * BLOCK:
            assert part.end % BLOCK == 0


def test_a_cold_random_read_fetches_its_grain() -> None:
    window = ReadWindow(GIB)
    window.observe(500 * MIB + 4 * KIB, 500 * MIB + 8 * KIB)
    assert window.demand(500 * MIB + 4 * KIB, 500 * MIB + 8 * KIB) == Range(
        500 * MIB + GRAIN, 500 * MIB + 2 * GRAIN
    )
    assert window.ahead() == []


def test_random_reads_never_overfetch() -> None:
    rng = random.Random(7)
    offsets = [rng.randrange(GIB // 4096) * 4096 for _ in range(2000)]
    fetched = _fetched_for(offsets, 4 * KIB)
    assert all(part.length <= 128 * KIB for part in fetched)


def test_random_reads_of_a_small_region_do_not_look_sequential() -> None:
    rng = random.Random(8)
    offsets = [rng.randrange(8 * MIB // 4096) * 4096 for _ in range(60)]
    fetched = _fetched_for(offsets, 4 * KIB, 64 * MIB)
    assert sum(part.length for part in fetched) <= 60 * FIRST


def test_many_random_reads_of_a_file_that_fits_fetch_its_regions() -> None:
    """They have cost as much by then; the rest of a region comes ahead, and nothing twice."""
    rng = random.Random(10)
    window = ReadWindow(60 * MIB, fits=True)
    fetched: list[Range] = []
    for _ in range(300):
        _read(window, rng.randrange(60 * MIB // 4096) * 4096, 4 * KIB, fetched)
    rented = [part for part in fetched if part.length < PIECE]
    assert len(rented) == RENTED
    assert sum(part.length for part in set(fetched) - set(rented)) == 60 * MIB


def test_reads_near_others_do_not_pay_but_have_what_was_paid_for() -> None:
    window = ReadWindow(60 * MIB, fits=True)
    fetched: list[Range] = []
    for offset in range(17 * MIB, 18 * MIB, 128 * KIB):
        _read(window, offset, 4 * KIB, fetched)
    assert {part.length for part in fetched} == {GRAIN}
    for offset in (25 * MIB, 1 * MIB, 40 * MIB):
        _read(window, offset, 4 * KIB, fetched)
    _read(window, 18 * MIB, 4 * KIB, fetched)
    assert Range(16 * MIB, 20 * MIB) in fetched


def _read_at_random(pace: Pace, reads: int) -> list[Range]:
    rng = random.Random(12)
    window = ReadWindow(60 * MIB, fits=True, pace=pace)
    fetched: list[Range] = []
    for _ in range(reads):
        _read(window, rng.randrange(60 * MIB // 4096) * 4096, 4 * KIB, fetched)
    return fetched


def test_over_a_thin_line_a_piece_is_paid_for_in_full() -> None:
    """A megabyte a second: a piece takes as long as 400 reads of 10 ms."""
    pace = Pace()
    pace.took(4 * KIB, 0.01)
    pace.took(MIB, 1.0)
    assert sum(part.length for part in _read_at_random(pace, 300)) <= 300 * GRAIN
    assert max(part.length for part in _read_at_random(pace, 600)) == PIECE


def test_over_a_far_line_it_is_cheap() -> None:
    pace = Pace()
    pace.took(4 * KIB, 0.1)
    pace.took(MIB, 0.2)
    assert PIECE in {part.length for part in _read_at_random(pace, 10)}


def test_while_nobody_knows_the_line_a_block_is_bought_first() -> None:
    pace = Pace()
    pace.took(4 * KIB, 0.01)
    fetched = _read_at_random(pace, RENTED + 1)
    assert [part.length for part in fetched] == [GRAIN] * RENTED + [BLOCK]
    pace.took(MIB, 0.01)
    assert max(part.length for part in _read_at_random(pace, 10)) == PIECE


def test_a_region_that_does_not_stay_in_the_cache_is_seldom_fetched_again() -> None:
    """Where many files are read, each fits into the cache and all of them do not."""
    rng = random.Random(11)
    window = ReadWindow(60 * MIB, fits=True)
    fetched: list[Range] = []
    for _ in range(3000):
        offset = rng.randrange(60 * MIB // 4096) * 4096
        window.observe(offset, offset + 4 * KIB)
        fetched.append(window.demand(offset, offset + 4 * KIB))
        fetched += window.ahead()
    assert sum(part.length for part in fetched) <= 4 * 60 * MIB


def test_a_few_random_reads_of_a_file_that_fits_fetch_their_grains() -> None:
    window = ReadWindow(256 * MIB, fits=True)
    fetched: list[Range] = []
    for offset in range(8 * MIB, 256 * MIB, 16 * MIB):
        _read(window, offset, 4 * KIB, fetched)
    assert {part.length for part in fetched} == {GRAIN}


def test_the_same_place_again_and_again_fetches_nothing_ahead() -> None:
    assert _fetched_for([40 * MIB] * 100, 4 * KIB) == [Range(40 * MIB, 40 * MIB + GRAIN)]


def test_a_small_file_comes_in_one_request() -> None:
    assert _fetched_for([0], 4 * KIB, size=200 * KIB) == [Range(0, 200 * KIB)]


def test_the_kernels_order_is_tolerated() -> None:
    """Readahead sends several requests at once, and they arrive shuffled."""
    rng = random.Random(9)
    offsets = []
    for group in range(0, 64 * MIB, MIB):
        requests = [group + k * 128 * KIB for k in range(8)]
        rng.shuffle(requests)
        offsets += requests
    fetched = _fetched_for(offsets, 128 * KIB)
    assert max(part.length for part in fetched) == LARGEST
    assert sum(part.length for part in fetched) <= 64 * MIB + AHEAD + 2 * MIB


def test_two_places_read_in_turn_both_run_ahead() -> None:
    offsets = []
    for step in range(0, 16 * MIB, MIB):
        offsets += [step, 512 * MIB + step]
    fetched = _fetched_for(offsets, MIB)
    assert any(part.start > 512 * MIB and part.length >= 2 * MIB for part in fetched)
    assert any(part.start < 64 * MIB and part.length >= 2 * MIB for part in fetched)


def test_backward_reads_fetch_downwards_and_nothing_above() -> None:
    offsets = list(range(100 * MIB, 90 * MIB, -64 * KIB))
    fetched = _fetched_for(offsets, 64 * KIB)
    assert max(part.end for part in fetched) == 100 * MIB + 64 * KIB
    assert len(fetched) < 30  # a megabyte at a time, once it is clear where this goes
    assert sum(part.length for part in fetched) <= 12 * MIB


def test_ranges_in_flight_and_bytes_ahead_are_limited() -> None:
    window = ReadWindow(GIB)
    fetched: list[Range] = []
    for offset in range(0, 64 * MIB, MIB):
        _read(window, offset, MIB, fetched)
        assert fetched[-1].end <= offset + MIB + AHEAD
    window.observe(64 * MIB, 65 * MIB)
    assert window.ahead([Range(66 * MIB, 67 * MIB + ENOUGH)]) == []
    window.observe(65 * MIB, 66 * MIB)
    assert window.ahead(limit=0) == []


def test_a_run_that_is_given_up_is_told() -> None:
    window = ReadWindow(GIB)
    fetched: list[Range] = []
    for offset in range(0, 8 * MIB, MIB):
        _read(window, offset, MIB, fetched)
    lost = [window.observe(k * 100 * MIB, k * 100 * MIB + 1) for k in range(1, 6)]
    assert [part for part in lost if part] == [Range(8 * MIB, fetched[-1].end)]


def test_after_a_failure_the_window_begins_small() -> None:
    window = ReadWindow(GIB)
    fetched: list[Range] = []
    for offset in range(0, 32 * MIB, MIB):
        _read(window, offset, MIB, fetched)
    window.restart()
    window.observe(32 * MIB, 33 * MIB)
    assert window.ahead()[0] == Range(33 * MIB, 33 * MIB + FIRST)


@given(
    st.integers(1, 20 * MIB),
    st.lists(st.tuples(st.integers(0, 20 * MIB), st.integers(1, MIB)), max_size=30),
    st.integers(0, AHEAD),
    st.booleans(),
)
@example(
    4 * MIB + 1,
    [(1, 1), (256 * KIB + 3, 1), (512 * KIB + 5, 1), (768 * KIB + 7, 1), (4 * MIB, 1)],
    0,
    True,
)
def test_ranges_are_sane_whatever_is_read(
    size: int, reads: list[tuple[int, int]], limit: int, fits: bool
) -> None:
    window = ReadWindow(size, fits)
    for offset, length in reads:
        start, end = offset % size, min(offset % size + length, size)
        window.observe(start, end)
        wanted = window.demand(start, end)
        assert 0 <= wanted.start <= start < end <= wanted.end <= size
        assert wanted.length <= (5 if fits else 2) * MIB
        for part in window.ahead(limit=limit):
            assert 0 <= part.start < part.end <= size
            # Behind the reader only the rest of a region that has paid for itself.
            paid = fits and part.start // REGION == start // REGION
            assert part.start >= end or part.start >= wanted.start or paid
            assert part.length <= LARGEST


def test_what_is_on_its_way_for_one_place_does_not_hold_up_another() -> None:
    window = ReadWindow(GIB)
    fetched: list[Range] = []
    for offset in range(0, 16 * MIB, MIB):
        _read(window, offset, MIB, fetched)
    coming = [Range(16 * MIB, 18 * MIB + ENOUGH)]
    for offset in range(512 * MIB, 528 * MIB, MIB):
        window.observe(offset, offset + MIB)
        ahead = window.ahead(coming)
    assert ahead


def test_places_that_are_read_in_turn_share_what_may_be_on_its_way() -> None:
    window = ReadWindow(GIB)
    fetched: list[Range] = []
    for offset in range(0, 16 * MIB, MIB):
        _read(window, offset, MIB, fetched)
        _read(window, 512 * MIB + offset, MIB, fetched)
    planned = max(part.end for part in fetched if part.end < 512 * MIB)
    for offset in range(16 * MIB, planned, MIB):
        window.observe(offset, offset + MIB)
    assert window.ahead([Range(planned - ENOUGH // 2 - MIB, planned)]) == []
    assert window.ahead([Range(planned - ENOUGH // 2, planned)])


def test_a_run_does_not_go_on_into_what_another_has_read() -> None:
    """Several threads read one file, each a part."""
    window = ReadWindow(64 * MIB)
    fetched: list[Range] = []
    for step in range(0, 16 * MIB, MIB):
        for part in range(0, 64 * MIB, 16 * MIB):
            _read(window, part + step, MIB, fetched)
    assert sum(part.length for part in fetched) == 64 * MIB


def test_the_first_range_ahead_is_as_long_as_what_is_read_at_a_time() -> None:
    fetched = _fetched_for([0, MIB], MIB)
    assert fetched[-1] == Range(2 * MIB, 4 * MIB)


def test_a_random_reader_does_not_read_on() -> None:
    window = ReadWindow(GIB)
    for start in (5 * MIB, 900 * MIB, 2 * MIB, 300 * MIB):
        window.observe(start, start + 4 * KIB)
        assert not window.forward

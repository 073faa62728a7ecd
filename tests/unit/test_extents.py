"""Ranges: the set against a set of integers, and the layout of dirty over base over zeros."""

from hypothesis import example, given
from hypothesis import strategies as st

from filesfs.write.extents import RangeSet, Segment, Source, layout
from filesfs.write.plan import COPY_AT_LEAST, Step, plan

_ranges = st.tuples(st.integers(0, 60), st.integers(0, 60))
_steps = st.lists(st.one_of(_ranges, st.integers(0, 60)), max_size=25)


def _apply(steps: list[tuple[int, int] | int]) -> tuple[RangeSet, set[int]]:
    ranges, model = RangeSet(), set[int]()
    for step in steps:
        if isinstance(step, int):
            ranges.cut(step)
            model = {byte for byte in model if byte < step}
        else:
            ranges.add(*step)
            model |= set(range(*step))
    return ranges, model


@given(_steps)
def test_a_range_set_is_a_set_of_bytes_in_the_fewest_ranges(
    steps: list[tuple[int, int] | int],
) -> None:
    ranges, model = _apply(steps)
    assert {byte for start, end in ranges for byte in range(start, end)} == model
    flat = [bound for pair in ranges for bound in pair]
    assert flat == sorted(set(flat))  # neither empty nor touching
    assert ranges.total == len(model)


@given(_steps, _ranges)
def test_what_lies_within_is_clipped(
    steps: list[tuple[int, int] | int], span: tuple[int, int]
) -> None:
    ranges, model = _apply(steps)
    found = {byte for start, end in ranges.within(*span) for byte in range(start, end)}
    assert found == model & set(range(*span))


@given(_steps, st.integers(0, 60))
def test_a_run_ends_at_the_first_byte_that_is_missing(
    steps: list[tuple[int, int] | int], start: int
) -> None:
    ranges, model = _apply(steps)
    end = start
    while end in model:
        end += 1
    assert ranges.run_from(start) == end


@example(steps=[(0, 2)], base_end=0, start=1, end=1)
@given(_steps, st.integers(0, 60), st.integers(0, 70), st.integers(0, 70))
def test_the_layout_says_for_each_byte_where_it_is(
    steps: list[tuple[int, int] | int], base_end: int, start: int, end: int
) -> None:
    ranges, model = _apply(steps)
    start, end = sorted((start, end))
    position = start
    for part in layout(ranges, base_end, start, end):
        assert part.start == position
        assert part.length > 0
        position = part.end
        for byte in range(part.start, part.end):
            clean = Source.BASE if byte < base_end else Source.ZERO
            assert part.source is (Source.DIRTY if byte in model else clean)
    assert position == end


def test_a_file_cut_and_grown_shows_zeros_beyond_the_cut() -> None:
    assert list(layout(RangeSet([(2, 4)]), 6, 0, 10)) == [
        Segment(Source.BASE, 0, 2),
        Segment(Source.DIRTY, 2, 4),
        Segment(Source.BASE, 4, 6),
        Segment(Source.ZERO, 6, 10),
    ]


def test_a_plan_sends_small_gaps_along_and_copies_large_ones() -> None:
    large = COPY_AT_LEAST
    segments = [
        Segment(Source.DIRTY, 0, 10),
        Segment(Source.BASE, 10, 20),
        Segment(Source.ZERO, 20, 30),
        Segment(Source.BASE, 30, 30 + large),
        Segment(Source.DIRTY, 30 + large, 55 + large),
    ]
    assert plan(segments, 20, copy=True) == [
        Step(0, 20),
        Step(20, 30),
        Step(30, 30 + large, copy=True),
        Step(30 + large, 50 + large),
        Step(50 + large, 55 + large),
    ]
    assert not any(step.copy for step in plan(segments, 1 << 20, copy=False))

"""Which files are fetched before they are opened: who walks gets windows that grow, nobody else."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesfs.read import ahead
from filesfs.read.ahead import BATCH_BYTES, MOST, UNREAD_BYTES, Ahead, Fetch, Order

KIB = 1024


class Folder:
    """A directory with files of these sizes; what was read or fetched is not to be fetched."""

    def __init__(self, sizes: dict[bytes, int | None]) -> None:
        self.sizes = dict(sizes)
        self.held: set[bytes] = set()
        self.asked = 0  # names
        names = list(sizes)
        self.orders = {
            Order.LISTING: names,
            Order.NATURAL: sorted(names, key=lambda name: (len(name), name)),
            Order.INODE: random.Random(5).sample(names, len(names)),
        }

    def names(self, order: Order) -> Sequence[bytes]:
        return self.orders[order]

    def size(self, name: bytes) -> int | None:
        self.asked += 1
        return None if name in self.held else self.sizes.get(name)


def folder(count: int, size: int = 4 * KIB) -> Folder:
    return Folder({b"f%05d" % number: size for number in range(count)})


class Reader:
    """Opens files; what is to be fetched comes after `late` more opens."""

    def __init__(self, late: int = 0) -> None:
        self.dropped: list[tuple[str, bytes]] = []
        self.policy: Ahead[str] = Ahead(self.drop)
        self.folders: dict[str, Folder] = {}
        self.late = late
        self.coming: list[tuple[int, Fetch[str]]] = []
        self.opens = 0
        self.requests = 0  # one for each file that was not there, and one for each fetch
        self.batches: list[int] = []

    def drop(self, key: str, name: bytes) -> None:
        self.dropped.append((key, name))
        self.folders[key].held.discard(name)

    def open(self, key: str, names: Iterable[bytes], *, here: Folder) -> None:
        self.folders[key] = here
        for name in names:
            self.opens += 1
            fetch = self.policy.opened(key, name, here)
            if name not in here.held:
                self.requests += 1
                here.held.add(name)
            if fetch is not None:
                self.batches.append(len(fetch.names))
                self.requests += 1
                self.coming.append((self.opens + self.late, fetch))
            self.arrive()

    def arrive(self) -> None:
        for due, fetch in list(self.coming):
            if due <= self.opens:
                self.coming.remove((due, fetch))
                here = self.folders[fetch.key]
                sizes = {name: here.sizes[name] or 0 for name in fetch.names}
                here.held.update(sizes)
                self.policy.came(fetch, sizes)


@pytest.mark.parametrize("order", Order)
def test_a_walk_in_an_order_has_windows_that_double(order: Order) -> None:
    here, reader = folder(1000), Reader()
    reader.open("d", here.names(order), here=here)
    assert reader.batches[:6] == [8, 16, 32, 64, 128, 256]
    assert sum(reader.batches) == 997
    assert reader.requests == 3 + len(reader.batches)
    assert reader.policy.unread_bytes == 0
    assert reader.dropped == []


def test_numbers_in_names_are_told_from_an_order_of_bytes() -> None:
    """f21, f22 and f23 are in both, with ten others between each two of them."""
    names = sorted(b"f%d" % number for number in range(300))
    here, reader = Folder(dict.fromkeys(names, 4 * KIB)), Reader()
    reader.open("d", [b"f%d" % number for number in range(300)], here=here)
    assert reader.dropped == []
    assert reader.requests == 3 + len(reader.batches) < 12


def test_the_next_window_is_asked_for_while_half_of_the_last_is_unread() -> None:
    here, reader = folder(1000), Reader(late=4)
    reader.open("d", list(here.sizes), here=here)
    assert reader.requests < 3 + 4 + 4 + 10  # its own, those before the first came, and windows


def test_a_window_has_no_more_than_fits_into_one_answer() -> None:
    here, reader = folder(200, 100 * KIB), Reader()
    reader.open("d", list(here.sizes), here=here)
    assert max(reader.batches) == BATCH_BYTES // (100 * KIB)
    assert reader.requests < 30


def test_names_in_between_that_cannot_be_fetched_do_no_harm() -> None:
    sizes = {b"f%05d" % number: None if number % 3 else 4 * KIB for number in range(900)}
    here, reader = Folder(sizes), Reader()
    reader.open("d", list(sizes), here=here)
    assert sum(reader.batches) == 297


def test_nobody_looks_ahead_for_whom_opens_here_and_there() -> None:
    here, reader = folder(5000), Reader()
    reader.open("d", random.Random(1).sample(list(here.sizes), 200), here=here)
    assert reader.batches == []


def test_a_second_open_of_the_same_files_tells_nothing() -> None:
    here, reader = folder(3), Reader()
    reader.open("d", [*here.sizes] * 5, here=here)
    assert reader.batches == []
    assert here.asked < 100


def test_all_of_a_small_directory_in_any_order() -> None:
    here, reader = folder(60), Reader()
    reader.open("d", random.Random(1).sample(list(here.sizes), 60), here=here)
    assert reader.batches == [54]
    assert reader.requests == 7
    for seed in range(20):  # some look as if they were in order
        here, reader = folder(60), Reader()
        reader.open("d", random.Random(seed).sample(list(here.sizes), 60), here=here)
        assert reader.requests <= 40
    here, reader = folder(60, 100 * KIB), Reader()  # which is more than is small
    reader.open("d", random.Random(1).sample(list(here.sizes), 20), here=here)
    assert reader.batches == []


def test_a_few_files_of_many_are_not_all_of_a_directory() -> None:
    here, reader = folder(1000, 10), Reader()
    reader.open("d", random.Random(1).sample(list(here.sizes), 12), here=here)
    assert reader.batches == []


def test_who_does_not_open_what_was_fetched_gets_no_more() -> None:
    here, reader = folder(5000), Reader()
    names = list(here.sizes)
    reader.open("d", names[:3], here=here)
    assert reader.batches == [8]
    others = random.Random(2).sample(names[20:], 300)
    reader.open("d", others[:7], here=here)
    assert reader.policy.unread_bytes == 8 * 4 * KIB
    reader.open("d", others[7:8], here=here)
    assert reader.policy.unread_bytes == 0
    assert reader.dropped == [("d", name) for name in names[3:11]]
    reader.open("d", others[8:], here=here)
    assert len(reader.batches) <= 2


def test_after_a_vain_window_a_walk_has_to_be_longer() -> None:
    here, reader = folder(5000), Reader()
    names = list(here.sizes)
    reader.open("d", names[:3], here=here)
    reader.open("d", random.Random(2).sample(names[2000:], 8), here=here)
    reader.open("d", names[100:111], here=here)
    assert reader.batches == [8]
    elsewhere = folder(5000)
    reader.open("e", names[:11], here=elsewhere)
    assert reader.batches == [8]
    reader.open("d", names[111:125], here=here)
    assert reader.batches == [8, 8, 16]
    reader.open("f", names[:3], here=folder(5000))  # it has paid
    assert reader.batches == [8, 8, 16, 8]


def test_a_tree_of_small_directories_is_begun_by_the_first_file() -> None:
    reader = Reader()
    for number in range(20):
        here = folder(10)
        reader.open(f"d{number}", list(here.sizes), here=here)
    assert reader.requests == 2 * (3 + 1) + 18 * 2


def test_a_walk_that_jumps_goes_on_where_it_is() -> None:
    here, reader = folder(3000), Reader()
    names = list(here.sizes)
    reader.open("d", names[:500], here=here)
    before = reader.requests
    reader.open("d", names[2000:], here=here)
    assert reader.requests - before < 15


def test_a_reader_that_overtakes_is_left_behind_no_further() -> None:
    """Windows that come too late are of no use, and do no harm."""
    here, reader = folder(3000), Reader(late=60)
    reader.open("d", list(here.sizes), here=here)
    assert reader.requests < 1500
    assert reader.policy.unread_bytes == 0


def test_windows_as_long_as_they_may_be_that_come_too_late_are_given_up() -> None:
    """On a slow line each file would come twice, by its own open and in a window."""
    here, reader = folder(1000, 128 * KIB), Reader(late=6)
    reader.open("d", list(here.sizes), here=here)
    assert sum(reader.batches) < 50
    assert reader.policy.unread_bytes == 0


def test_what_cannot_be_fetched_is_given_up() -> None:
    here = folder(100)
    policy: Ahead[str] = Ahead(lambda key, name: None)
    fetches = [policy.opened("d", name, here) for name in list(here.sizes)[:12]]
    fetch = fetches[2]
    assert fetch is not None
    assert [each for each in fetches if each] == [fetch]
    policy.failed(fetch)
    assert policy.unread_bytes == 0
    assert policy.opened("d", b"f00012", here) is None


def test_what_comes_after_all_is_dropped() -> None:
    here, reader = folder(100), Reader(late=1000)
    reader.open("d", list(here.sizes)[:3], here=here)
    ((_, fetch),) = reader.coming
    reader.policy.forget("d")
    reader.policy.came(fetch, {b"f00003": 7})
    assert reader.dropped == [("d", b"f00003")]
    assert reader.policy.unread_bytes == 0


def test_walks_that_ended_early_give_way() -> None:
    reader = Reader()
    for number in range(30):  # each leaves half a window unread
        here = folder(600, 8 * KIB)
        reader.open(f"d{number}", list(here.sizes)[:190], here=here)
        assert reader.policy.unread_bytes <= UNREAD_BYTES
    assert reader.requests < 30 * 25
    assert {key for key, _ in reader.dropped} >= {f"d{number}" for number in range(20)}


def test_an_open_costs_the_same_in_a_large_directory() -> None:
    here, reader = folder(100_000, 100), Reader()
    reader.open("d", list(here.sizes)[:50_000], here=here)
    assert here.asked < 3 * 50_000


def test_opens_here_and_there_do_not_have_all_of_a_directory_looked_at() -> None:
    """Neither where all else in it would be too much, nor where it is too many names."""
    for count, size in ((2000, 4 * KIB), (30_000, 0)):
        here, reader = folder(count, size), Reader()
        opens = random.Random(1).sample(list(here.sizes), count // 2)
        reader.open("d", opens, here=here)
        assert here.asked < 4 * len(opens)


class Searched(list[bytes]):
    """Names that count how often one of them is looked for among all."""

    times = 0

    def index(self, *args: Any) -> int:
        self.times += 1
        return super().index(*args)


def test_behind_the_end_of_a_walk_not_each_open_is_looked_for_in_its_order() -> None:
    """A file that it left out is what keeps it from being over."""
    here, reader = folder(1000), Reader()
    names = list(here.sizes)
    here.orders[Order.LISTING] = order = Searched(names)
    reader.open("d", names[:996] + names[997:], here=here)
    for name in names[:500]:
        here.held.discard(name)
    order.times = 0
    reader.open("d", random.Random(3).sample(names[:500], 300), here=here)
    assert order.times < 10


def test_who_jumps_after_a_few_files_again_and_again_gets_no_more() -> None:
    here, reader = folder(5000), Reader()
    for start in range(0, 5000, 40):
        reader.open("d", list(here.sizes)[start : start + 3], here=here)
    assert len(reader.batches) <= 4


OPENS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(1, 60), st.booleans()),
    max_size=40,
)


@given(OPENS, st.integers(0, 40), st.sampled_from([0, 500, 4 * KIB, 60 * KIB, 128 * KIB]))
def test_bounds_hold_whatever_is_opened(
    opens: list[tuple[int, int, int, bool]], late: int, size: int
) -> None:
    """Runs of opens in three directories, in order or backwards."""
    reader = Reader(late)
    here = {key: folder(440, size) for key in "abc"}
    for which, start, count, backwards in opens:
        key = "abc"[which]
        names = list(here[key].sizes)[start : start + count]
        fetched = set(here[key].held)
        reader.open(key, reversed(names) if backwards else names, here=here[key])
        assert here[key].held >= fetched - {name for _, name in reader.dropped}
        assert 0 <= reader.policy.unread_bytes <= UNREAD_BYTES
        assert all(0 < batch <= MOST for batch in reader.batches)
        assert all(batch * size <= BATCH_BYTES for batch in reader.batches)
    assert len(reader.policy) <= 3
    for key in "abc":
        reader.policy.forget(key)
    assert reader.policy.unread_bytes == 0


def test_no_more_than_some_directories_are_remembered() -> None:
    reader = Reader()
    for number in range(1000):
        here = folder(30)
        reader.open(f"d{number}", list(here.sizes)[:1], here=here)
    assert len(reader.policy) == ahead._DIRECTORIES

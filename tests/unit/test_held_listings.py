"""What came along with other listings is bounded, goes with its time, and is asked for as it is
used.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from filesfs.domain import Entry, Inode, Kind, Location, ResourceId
from filesfs.packed import Listing, pack
from filesfs.state import held as module
from filesfs.state.held import Ahead, HeldListings, Stamp
from filesfs.state.walking import Walking

FILE = pack(Entry(Location("b", "f"), Kind.FILE, 0, "text/plain", 0))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(clock: Clock) -> HeldListings:
    return HeldListings(clock)


def came(key: str, clock: Clock, entries: int = 10, resource: str = "") -> Ahead:
    at_rest = {str(number): FILE for number in range(entries)}
    listing = Listing(Location("b", key), at_rest, "e-1", ResourceId(resource or f"r-{key}"))
    return Ahead(listing, Stamp(1, clock.now))


def keep(held: HeldListings, *all_of_them: Ahead) -> None:
    with held.flight() as flight:
        for ahead in all_of_them:
            held.keep(flight, ahead)


def test_it_is_there_once_for_this_directory_at_this_place(
    held: HeldListings, clock: Clock
) -> None:
    ahead = came("d", clock)
    keep(held, ahead)
    assert held
    assert held.take(ResourceId("r-d"), Location("b", "e")) is None
    assert held.take(ResourceId("r-e"), Location("b", "d")) is None
    assert held.take(ResourceId("r-d"), Location("b", "d")) is ahead
    assert held.take(ResourceId("r-d"), Location("b", "d")) is None
    assert not held
    assert held.entries == 0
    assert held.told() == (20, 0)


def test_the_oldest_make_room(held: HeldListings, clock: Clock) -> None:
    keep(held, *(came(f"d{number}", clock, 490) for number in range(50)))
    assert held.entries == 10_000
    assert held.take(ResourceId("r-d29"), Location("b", "d29")) is None
    assert held.take(ResourceId("r-d30"), Location("b", "d30")) is not None
    assert held.told() == (500, 30 * 500)


def test_one_that_is_too_large_for_all_of_it_is_not_kept(held: HeldListings, clock: Clock) -> None:
    keep(held, came("d", clock, 10_000))
    assert not held
    assert held.entries == 0


def test_they_go_after_a_while(held: HeldListings, clock: Clock) -> None:
    keep(held, came("d", clock))
    clock.now = 20.0
    keep(held, came("e", clock))
    clock.now = 31.0
    held.expire()
    assert held.entries == 20
    assert held.take(ResourceId("r-d"), Location("b", "d")) is None
    assert held.take(ResourceId("r-e"), Location("b", "e")) is not None


def test_two_flights_hear_each_for_itself(held: HeldListings, clock: Clock) -> None:
    """Also after one of them has ended that had heard the same."""
    with held.flight() as one:
        with held.flight():
            pass
        held.changed(ResourceId("r-d"))
        held.heard(Location("b", "e/f"))
        held.moved(Location("b", "g"))
        for key in ("d", "e", "g", "g/h", "e/f", "", "h", "gg"):
            held.keep(one, came(key, clock))
    kept = [key for key in ("d", "e", "g", "g/h", "e/f", "", "h", "gg") if _has(held, key)]
    assert kept == ["h", "gg"]


def _has(held: HeldListings, key: str) -> bool:
    return held.take(ResourceId(f"r-{key}"), Location("b", key)) is not None


def _keys() -> Iterator[str]:
    yield from ("a", "a/b", "a/b/c", "b", "b/a")


@pytest.mark.parametrize("seed", range(20))
def test_places_and_entries_are_those_of_what_is_held(
    held: HeldListings, clock: Clock, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_ENTRIES", 60)
    chance, keys = random.Random(seed), list(_keys())
    for _ in range(300):
        clock.now += chance.choice((0.0, 1.0, 9.0))
        place = Location("b", chance.choice(keys))
        resource = ResourceId(f"r{chance.randrange(4)}")
        match chance.randrange(6):
            case 0 | 1:
                keep(held, came(place.key, clock, chance.randrange(20), resource))
            case 2:
                held.take(resource, place)
            case 3:
                held.heard(place)
            case 4:
                held.moved(place)
            case _:
                held.changed(resource)
                held.expire()
        listings = [each.listing for each in held._held.values()]
        assert held._places == {each.location: each.resource_id for each in listings}
        assert held.entries == sum(each.weight for each in held._held.values()) <= 60


# -- how much is asked for ------------------------------------------------------------------------
def test_the_second_step_is_a_walks_in_breadth_and_in_depth() -> None:
    wide, deep = Walking(), Walking()
    assert [wide.step(Inode(child), Inode(1)) for child in (2, 3, 4)] == [False, True, True]
    assert wide.step(Inode(5), Inode(4))
    assert [deep.step(Inode(n + 1), Inode(n)) for n in (1, 2, 3)] == [False, True, True]
    many = Walking()
    assert not any(many.step(Inode(2 * n), Inode(2 * n + 1)) for n in range(1, 5000))
    assert len(many._steps) <= 1000


def test_it_doubles_while_it_is_used() -> None:
    walking, sizes = Walking(), []
    used = held = 0
    for _ in range(5):
        sizes.append(walking.size(used=used, lost=0, held=held))
        used = sizes[-1]
    assert sizes == [250, 500, 1000, 1000, 1000]


def test_it_stops_where_it_is_of_no_use_and_tries_again_much_later() -> None:
    walking = Walking()
    sizes = [walking.size(used=0, lost=0, held=0)]
    for _ in range(40):
        lost = sizes[-1]
        sizes.append(walking.size(used=0, lost=lost, held=0))
    assert sizes == [250, 62, *[0] * 16, 250, 62, *[0] * 16, 250, 62, 0, 0, 0]


def test_several_may_walk_but_not_much_lies_unused() -> None:
    walking = Walking()
    assert [walking.size(used=0, lost=0, held=held) for held in (0, 1000, 1001)] == [250, 250, 0]

"""Leases: what ends them, and that what was on its way when somebody changed something is none."""

from __future__ import annotations

from filesfs.domain import Change, Entry, ETag, Kind, Lease, Location, ResourceId
from filesfs.state.leases import MOST, Leases
from filesfs.wire import Operation

FILE, OTHER = Location("b", "d/f"), Location("b", "d/g")


class Clock:
    """Stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def entry_of(location: Location = FILE, etag: str = "1", nlink: int = 1) -> Entry:
    resource = ResourceId(f"of {location}")
    return Entry(
        location, Kind.FILE, 1, "text/plain", 0, etag=ETag(etag), nlink=nlink, resource_id=resource
    )


def lease(clock: Clock, term: str = "t", span: float = 2.0) -> Lease:
    return Lease(term, clock.now + span, span)


def change(
    operation: Operation, *locations: Location, resource: str = "another", tree: bool = False
) -> Change:
    return Change(operation, locations, ResourceId(resource), None, False, "e-9", tree)


def leased(*entries: Entry, clock: Clock | None = None) -> tuple[Leases, Clock]:
    clock = clock or Clock()
    leases = Leases(clock)
    leases.feed_connected()
    for each in entries or (entry_of(),):
        leases.grant(lease(clock), leases.mark, each)
    return leases, clock


def test_a_lease_is_of_one_version_at_one_place_until_it_runs_out() -> None:
    leases, clock = leased()
    assert leases.holds(FILE, entry_of())
    assert not leases.holds(FILE, entry_of(etag="2"))
    assert not leases.holds(OTHER, entry_of())
    clock.now += 1.9
    assert leases.holds(FILE, entry_of())
    clock.now += 0.1
    assert not leases.holds(FILE, entry_of())
    assert not leases


def test_what_names_the_file_ends_it_and_nothing_else_does() -> None:
    for told in (
        change(Operation.COMMIT, FILE),
        change(Operation.MOVE, OTHER, FILE),
        change(Operation.ATTRIBUTES, OTHER, resource=f"of {FILE}"),
        change(Operation.MOVE, Location("b", "d"), Location("b", "e"), tree=True),
        change(Operation.BUCKET, Location("b"), tree=True),
    ):
        leases, _ = leased()
        leases.heard(told)
        assert not leases.holds(FILE, entry_of()), told
    leases, _ = leased()
    leases.heard(change(Operation.COMMIT, OTHER))
    leases.heard(change(Operation.COMMIT, Location("b", "d/sub"), tree=True))  # mkdir
    assert leases.holds(FILE, entry_of())


def test_what_we_move_and_move_back_is_not_leased_any_more() -> None:
    for places, tree in (((FILE, OTHER), False), ((Location("b", "d"), Location("b", "e")), True)):
        leases, clock = leased()
        mark = leases.mark
        leases.moved(*places, tree=tree)
        leases.moved(*places[::-1], tree=tree)
        assert not leases.holds(FILE, entry_of())
        leases.grant(lease(clock), mark, entry_of())  # it was asked for before that
        assert not leases.holds(FILE, entry_of())
        leases.grant(lease(clock), leases.mark, entry_of())
        assert leases.holds(FILE, entry_of())


def test_a_move_of_ours_ends_no_other_lease() -> None:
    leases, _ = leased()
    leases.moved(OTHER, Location("b", "new"), tree=False)
    assert leases.holds(FILE, entry_of())


def test_what_is_heard_before_the_answer_comes_is_no_lease() -> None:
    leases, clock = leased()
    for ends in (
        lambda: leases.heard(change(Operation.COMMIT, OTHER)),
        leases.clear,
        lambda: (leases.feed_lost(), leases.feed_connected()),
    ):
        mark = leases.mark
        ends()
        leases.grant(lease(clock), mark, entry_of())
        leases.grant(lease(clock), mark, entry_of(OTHER))
        assert not leases.holds(OTHER, entry_of(OTHER))


def test_what_is_heard_of_other_files_is_no_harm_to_what_is_on_its_way() -> None:
    leases, clock = leased(entry_of(OTHER))
    mark = leases.mark
    leases.heard(change(Operation.COMMIT, OTHER, resource=f"of {OTHER}"))
    leases.heard(change(Operation.COMMIT, Location("b", "d/h")))
    leases.grant(lease(clock, "later"), mark, entry_of())  # of another term, at that
    leases.grant(lease(clock, "later"), mark, entry_of(OTHER))
    assert leases.covers(FILE, "1")
    assert not leases.covers(OTHER, "1")
    assert not leases.covers(FILE, "2")
    mark = leases.mark
    leases.heard(change(Operation.ATTRIBUTES, OTHER, resource=f"of {FILE}"))
    leases.grant(lease(clock, "later"), mark, entry_of())
    assert not leases.covers(FILE, "1")


def test_after_very_much_was_heard_nobody_knows() -> None:
    leases, clock = leased(entry_of(OTHER))
    mark = leases.mark
    leases.heard(change(Operation.COMMIT, FILE))
    for number in range(1000):
        leases.heard(change(Operation.COMMIT, Location("b", f"{number}")))
    leases.grant(lease(clock), mark, entry_of())
    assert not leases.holds(FILE, entry_of())
    leases.grant(lease(clock), leases.mark, entry_of())
    assert leases.holds(FILE, entry_of())


def test_without_the_feed_there_is_none() -> None:
    leases, clock = leased()
    leases.feed_lost()
    assert not leases.holds(FILE, entry_of())
    leases.grant(lease(clock), leases.mark, entry_of())
    assert not leases.holds(FILE, entry_of())


def test_all_of_a_term_last_as_long_as_the_last_and_end_with_it() -> None:
    leases, clock = leased()
    clock.now += 1.5
    assert leases.is_half_over
    leases.grant(lease(clock), leases.mark, entry_of(OTHER))
    clock.now += 1.5
    assert leases.holds(FILE, entry_of())
    leases.extend(lease(clock))
    assert not leases.is_half_over
    clock.now += 1.9
    assert leases.holds(FILE, entry_of())
    leases.extend(lease(clock, "other"))
    assert not leases.holds(FILE, entry_of())
    assert leases.term == "other"


def test_an_older_extension_takes_no_time_away() -> None:
    leases, clock = leased()
    late = lease(clock)
    clock.now += 1
    leases.extend(lease(clock))
    leases.extend(late)
    clock.now += 1.9
    assert leases.holds(FILE, entry_of())


def test_files_with_other_names_and_such_that_cannot_be_told_apart_have_none() -> None:
    leases, clock = leased(entry_of(nlink=2))
    assert not leases
    plain = Entry(FILE, Kind.FILE, 1, "text/plain", 0)
    leases.grant(lease(clock), leases.mark, plain)
    leases.grant(None, leases.mark, entry_of())
    assert not leases


def test_they_are_bounded() -> None:
    leases, clock = leased()
    for number in range(MOST + 5):
        each = entry_of(Location("b", f"{number}"))
        leases.grant(lease(clock), leases.mark, each)
    assert len(leases) == MOST

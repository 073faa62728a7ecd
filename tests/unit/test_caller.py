"""Who asks: what a change by somebody leaves of setuid and setgid, as Linux decides it."""

from __future__ import annotations

import pytest

from filesfs.filesystem import Caller

GROUP = 77


def _nobodys_groups() -> tuple[int, ...]:
    raise AssertionError("asked for groups that do not count")


@pytest.mark.parametrize(
    ("mode", "member", "stranger"),
    [
        (0o0644, 0o0644, 0o0644),
        (0o4755, 0o0755, 0o0755),
        (0o2755, 0o0755, 0o0755),
        (0o2745, 0o2745, 0o0745),
        (0o6766, 0o2766, 0o0766),
        (0o7777, 0o1777, 0o1777),
    ],
)
def test_setgid_without_execution_stays_for_members(mode: int, member: int, stranger: int) -> None:
    for caller in (Caller(0, 1), Caller(5, GROUP), Caller(5, 1, groups=lambda: [8, GROUP])):
        assert caller.without_setid(mode, GROUP) == member
    assert Caller(5, 1, groups=lambda: [8]).without_setid(mode, GROUP) == stranger
    assert Caller(5, 1).without_setid(mode, GROUP) == stranger


def test_groups_are_asked_for_only_where_they_count() -> None:
    for caller in (Caller(0, 1, groups=_nobodys_groups), Caller(5, GROUP, groups=_nobodys_groups)):
        assert caller.without_setid(0o2745, GROUP) == 0o2745
    caller = Caller(5, 1, groups=_nobodys_groups)
    for mode in (0o0644, 0o4755, 0o2755):
        caller.without_setid(mode, GROUP)

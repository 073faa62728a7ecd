"""Access control lists as bytes: what chmod and creation make of them."""

from __future__ import annotations

import struct

import pytest

from filesfs.state import acl

OWNER, USER, GROUP, MASK, OTHER = 1, 2, 4, 16, 32


def listed(*entries: tuple[int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry, 7) for entry in entries)


PLAIN = listed((OWNER, 6), (GROUP, 4), (OTHER, 0))
MASKED = listed((OWNER, 7), (USER, 6), (GROUP, 7), (MASK, 5), (OTHER, 1))


def test_a_list_that_a_mode_can_say_is_not_kept() -> None:
    assert acl.applied(PLAIN, 0o4777) == (0o4640, None)


def test_the_mask_is_the_groups_bits() -> None:
    assert acl.applied(MASKED, 0o600) == (0o751, MASKED)


def test_chmod_leaves_named_users_and_the_group_alone() -> None:
    expected = listed((OWNER, 6), (USER, 6), (GROUP, 7), (MASK, 4), (OTHER, 2))
    assert acl.after_chmod(MASKED, 0o642) == expected


def test_without_a_mask_chmod_changes_the_group() -> None:
    assert acl.after_chmod(PLAIN, 0o777) == listed((OWNER, 7), (GROUP, 7), (OTHER, 7))


def test_a_child_gets_what_both_allow() -> None:
    expected = listed((OWNER, 6), (USER, 6), (GROUP, 7), (MASK, 4), (OTHER, 0))
    assert acl.inherited(MASKED, 0o1660) == (0o1640, expected)
    assert acl.inherited(PLAIN, 0o777) == (0o640, None)


@pytest.mark.parametrize(
    "value", [b"", b"\2\0\0\0", b"\1\0\0\0" + MASKED[4:], MASKED[:-1], listed((OWNER, 7))]
)
def test_anything_else_is_refused(value: bytes) -> None:
    for call in (acl.applied, acl.after_chmod, acl.inherited):
        with pytest.raises(ValueError, match="access control list"):
            call(value, 0o777)


def test_lists_are_hidden_where_nobody_enforces_them() -> None:
    xattrs = {acl.ACCESS: MASKED, acl.DEFAULT: MASKED, "user.x": b""}
    assert acl.shown(xattrs, enforced=True) == xattrs
    assert acl.shown(xattrs, enforced=False) == {"user.x": b""}

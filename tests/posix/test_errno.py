"""Every errno that the manual names for a file system, to root and to an ordinary user.

One module for one tree: calls that fail change nothing, which the tree's fixture checks at its end.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.posix.errno_table import TABLE
from tests.posix.tree import describe, plant
from tests.posix.users import NOBODY, User


@pytest.fixture(scope="module")
def tree(module_place: Path) -> Iterator[Path]:
    plant(module_place)
    before = describe(module_place)
    yield module_place
    assert describe(module_place) == before


@pytest.fixture(scope="module")
def root(tree: Path) -> Iterator[User]:
    user = User(tree, 0)
    yield user
    user.close()


@pytest.fixture(scope="module")
def user(tree: Path) -> Iterator[User]:
    user = User(tree, NOBODY)
    yield user
    user.close()


def _errno(who: User, call: Callable[[], object]) -> str:
    try:
        who.run(call)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "success"


def _name(code: int) -> str:
    return errno.errorcode[code] if code else "success"


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[1] is not None])
def test_root(root: User, name: str) -> None:
    call, expected, _ = TABLE[name]
    assert expected is not None
    assert _errno(root, call) == _name(expected)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[2] is not None])
def test_ordinary_user(user: User, name: str) -> None:
    call, _, expected = TABLE[name]
    assert expected is not None
    assert _errno(user, call) == _name(expected)

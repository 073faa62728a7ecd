"""Sticky directories: who may rename, replace and remove what there, beside tmpfs.

In a sticky directory that is the owner of the directory, the owner of the file, and root. All is
tried by one user, with everything owned by him, by root and by another user in turn.
"""

from __future__ import annotations

import itertools
import os

import pytest

from tests.posix.beside import Twins
from tests.posix.calls import EXCHANGE, renameat2
from tests.posix.kinds import KINDS, NO_DIRECTORIES, make, remove
from tests.posix.users import NOBODY, SOMEBODY

ME = NOBODY
OWNERS = (ME, 0, SOMEBODY)
# For the directory and what is in it, where much else is tried: all but both others' at once.
PAIRS = [pair for pair in itertools.product(OWNERS, OWNERS) if ME in pair or len({*pair}) == 1]
NAMES = ("from", "from/f", "to", "to/f")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_other_kind = pytest.mark.parametrize("kind", NO_DIRECTORIES)


def _directory(name: str, owner: int, mode: int = 0o1777) -> None:
    """It is there, with this owner and mode, and has no f."""
    if not os.path.isdir(name):
        os.mkdir(name)
    os.chmod(name, mode)
    os.chown(name, owner, owner)
    remove(f"{name}/f")


def _may(directory: int, file: int) -> bool:
    return ME in (directory, file)


@each_kind
@pytest.mark.parametrize("directory", OWNERS)
def test_removal(twins: Twins, kind: str, directory: int) -> None:
    for owner in OWNERS:
        twins.only("ok", _directory, "d", directory)
        twins.only("ok", make, kind, "d/f", owner)
        call = os.rmdir if kind == "directory" else os.unlink
        if not _may(directory, owner):
            twins("EPERM", call, "d/f", who=ME)
        twins("ok", call, "d/f", who=ME if _may(directory, owner) else 0)


@each_kind
@pytest.mark.parametrize("directory", OWNERS)
def test_rename_within(twins: Twins, kind: str, directory: int) -> None:
    for owner in OWNERS:
        twins.only("ok", _directory, "d", directory)
        twins.only("ok", make, kind, "d/f", owner)
        answer = "ok" if _may(directory, owner) else "EPERM"
        twins(answer, os.rename, "d/f", "d/moved", who=ME)
        twins.only("ok", remove, "d/moved")


@each_other_kind
def test_rename_out_of(twins: Twins, kind: str) -> None:
    """Over nothing, and over each kind."""
    twins.only("ok", _directory, "to", ME, 0o755)
    for directory, owner in PAIRS:
        answer = "ok" if _may(directory, owner) else "EPERM"
        twins.only("ok", _directory, "from", directory)
        twins.only("ok", make, kind, "from/f", owner)
        for over in (None, *NO_DIRECTORIES):
            if over:
                twins.only("ok", make, over, "to/f", ME)
            twins.briefly(answer, os.rename, "from/f", "to/f", names=NAMES, who=ME)
            if answer == "ok":
                twins.briefly("ok", os.rename, "to/f", "from/f", names=NAMES, who=ME)
            twins.only("ok", remove, "to/f")


@each_other_kind
def test_rename_over_what_is_in(twins: Twins, kind: str) -> None:
    twins.only("ok", _directory, "from", ME, 0o755)
    twins.only("ok", make, kind, "from/f", ME)
    for directory, owner in PAIRS:
        answer = "ok" if _may(directory, owner) else "EPERM"
        twins.only("ok", _directory, "to", directory)
        for over in NO_DIRECTORIES:
            twins.only("ok", make, over, "to/f", owner)
            twins.briefly(answer, os.rename, "from/f", "to/f", names=NAMES, who=ME)
            if answer == "ok":
                twins.briefly("ok", os.rename, "to/f", "from/f", names=NAMES, who=ME)
            twins.only("ok", remove, "to/f")


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("source", OWNERS)
def test_rename_between(twins: Twins, kind: str, source: int) -> None:
    """Both sticky. A directory of another's does not change its parent: its .. would be written."""
    twins.only("ok", _directory, "from", source)
    for target in OWNERS:
        twins.only("ok", _directory, "to", target)
        for moved, over in itertools.product(OWNERS, (None, *OWNERS)):
            twins.only("ok", make, kind, "from/f", moved)
            if over is not None:
                twins.only("ok", make, kind, "to/f", over)
            answer = "ok"
            if not _may(source, moved) or not (over is None or _may(target, over)):
                answer = "EPERM"
            elif kind == "directory" and moved != ME:
                answer = "EACCES"
            twins.briefly(answer, os.rename, "from/f", "to/f", names=NAMES, who=ME)
            if over is not None and answer != "ok":
                exchange = ("from/f", "to/f", EXCHANGE)
                twins.briefly(answer, renameat2, *exchange, names=NAMES, who=ME)
            twins.only("ok", remove, "from/f")
            twins.only("ok", remove, "to/f")


@pytest.mark.parametrize("directory", OWNERS)
def test_a_directory_over_an_empty_one(twins: Twins, directory: int) -> None:
    """In the same sticky directory."""
    for moved, over in itertools.product(OWNERS, OWNERS):
        twins.only("ok", _directory, "d", directory)
        twins.only("ok", make, "directory", "d/f", moved)
        twins.only("ok", make, "directory", "d/g", over)
        allowed = _may(directory, moved) and _may(directory, over)
        twins("ok" if allowed else "EPERM", os.rename, "d/f", "d/g", who=ME)
        twins.only("ok", remove, "d/g")


@each_kind
def test_root_may_all(twins: Twins, kind: str) -> None:
    twins.only("ok", _directory, "from", ME)
    twins.only("ok", _directory, "to", SOMEBODY)
    twins.only("ok", make, kind, "from/f", SOMEBODY)
    twins.only("ok", make, kind, "to/f", ME)
    twins("ok", os.rename, "from/f", "to/f")
    twins("ok", os.rename, "to/f", "to/g")
    twins("ok", remove, "to/g")


def test_the_group_does_not_count(twins: Twins) -> None:
    """Nor does the mode of the file."""
    twins.only("ok", _directory, "d", 0)
    twins.only("ok", os.chown, "d", 0, ME)
    twins.only("ok", make, "file", "d/f", SOMEBODY)
    twins.only("ok", os.chown, "d/f", SOMEBODY, ME)
    twins.only("ok", os.chmod, "d/f", 0o777)
    twins("EPERM", os.unlink, "d/f", who=ME)
    twins("EPERM", os.rename, "d/f", "d/g", who=ME)
    twins("ok", os.chmod, "d", 0o777)
    twins("ok", os.rename, "d/f", "d/g", who=ME)
    twins("ok", os.unlink, "d/g", who=ME)

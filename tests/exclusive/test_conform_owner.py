"""tests/posix/test_conform_owner.py, on a mount with `-o exclusive`."""

import os

from tests.posix.beside import Twins
from tests.posix.test_conform_owner import *  # noqa: F403
from tests.posix.test_conform_owner import FOLLOWED, KINDS, LINKS, STRANGER


def test_chown_of_others_that_asks_for_nothing(twins: Twins) -> None:
    """The kernel stamps ctime by itself (SEMANTICS); all else stays."""
    before = [tuple((twins.roots[0] / name).lstat())[:9] for name in KINDS]
    twins.each(None, os.chown, FOLLOWED + LINKS, -1, -1, who=STRANGER, but=("ctime",))
    twins.each(None, os.lchown, KINDS, -1, -1, who=STRANGER, but=("ctime",))
    assert [tuple((twins.roots[0] / name).lstat())[:9] for name in KINDS] == before

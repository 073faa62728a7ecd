"""tests/posix/test_conform_owner.py, on a mount with `-o exclusive`."""

from tests.posix.test_conform_owner import *  # noqa: F403

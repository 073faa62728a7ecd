"""tests/posix/test_largest.py, on a mount with `-o exclusive`."""

from tests.posix.test_largest import *  # noqa: F403

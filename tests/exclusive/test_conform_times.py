"""tests/posix/test_conform_times.py, on a mount with `-o exclusive`."""

from tests.posix.test_conform_times import *  # noqa: F403

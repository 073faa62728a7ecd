"""tests/posix/test_times.py, on a mount with `-o exclusive`."""

from tests.posix.test_times import *  # noqa: F403

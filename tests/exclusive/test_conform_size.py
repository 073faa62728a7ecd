"""tests/posix/test_conform_size.py, on a mount with `-o exclusive`."""

from tests.posix.test_conform_size import *  # noqa: F403

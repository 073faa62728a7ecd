"""tests/posix/test_modes.py, on a mount with `-o exclusive`."""

from tests.posix.test_modes import *  # noqa: F403

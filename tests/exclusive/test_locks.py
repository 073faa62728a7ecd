"""tests/posix/test_locks.py, on a mount with `-o exclusive`."""

from tests.posix.test_locks import *  # noqa: F403

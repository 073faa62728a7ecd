"""tests/posix/test_descriptors.py, on a mount with `-o exclusive`."""

from tests.posix.test_descriptors import *  # noqa: F403

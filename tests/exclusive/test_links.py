"""tests/posix/test_links.py, on a mount with `-o exclusive`."""

from tests.posix.test_links import *  # noqa: F403

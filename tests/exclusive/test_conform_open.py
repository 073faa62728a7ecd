"""tests/posix/test_conform_open.py, on a mount with `-o exclusive`."""

from tests.posix.test_conform_open import *  # noqa: F403

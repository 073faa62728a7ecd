"""tests/model/test_exerciser.py, on a mount with `-o exclusive`."""

from tests.model.test_exerciser import *  # noqa: F403

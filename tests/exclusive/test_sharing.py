"""tests/mount/test_sharing.py, with `-o exclusive` for one of the two mounts."""

from tests.mount.test_sharing import *  # noqa: F403

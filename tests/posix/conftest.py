"""The mount's fixtures: these tests run on it, or where POSIX_TEST_DIR says."""

from tests.mount.conftest import bucket, ground, module_place, mount, place, server
from tests.posix.twins import beside, twins

__all__ = ["beside", "bucket", "ground", "module_place", "mount", "place", "server", "twins"]

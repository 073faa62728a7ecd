"""The mount's fixtures: these tests run on it, or where POSIX_TEST_DIR says."""

from tests.mount.conftest import bucket, ground, module_place, mount, place, server

__all__ = ["bucket", "ground", "module_place", "mount", "place", "server"]

"""The mount's fixtures: these tests run on it, or where POSIX_TEST_DIR says."""

from tests.mount.conftest import bucket, ground, module_place, mount, place, server
from tests.posix.beside import model, twins, twins_below

__all__ = [
    "bucket",
    "ground",
    "model",
    "module_place",
    "mount",
    "place",
    "server",
    "twins",
    "twins_below",
]

"""A mount with `-o exclusive`, where the kernel gathers writes and knows sizes and times itself.

The tests here are those of the default mount, run again; what differs is in test_differences.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import bucket, elsewhere, ground, module_place, place, server
from tests.mount.mounting import MountedFilesystem, mounted
from tests.posix.beside import model, twins, twins_below
from tests.server.running import RunningServer

__all__ = [
    "bucket",
    "elsewhere",
    "ground",
    "model",
    "module_place",
    "place",
    "server",
    "twins",
    "twins_below",
]

# Each has a test in test_differences.py that says what happens instead.
_OTHERWISE = (
    "test_utime_beyond_what_is_held_is_the_nearest[1500-1677]",
    "test_utime_beyond_what_is_held_is_the_nearest[2400-2262]",
    "test_a_write_beyond_the_largest_file",
    "test_a_change_of_content_and_setid[who1]",
    "test_a_change_of_content_and_setid[who3]",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    items[:] = [i for i in items if here not in i.path.parents or i.name not in _OTHERWISE]


@pytest.fixture(scope="module")
def mount(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedFilesystem]:
    folder = tmp_path_factory.mktemp("exclusive")
    with mounted(server.url, folder, "allow_other", "xattr", "exclusive") as it:
        yield it

"""One server and one mount a test module: starting them costs a second, and tests use folders of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.mount.places import fresh_directory, ground_of

if TYPE_CHECKING:  # the tests that prove themselves on tmpfs need no server
    from tests.server.running import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    from tests.server.running import running_server

    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def mount(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedFilesystem]:
    with mounted(server.url, tmp_path_factory.mktemp("mount"), "allow_other", "xattr") as it:
        yield it


@pytest.fixture
def bucket(mount: MountedFilesystem, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own: a bucket."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:100]
    path = mount.path / name
    path.mkdir()
    return path


@pytest.fixture
def elsewhere(server: RunningServer, bucket: Path, tmp_path: Path) -> Iterator[Path]:
    """`bucket` as another client has it: in a mount of its own."""
    with mounted(server.url, tmp_path, name="elsewhere") as other:
        yield other.path / bucket.name


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Path:
    """Where the module's tests make their directories."""
    return ground_of(request)


@pytest.fixture(scope="module")
def module_place(ground: Path, request: pytest.FixtureRequest) -> Path:
    """A directory that the module's tests share."""
    return fresh_directory(ground, f"shared-{request.node.name}")


@pytest.fixture
def place(ground: Path, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own, on the mount or where POSIX_TEST_DIR says."""
    return fresh_directory(ground, request.node.name)

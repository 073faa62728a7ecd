"""One server and one mount a test module: starting them costs a second, and tests use folders of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
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

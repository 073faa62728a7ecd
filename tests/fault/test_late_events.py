"""Another client changes a file, and nothing tells the mount: open() finds it out by itself, and
what is read is one version, whole, although the kernel trusts the old size for long.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.proxy import Stall
from tests.fault.between import server_behind_proxy
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

TRUST = ("attr_timeout=60", "entry_timeout=60")


class Place:
    def __init__(self, server: RunningServer, mount: MountedFilesystem) -> None:
        self._url = f"{server.url}/v1/files/late"
        self.bucket = mount.path / "late"

    def put(self, name: str, data: bytes) -> None:
        """As another client, past the mount."""
        httpx.put(f"{self._url}/{name}?alt=media", content=data).raise_for_status()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("late")
    with server_behind_proxy(folder / "data") as (server, proxy):
        proxy.always(Stall(), path="changes=1")
        with mounted(proxy.url, folder, *TRUST) as mount:
            place = Place(server, mount)
            place.bucket.mkdir()
            yield place


@pytest.mark.parametrize(("before", "after"), [(100, 30_000), (30_000, 100), (100, 2_000_000)])
def test_an_opened_file_has_its_own_size(place: Place, before: int, after: int) -> None:
    name = f"f{before}-{after}"
    path = place.bucket / name
    path.write_bytes(b"a" * before)
    assert path.read_bytes() == b"a" * before
    assert path.stat().st_size == before
    place.put(name, b"b" * after)
    with path.open("rb", buffering=0) as file:
        assert file.read(after + 1) == b"b" * after
    assert path.read_bytes() == b"b" * after

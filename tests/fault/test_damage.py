"""Content that is damaged where it is stored: EIO, named, never served, not asked for in vain."""

from __future__ import annotations

import errno
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.proxy import FaultProxy
from tests.fault.between import server_behind_proxy
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

MIB = 1 << 20
SIZE = 3 * MIB + 1000
TIMEOUT = 60  # longer than the test may take: a read that waits for it fails the test

pytestmark = pytest.mark.timeout(45)


class Place:
    def __init__(self, server: RunningServer, proxy: FaultProxy, mount: MountedFilesystem) -> None:
        self.server, self.proxy, self.mount = server, proxy, mount

    def stored(self, name: str) -> tuple[Path, bytes, Path]:
        """A new file: its path in the mount, its content, its blob."""
        data = random.Random(name).randbytes(SIZE)
        path = self.mount.path / "damage" / name
        path.write_bytes(data)
        blobs = [each for each in (self.server.data_dir / "blobs").rglob("*") if each.is_file()]
        return path, data, next(each for each in blobs if each.read_bytes() == data)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("damage")
    with (
        server_behind_proxy(folder / "data") as (server, proxy),
        mounted(proxy.url, folder, f"timeout={TIMEOUT}", "cache_size=1M") as mount,
    ):
        (mount.path / "damage").mkdir()
        yield Place(server, proxy, mount)


def _flip(blob: Path) -> None:
    with blob.open("r+b") as stored:
        stored.seek(2 * MIB)
        byte = stored.read(1)[0]
        stored.seek(2 * MIB)
        stored.write(bytes([byte ^ 1]))


def _cut(blob: Path) -> None:
    with blob.open("r+b") as stored:
        stored.truncate(2 * MIB)


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped": _flip, "cut": _cut, "lost": Path.unlink}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_blob_is_eio_and_named(place: Place, name: str) -> None:
    path, data, blob = place.stored(name)
    DAMAGES[name](blob)
    place.mount.remount()
    place.proxy.requests.clear()
    with path.open("rb", buffering=0) as file:
        file.seek(2 * MIB)
        with pytest.raises(OSError, match="Errno") as caught:
            file.read(4096)
    assert caught.value.errno == errno.EIO
    asked = [target for _, target in place.proxy.requests if f"/{name}?alt=media" in target]
    assert 0 < len(asked) <= 8  # two for each range: the readahead's too
    assert f"'{name}' is damaged on disk" in place.server.log()
    assert "are damaged; restore the file from a backup" in place.mount.log.read_text()
    if name == "flipped":  # the blocks that are whole are served
        with path.open("rb", buffering=0) as file:
            assert file.read(4096) == data[:4096]


def test_plain_clients_get_no_damaged_range(place: Place) -> None:
    _, data, blob = place.stored("ranges")
    _flip(blob)
    url = f"{place.server.url}/v1/files/damage/ranges?alt=media"
    damaged = httpx.get(url, headers={"Range": f"bytes={2 * MIB + 10}-{2 * MIB + 20}"})
    assert (damaged.status_code, damaged.headers["Files-Error"]) == (500, "damaged")
    asked = {"Range": f"bytes={2 * MIB}-{3 * MIB - 1}", "Want-Content-Digest": "crc32c=1"}
    assert httpx.get(url, headers=asked).status_code == 500
    whole = {**asked, "Range": f"bytes=0-{MIB - 1}"}
    answer = httpx.get(url, headers=whole)
    assert (answer.status_code, answer.content) == (206, data[:MIB])


def test_small_content_in_the_catalog_is_checked(place: Place) -> None:
    (place.mount.path / "damage" / "small").write_bytes(b"x" * 1000)
    place.server.stop()
    with sqlite3.connect(place.server.data_dir / "catalog.sqlite") as catalog:
        changed = catalog.execute(
            "UPDATE contents SET data = ? WHERE data = ?", (b"x" * 999 + b"y", b"x" * 1000)
        )
        assert changed.rowcount == 1
    catalog.close()
    place.server.start()
    place.mount.remount()
    with pytest.raises(OSError, match="Errno") as caught:
        (place.mount.path / "damage" / "small").read_bytes()
    assert caught.value.errno == errno.EIO


def test_fsck_names_them_all(place: Place) -> None:
    """Comes last: by now there are damaged, cut, and lost blobs."""
    _, _, blob = place.stored("checked")
    _flip(blob)
    place.server.stop()
    command = [sys.executable, "-m", "files_server.fsck", "--digests", str(place.server.data_dir)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    place.server.start()
    assert found.returncode == 1, found.stdout + found.stderr
    assert str(blob) in found.stdout


def test_unaligned_ranges_of_any_length_are_checked(place: Place) -> None:
    """20 MiB that begin in the middle of a block: through the backend, as the mount asks."""
    import trio

    from filesfs.backend.http import connect_backend
    from filesfs.backend.settings import BackendSettings
    from filesfs.domain import Location
    from filesfs.errors import Damaged

    data = random.Random(5).randbytes(21 * MIB)
    url = f"{place.server.url}/v1/files/damage/long?alt=media"
    httpx.put(url, content=data).raise_for_status()
    blobs = [each for each in (place.server.data_dir / "blobs").rglob("*") if each.is_file()]
    blob = next(each for each in blobs if each.stat().st_size == len(data))

    async def read() -> bytes:
        settings = BackendSettings(base_url=place.server.url, timeout=TIMEOUT)
        backend = await connect_backend(settings)
        try:
            entry = await backend.stat(Location("damage", "long"))
            return await backend.read(entry, 1000, 20 * MIB)
        finally:
            await backend.aclose()

    assert trio.run(read) == data[1000 : 1000 + 20 * MIB]
    _flip(blob)
    began = time.monotonic()
    with pytest.raises(Damaged):
        trio.run(read)
    assert time.monotonic() - began < TIMEOUT

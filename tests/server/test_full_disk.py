"""A disk that fills up: 507, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.running import running_server

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """48 MiB, most of which the catalog's log may take."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "filesfs-test", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_507_and_nothing_lost(small_disk: Path) -> None:
    with running_server(small_disk / "data") as server:
        base = f"{server.url}/v1/files/b"
        kept = os.urandom(12 * MIB)
        httpx.put(f"{base}/kept?alt=media", content=kept).raise_for_status()
        refused = httpx.put(f"{base}/large?alt=media", content=b"x" * (60 * MIB))
        assert (refused.status_code, refused.json()["title"]) == (507, "Insufficient Storage")
        assert httpx.get(f"{base}/large").status_code == 404
        assert httpx.get(f"{base}/kept?alt=media").content == kept
        for number in range(4):  # superseded versions give way
            data = bytes([number]) * (12 * MIB)
            httpx.put(f"{base}/turn?alt=media", content=data).raise_for_status()
        assert httpx.get(f"{base}/turn?alt=media").content == data
        server.restart()
        assert httpx.get(f"{base}/kept?alt=media").content == kept
        assert httpx.get(f"{base}/turn?alt=media").content == data


def test_what_could_be_undeleted_gives_way_on_a_full_disk(small_disk: Path) -> None:
    with running_server(small_disk / "data", keep_deleted="7d", superseded_seconds=0) as server:
        base = f"{server.url}/v1/files/b"
        for number in range(5):
            data = bytes([number]) * (12 * MIB)
            httpx.put(f"{base}/{number}?alt=media", content=data).raise_for_status()
            httpx.delete(f"{base}/{number}").raise_for_status()
        assert httpx.get(f"{base}?deleted=1").json()["data"][-1]["key"] == "4"


def test_a_session_survives_a_full_disk(small_disk: Path) -> None:
    with running_server(small_disk / "data") as server:
        body = {"bucket": "b", "key": "k", "mime_type": "x", "size": 30 * MIB}
        url = httpx.post(f"{server.url}/v1/files", json=body).json()["url"]
        first = os.urandom(10 * MIB)
        httpx.post(url, content=first, headers={"Upload-Offset": "0"}).raise_for_status()
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 30 * MIB)
        rest = os.urandom(20 * MIB)
        full = httpx.post(url, content=rest, headers={"Upload-Offset": str(10 * MIB)})
        assert full.status_code == 507
        filler.unlink()
        offset = httpx.get(url).json()["offset"]
        assert offset >= 10 * MIB
        done = httpx.post(
            url, content=(first + rest)[offset:], headers={"Upload-Offset": str(offset)}
        )
        assert httpx.get(done.json()["url"]).content == first + rest

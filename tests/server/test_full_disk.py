"""A disk that fills up: 507, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from files_server.blobs.local import LocalBlobs, Space
from files_server.catalog.commits import NO_CONDITIONS
from files_server.catalog.sessions import Wish
from files_server.errors import ApiError
from files_server.parts import Part
from files_server.services import opened
from files_server.settings import Settings
from tests.fault.disks import fill
from tests.server.running import RunningServer, running_server

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


def test_a_change_in_the_middle_survives_a_full_disk(small_disk: Path) -> None:
    with running_server(small_disk / "data") as server:
        base, at = os.urandom(9 * MIB), 4 * MIB + 77
        url = f"{server.url}/v1/files/b/k?alt=media"
        etag = httpx.put(url, content=base).headers["etag"]
        session = begin(server, 9 * MIB, **{"Files-Base": etag}).json()["url"]
        copied = {"Upload-Offset": "0", "Files-Copy-Base": str(4 * MIB)}
        httpx.post(session, headers=copied).raise_for_status()
        filler = fill(small_disk)
        copied = {"Upload-Offset": str(4 * MIB), "Files-Copy-Base": "77"}
        full = httpx.post(session, headers=copied, content=b"new")
        assert full.status_code == 507
        assert httpx.get(url).content == base
        filler.unlink()
        offset = int(httpx.head(session).headers["upload-offset"])
        assert offset in (4 * MIB, at)
        copied = {"Upload-Offset": str(offset), "Files-Copy-Base": str(at - offset)}
        httpx.post(session, headers=copied, content=b"new").raise_for_status()
        copied = {"Upload-Offset": str(at + 3), "Files-Copy-Base": str(9 * MIB - at - 3)}
        httpx.post(session, headers=copied).raise_for_status()
        assert httpx.get(url).content == base[:at] + b"new" + base[at + 3 :]
        assert httpx.get(f"{url}&version={etag.strip(chr(34))}").content == base


def begin(server: RunningServer, size: int, **headers: str) -> httpx.Response:
    body = {"bucket": "b", "key": "k", "mime_type": "x", "size": size}
    return httpx.post(f"{server.url}/v1/files", json=body, headers=headers)


def test_what_cannot_fit_is_refused_before_it_is_sent(small_disk: Path) -> None:
    with running_server(small_disk / "data") as server:
        free = shutil.disk_usage(small_disk).free
        refused = begin(server, 1 << 40)
        assert (refused.status_code, refused.json()["title"]) == (507, "Insufficient Storage")
        assert "no room for 1099511627776 bytes" in refused.json()["detail"]
        assert begin(server, free - MIB // 8).status_code == 507  # the catalog has to grow, too
        assert begin(server, free - 2 * MIB).status_code == 200
        assert begin(server, 0, **{"Upload-Defer-Length": "1"}).status_code == 200
        host, _, port = server.url.partition("//")[2].partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = "PUT /v1/files/b/k?alt=media HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999"
            connection.sendall(head.encode() + b"\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 507"
        assert httpx.get(f"{server.url}/v1/files/b/k").status_code == 404
        answer = httpx.put(f"{server.url}/v1/files/b/k?alt=media", content=bytes(60 * MIB))
        assert answer.status_code == 507
        assert list((small_disk / "data" / "uploads").iterdir()) == []


def test_what_is_kept_gives_way_only_to_what_fits_then(small_disk: Path) -> None:
    with running_server(small_disk / "data", keep_deleted="7d", superseded_seconds=0) as server:
        base = f"{server.url}/v1/files/b"
        for number in range(2):
            httpx.put(f"{base}/{number}?alt=media", content=bytes(12 * MIB)).raise_for_status()
            httpx.delete(f"{base}/{number}").raise_for_status()
        assert begin(server, 1 << 40).status_code == 507
        assert len(httpx.get(f"{base}?deleted=1").json()["data"]) == 2
        assert begin(server, 30 * MIB).status_code == 200
        assert len(httpx.get(f"{base}?deleted=1").json()["data"]) < 2


def test_what_is_kept_gives_way_only_for_the_disk_space_that_it_holds(small_disk: Path) -> None:
    """Versions that share one file with that after them hold next to none."""
    with running_server(small_disk, keep_deleted="1h") as server:
        base, size = "", 5_000_000
        with httpx.Client(base_url=server.url, timeout=30) as client:
            client.put("/v1/files/b", json={})
            base = client.put("/v1/files/b/log?alt=media", content=bytes(size)).headers["etag"]
            for _ in range(10):
                wish = {"bucket": "b", "key": "log", "mime_type": "a/b", "size": size + 1}
                headers = {"Files-Base": base, "Upload-Offset": str(size)}
                url = client.post("/v1/files", json=wish, headers=headers).json()["url"]
                sent = client.post(url, content=b"+", headers={"Upload-Offset": str(size)})
                base, size = sent.headers["etag"], size + 1
            kept = client.get("/v1/files/b?deleted=1").json()["data"]
            assert begin(server, 60_000_000).status_code == 507
            assert client.get("/v1/files/b?deleted=1").json()["data"] == kept
            assert len(kept) == 10


def test_a_location_on_a_small_disk(small_disk: Path, data_dir: Path) -> None:
    with running_server(data_dir, file_root=[str(small_disk)]) as server:
        uri = quote(f"file://{small_disk}", safe="")
        httpx.put(f"{server.url}/v1/files/{uri}?mode=rw&name=b").raise_for_status()
        refused = begin(server, 60 * MIB)
        assert refused.status_code == 507
        assert "the disk that the location is on" in refused.json()["detail"]
        put = httpx.put(f"{server.url}/v1/files/b/k?alt=media", content=bytes(60 * MIB))
        assert put.status_code == 507
        assert begin(server, 30 * MIB).status_code == 200


@pytest.mark.parametrize(
    ("base", "shares_blocks", "taken"),
    [(7 * MIB, False, True), (7 * MIB, True, False), (9 * MIB, False, False)],
)
def test_what_a_patch_takes(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, base: int, shares_blocks: bool, taken: bool
) -> None:
    """What it copies takes space: of a small file, unless the file system lets both versions have
    the blocks."""

    async def scenario() -> None:
        async with opened(Settings(data_dir=data_dir)) as services:
            uploads, wish = services.uploads, Wish("b", "k", "text/plain", NO_CONDITIONS)
            content = Part(once(bytes(base)), base, None)
            etag = (await uploads.put(wish, content, "")).node.etag
            monkeypatch.setattr(services.blobs, "shares_blocks", shares_blocks)
            monkeypatch.setattr(LocalBlobs, "space", lambda _: Space(50 * MIB, 5 * MIB, 0))
            patch = replace(wish, base=etag)
            for size, fits in ((base, not taken), (base + 9 * MIB, False)):
                with contextlib.nullcontext() if fits else pytest.raises(ApiError, match="no room"):
                    await uploads.create(patch, size, "")
            with pytest.raises(ApiError, match="no room"):
                await uploads.create(replace(wish, base='"gone"'), base, "")

    asyncio.run(scenario())


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_a_copy_of_a_version_makes_room_too(small_disk: Path) -> None:
    """The session found room when it began; the disk filled since, much of it with old versions."""
    with running_server(small_disk / "data") as server, httpx.Client(base_url=server.url) as client:
        kept, name = os.urandom(9 * MIB), "/v1/files/b/f?alt=media"
        for data in (os.urandom(9 * MIB), kept):
            base = client.put(name, content=data).headers["etag"]
        body = {"bucket": "b", "key": "f", "mime_type": "x", "size": 9 * MIB}
        for _ in range(2):  # the first one has the version's file; the second one copies
            answer = client.post("/v1/files", json=body, headers={"Files-Base": base})
        url = answer.json()["url"]
        filler = fill(small_disk)
        os.truncate(filler, filler.stat().st_size - 3 * MIB)
        headers = {"Upload-Offset": "0", "Files-Copy-Base": str(9 * MIB)}
        done = client.post(url, headers=headers)
        assert done.status_code == 200, done.text
        assert client.get(name).content == kept

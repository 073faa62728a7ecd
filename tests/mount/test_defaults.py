"""What has no attributes on the server: files of plain clients, and directories that only keys
imply. They show the mount's, until some are set.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.mount.places import ELSEWHERE

if TYPE_CHECKING:
    from tests.server.running import RunningServer

pytestmark = pytest.mark.skipif(bool(ELSEWHERE), reason="about the mount's own rules")


@pytest.fixture(scope="module")
def mount(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedFilesystem]:
    options = ("allow_other", "xattr", "uid=7", "gid=8", "umask=027")
    with mounted(server.url, tmp_path_factory.mktemp("mount"), *options) as it:
        yield it


@pytest.fixture
def uploaded(
    server: RunningServer, mount: MountedFilesystem, request: pytest.FixtureRequest
) -> Path:
    """a/b/c.txt in a bucket of the test's own, all of it made by a plain client."""
    bucket = str(request.node.name).replace("_", "-")
    wish = {"bucket": bucket, "key": "a/b/c.txt", "mime_type": "text/plain", "size": 7}
    with httpx.Client(trust_env=False) as client:
        session = client.post(f"{server.url}/v1/files", json=wish).raise_for_status().json()
        client.post(session["url"], content=b"content").raise_for_status()
    return mount.path / bucket


def _told(path: Path) -> tuple[str, int, int]:
    status = path.lstat()
    return oct(stat.S_IMODE(status.st_mode)), status.st_uid, status.st_gid


def test_they_show_the_mounts(uploaded: Path) -> None:
    for folder in (uploaded, uploaded / "a", uploaded / "a/b"):
        assert folder.is_dir()
        assert _told(folder) == ("0o750", 7, 8)
    assert _told(uploaded / "a/b/c.txt") == ("0o640", 7, 8)
    assert os.listdir(uploaded / "a") == ["b"]
    created = (uploaded / "a/b/c.txt").stat()
    assert created.st_mtime_ns == created.st_ctime_ns > 0


def test_what_is_set_stays(uploaded: Path, mount: MountedFilesystem) -> None:
    for index, name in enumerate(("", "a", "a/b", "a/b/c.txt")):
        path = uploaded / name
        path.chmod(0o701)
        os.chown(path, 70, 80 + index)
        os.setxattr(path, "user.x", name.encode())
        os.utime(path, ns=(5, 1_000_000_007 + index))
    for _ in range(2):
        for index, name in enumerate(("", "a", "a/b", "a/b/c.txt")):
            path = uploaded / name
            assert _told(path) == ("0o701", 70, 80 + index)
            assert path.stat().st_mtime_ns == 1_000_000_007 + index
            assert os.getxattr(path, "user.x") == name.encode()
        mount.remount()
    assert (uploaded / "a/b/c.txt").read_text() == "content"


def test_an_implied_directory_outlives_its_last_file(
    uploaded: Path, mount: MountedFilesystem
) -> None:
    (uploaded / "a/b/c.txt").unlink()
    mount.remount()
    assert os.listdir(uploaded / "a") == ["b"]
    assert os.listdir(uploaded / "a/b") == []
    (uploaded / "a/b").rmdir()
    (uploaded / "a").rename(uploaded / "d")
    assert os.listdir(uploaded) == ["d"]


def test_an_implied_directory_is_renamed_with_what_is_in_it(uploaded: Path) -> None:
    (uploaded / "a/b").rename(uploaded / "x")
    assert (uploaded / "x/c.txt").read_text() == "content"
    assert os.listdir(uploaded / "a") == []

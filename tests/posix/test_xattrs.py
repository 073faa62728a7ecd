"""Extended attributes (the mount has `-o xattr`)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.places import ELSEWHERE
from tests.posix.users import NOBODY, User


def _errno(call: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r".*") as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


def _own(path: Path) -> list[str]:
    """Without those that the mount itself tells."""
    told = ("user.mime_type", "system.", "security.")
    return sorted(name for name in os.listxattr(path) if not name.startswith(told))


@pytest.fixture
def bucket_of(place: Path) -> str:
    """The bucket that the test's directory is."""
    if ELSEWHERE:
        pytest.skip("only a mount has buckets")
    return place.name


@pytest.fixture(params=["file", "folder"])
def node(place: Path, request: pytest.FixtureRequest) -> Path:
    path = place / str(request.param)
    if request.param == "file":
        path.write_text("content")
    else:
        path.mkdir()
    return path


def test_user_attributes(node: Path) -> None:
    os.setxattr(node, "user.one", b"1")
    os.setxattr(node, "user.zwölf", b"\0\xff\n")
    assert _own(node) == ["user.one", "user.zwölf"]
    assert os.getxattr(node, "user.zwölf") == b"\0\xff\n"
    os.setxattr(node, "user.one", b"")
    assert os.getxattr(node, "user.one") == b""
    os.removexattr(node, "user.one")
    assert _own(node) == ["user.zwölf"]


def test_security_attributes(node: Path) -> None:
    os.setxattr(node, "security.label", b"x")
    assert os.getxattr(node, "security.label") == b"x"
    os.removexattr(node, "security.label")
    assert _errno(lambda: os.getxattr(node, "security.label")) == "ENODATA"


def test_what_the_server_tells_is_not_copied_along(place: Path, bucket_of: str) -> None:
    (place / "f").write_text("content")
    assert os.getxattr(place / "f", "user.files.bucket") == bucket_of.encode()
    assert "user.files.bucket" not in os.listxattr(place / "f")
    assert _errno(lambda: os.setxattr(place / "f", "user.files.bucket", b"x")) == "EPERM"


def test_trusted_attributes_are_roots(place: Path) -> None:
    place.chmod(0o777)
    (place / "f").touch()
    os.setxattr(place / "f", "trusted.secret", b"x")
    assert os.getxattr(place / "f", "trusted.secret") == b"x"
    user = User(place, NOBODY)
    assert _errno(lambda: user.run(os.getxattr, "f", "trusted.secret")) == "ENODATA"
    assert _errno(lambda: user.run(os.setxattr, "f", "trusted.secret", b"y")) == "EPERM"
    user.close()


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_links_and_special_files_have_trusted_attributes(place: Path, kind: str) -> None:
    path = place / kind
    if kind == "link":
        path.symlink_to("nowhere")
    else:
        os.mkfifo(path)
    assert _errno(lambda: os.setxattr(path, "user.x", b"1", follow_symlinks=False)) == "EPERM"
    os.setxattr(path, "trusted.x", b"1", follow_symlinks=False)
    assert os.getxattr(path, "trusted.x", follow_symlinks=False) == b"1"
    path.rename(place / "moved")
    assert os.getxattr(place / "moved", "trusted.x", follow_symlinks=False) == b"1"


def test_create_and_replace(node: Path) -> None:
    assert _errno(lambda: os.setxattr(node, "user.x", b"1", os.XATTR_REPLACE)) == "ENODATA"
    os.setxattr(node, "user.x", b"1", os.XATTR_CREATE)
    assert _errno(lambda: os.setxattr(node, "user.x", b"2", os.XATTR_CREATE)) == "EEXIST"
    os.setxattr(node, "user.x", b"2", os.XATTR_REPLACE)
    assert os.getxattr(node, "user.x") == b"2"


def test_missing(node: Path) -> None:
    assert _errno(lambda: os.getxattr(node, "user.missing")) == "ENODATA"
    assert _errno(lambda: os.removexattr(node, "user.missing")) == "ENODATA"


def test_limits(node: Path) -> None:
    os.setxattr(node, "user.large", b"x" * 30_000)
    assert os.getxattr(node, "user.large") == b"x" * 30_000
    assert _errno(lambda: os.setxattr(node, "user." + "n" * 251, b"")) == "ERANGE"
    assert _errno(lambda: os.setxattr(node, "user.x", b"x" * 65537)) == "E2BIG"
    assert _errno(lambda: os.setxattr(node, "unknown.x", b"")) == "ENOTSUP"


def test_an_ordinary_user_needs_permission(place: Path) -> None:
    (place / "f").touch()
    user = User(place, NOBODY)
    assert _errno(lambda: user.run(os.setxattr, "f", "user.x", b"")) == "EACCES"
    user.close()


def test_they_survive_writes_renames_and_remounts(
    place: Path, request: pytest.FixtureRequest
) -> None:
    (place / "f").write_text("content")
    os.setxattr(place / "f", "user.x", b"kept")
    (place / "f").write_text("other")
    (place / "f").rename(place / "g")
    assert os.getxattr(place / "g", "user.x") == b"kept"
    os.link(place / "g", place / "h")
    (place / "d").mkdir()
    os.setxattr(place / "d", "security.y", b"kept")
    for _ in range(2):
        assert os.getxattr(place / "h", "user.x") == b"kept"
        assert os.getxattr(place / "d", "security.y") == b"kept"
        if not ELSEWHERE:
            request.getfixturevalue("mount").remount()


def test_on_a_file_that_is_being_written(place: Path) -> None:
    with (place / "f").open("w") as stream:
        stream.write("content")
        os.setxattr(place / "f", "user.x", b"1")
        assert os.getxattr(stream.fileno(), "user.x") == b"1"
    assert os.getxattr(place / "f", "user.x") == b"1"
    assert (place / "f").read_text() == "content"


def test_setting_moves_ctime(node: Path) -> None:
    before = node.stat()
    os.setxattr(node, "user.x", b"1")
    after = node.stat()
    assert after.st_ctime_ns >= before.st_ctime_ns
    assert after.st_mtime_ns == before.st_mtime_ns

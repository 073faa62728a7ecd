"""Real trees: this Python's library through tar, this project's history through git."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from tests.mount.test_basics import run
from tests.mount.test_tools import need

ROOT = Path(__file__).parents[2]
PACKAGES = ("asyncio", "email", "encodings", "json", "unittest", "xml", "collections", "http")


def _told(root: Path) -> dict[str, tuple[object, ...]]:
    """What tar keeps of each name: type and mode, owner, times to the nanosecond, size, links."""
    told: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        size = status.st_size if not path.is_dir() else None
        links = status.st_nlink if not path.is_dir() else None
        owner = (status.st_uid, status.st_gid)
        told[str(path.relative_to(root))] = (
            oct(status.st_mode),
            owner,
            status.st_mtime_ns,
            size,
            links,
        )
    return told


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Hundreds of files, with attributes that differ from one to the next."""
    source = Path(sysconfig.get_path("stdlib"))
    target = tmp_path / "library"
    target.mkdir()
    for name in PACKAGES:
        run("cp", "-r", source / name, target / name)
    for index, path in enumerate(sorted(target.rglob("*"))):
        os.chown(path, index % 7, index % 5)
        path.chmod((0o644, 0o755, 0o600, 0o2755, 0o700)[index % 5])
        os.utime(path, ns=(index, 1_600_000_000_000_000_000 + index * 1_000_003))
    os.link(target / "json/decoder.py", target / "twin.py")
    (target / "to-json").symlink_to("json")
    return target


def test_tar_of_a_library(place: Path, library: Path, tmp_path: Path) -> None:
    expected = _told(library)
    assert len(expected) > 400
    run("tar", "--format=posix", "-cf", tmp_path / "in.tar", "-C", library, ".")
    (place / "x").mkdir()
    run("tar", "-xpf", tmp_path / "in.tar", "-C", place / "x")
    assert _told(place / "x") == expected
    run("diff", "-r", "--no-dereference", library, place / "x")
    run("tar", "--format=posix", "-czf", place / "out.tar.gz", "-C", place / "x", ".")
    (tmp_path / "back").mkdir()
    run("tar", "-xpf", place / "out.tar.gz", "-C", tmp_path / "back")
    assert _told(tmp_path / "back") == expected


def test_git_of_this_project(place: Path) -> None:
    """clone, log, commit, gc and fsck; a second clone from the mount to the mount."""
    need("git")
    if not (ROOT / ".git").exists():
        pytest.skip("there is no history here")
    safe = ("git", "-c", "safe.directory=*", "-c", "gc.auto=0")
    run(*safe, "clone", "-q", "--no-hardlinks", f"file://{ROOT}", place / "one")
    one = place / "one"
    assert run(*safe, "rev-parse", "HEAD", cwd=one) == run(*safe, "rev-parse", "HEAD", cwd=ROOT)
    (one / "README.md").write_text("changed\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    run(*safe, *who, "commit", "-qam", "changed", cwd=one)
    run(*safe, "gc", "-q", cwd=one)
    run(*safe, "fsck", "--strict", cwd=one)
    assert run(*safe, "status", "--porcelain", cwd=one) == ""
    run(*safe, "clone", "-q", one, place / "two")
    assert (place / "two/README.md").read_text() == "changed\n"
    count = ("rev-list", "--count", "HEAD")
    assert run(*safe, *count, cwd=place / "two") == run(*safe, *count, cwd=one)

"""Registered locations at the mount: read as they are, written where they were registered so."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.mount.mounting import mounted
from tests.server.running import running_server

ODD_TIMES = {1600: -11_676_096_000, 2252: 8_900_000_000, 2400: 13_569_465_600}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The mount point, and the folder that holds what is registered: media (ro), desk (rw)."""
    folder = tmp_path_factory.mktemp("registered")
    root = folder / "root"
    for name in ("media/sub", "desk", "single"):
        (root / name).mkdir(parents=True)
    (root / "media" / "a.txt").write_text("alpha")
    (root / "media" / "sub" / "big").write_bytes(os.urandom(5_000_000))
    (root / "single" / "one").write_text("1")
    (root / "single" / "two").write_text("2")
    for year, seconds in ODD_TIMES.items():
        (root / "desk" / f"in {year}" / "sub").mkdir(parents=True)
        for name in ("plain", "file", "sub"):
            path = root / "desk" / f"in {year}" / name
            path.touch()
            if name != "plain":
                os.utime(path, (seconds, seconds))
    with running_server(folder / "server", file_root=[str(root)]) as server:
        with httpx.Client(base_url=f"{server.url}/v1/files/", trust_env=False) as client:
            for name, rest in (("media", ""), ("desk", "?mode=rw"), ("single", "/one")):
                uri = quote(f"file://{root}/{name}", safe="")
                client.put(uri + rest).raise_for_status()
        with mounted(server.url, folder) as mount:
            yield mount.path, root


def test_what_is_registered_shows_and_is_copied_out(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    mount, root = places
    assert sorted(os.listdir(mount)) == ["desk", "media", "single"]
    assert sorted(os.listdir(mount / "media")) == ["a.txt", "sub"]
    assert os.listdir(mount / "single") == ["one"]
    assert subprocess.run(["cat", mount / "media" / "a.txt"], capture_output=True).stdout == (
        b"alpha"
    )
    subprocess.run(["cp", "-r", mount / "media", tmp_path / "copy"], check=True)
    subprocess.run(["diff", "-r", root / "media", tmp_path / "copy"], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (mount / "media" / "new").write_text("x")


def test_what_changes_in_the_folder_itself_shows_within_seconds(
    places: tuple[Path, Path],
) -> None:
    """No change feed tells of it, so nothing there is believed for longer than the ttl."""
    mount, root = places
    here, there = mount / "desk", root / "desk"
    (there / "grows").write_text("1")
    (there / "goes").write_text("2")
    wait_until(lambda: (here / "grows").exists() and (here / "goes").exists())
    assert not (here / "comes").exists()
    assert "comes" not in os.listdir(here)
    (there / "comes").write_text("new")
    (there / "grows").write_text("12345")
    (there / "goes").unlink()
    wait_until(lambda: (here / "comes").exists())
    wait_until(lambda: "comes" in os.listdir(here) and "goes" not in os.listdir(here))
    wait_until(lambda: (here / "grows").stat().st_size == 5 and not (here / "goes").exists())
    assert (here / "comes").read_text() == "new"
    assert (here / "grows").read_text() == "12345"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it does not show"
        time.sleep(0.1)


def test_a_tree_is_copied_in_where_writing_is_allowed(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    mount, root = places
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "small").write_text("small")
    (tree / "empty").write_text("")
    (tree / "sub" / "big").write_bytes(os.urandom(20_000_000))
    os.chmod(tree / "small", 0o640)
    os.utime(tree / "small", ns=(10**18, 10**18 + 7))
    subprocess.run(["cp", "-rp", tree, mount / "desk" / "tree"], check=True)
    subprocess.run(["diff", "-r", tree, root / "desk" / "tree"], check=True)
    status = (root / "desk" / "tree" / "small").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 10**18 + 7)
    subprocess.run(["diff", "-r", tree, mount / "desk" / "tree"], check=True)


def test_files_there_are_edited_moved_and_removed(places: tuple[Path, Path]) -> None:
    mount, root = places
    here, there = mount / "desk", root / "desk"
    (here / "note").write_text("one\n")
    with (here / "note").open("a") as note:
        note.write("two\n")
        note.flush()
        os.fsync(note.fileno())
        note.write("three\n")
    assert (there / "note").read_text() == "one\ntwo\nthree\n"
    with (here / "note").open("r+b") as note:
        note.seek(4)
        note.write(b"TWO")
    assert (there / "note").read_text() == "one\nTWO\nthree\n"
    os.chmod(here / "note", 0o600)
    assert (there / "note").stat().st_mode & 0o7777 == 0o600
    (here / "sub").mkdir()
    with pytest.raises(OSError, match="cross-device"):
        os.rename(here / "note", here / "sub" / "note")
    shutil.move(here / "note", here / "sub" / "note")
    assert (there / "sub" / "note").read_text() == "one\nTWO\nthree\n"
    assert not (there / "note").exists()
    shutil.rmtree(here / "sub")
    assert not (there / "sub").exists()
    with pytest.raises(OSError, match=r"not supported|not permitted"):
        os.symlink("x", here / "link")


def test_names_that_keys_cannot_hold_are_the_same_on_both_sides(places: tuple[Path, Path]) -> None:
    mount, root = places
    names = [
        b"two words.txt",
        "Gr\u00f6\u00dfe #1+~".encode(),
        b"not \xff UTF-8",
        b"_-a_20b",
        b"_-plain",
    ]
    for name in names:
        (root / "desk" / os.fsdecode(name)).write_bytes(name)
    try:
        wait_until(lambda: set(names) <= set(os.listdir(os.fsencode(mount / "desk"))))
        for name in names:
            assert (mount / "desk" / os.fsdecode(name)).read_bytes() == name
        folder = mount / "desk" / "a folder"
        folder.mkdir()
        (folder / "an old name").write_text("x")
        (folder / "its copy \u00e9").write_text("y")
        (folder / "an old name").unlink()
        assert os.listdir(root / "desk" / "a folder") == ["its copy \u00e9"]
    finally:
        for name in names:
            (root / "desk" / os.fsdecode(name)).unlink()
        shutil.rmtree(root / "desk" / "a folder", ignore_errors=True)


def test_no_escape_leads_out_of_a_location(places: tuple[Path, Path]) -> None:
    mount, root = places
    assert not (mount / "desk" / "_-_2e_2e").exists()
    (mount / "desk" / "_-_2e_2e").write_text("a name like any other")
    assert (root / "desk" / "_-_2e_2e").read_text() == "a name like any other"
    (mount / "desk" / "_-_2e_2e").unlink()


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_file_there_is_changed_in_place_also_after_its_mode(
    places: tuple[Path, Path], size: int
) -> None:
    """A chmod there makes another version of the file, which an open descriptor goes on with."""
    mount, root = places
    data = os.urandom(size)
    name = f"patched-{size}"
    (mount / "desk" / name).write_bytes(data)
    with (mount / "desk" / name).open("r+b", buffering=0) as file:
        assert file.read(4) == data[:4]
        os.fchmod(file.fileno(), 0o600)
        os.pwrite(file.fileno(), b"new", 4)
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o640)
        assert os.pread(file.fileno(), size, 0) == data[:4] + b"new" + data[7:]
        os.pwrite(file.fileno(), b"end", size - 3)
    expected = data[:4] + b"new" + data[7:-3] + b"end"
    assert (root / "desk" / name).read_bytes() == expected
    assert (mount / "desk" / name).read_bytes() == expected


@pytest.mark.parametrize("year", ODD_TIMES)
def test_a_time_out_of_the_ordinary_takes_no_directory_away(
    places: tuple[Path, Path], year: int
) -> None:
    """As far as the disk has them, and the API's 64 bits of nanoseconds."""
    mount, root = places
    there = mount / "desk" / f"in {year}"
    assert sorted(os.listdir(there)) == ["file", "plain", "sub"]
    shown = (there / "file").stat().st_mtime_ns
    kept = (root / "desk" / there.name / "file").stat().st_mtime_ns
    assert shown == max(-(1 << 63), min(kept, (1 << 63) - 1))

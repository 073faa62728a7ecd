"""Two mounts and a plain client of the API in one directory: who sees what, and when."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.posix.clock import wait_for

if TYPE_CHECKING:
    from tests.server.running import RunningServer

SEEN_SECONDS = 1.0  # the promise without the feed; with it 100 ms, which a busy machine may miss


@pytest.fixture(scope="module")
def other(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedFilesystem]:
    with mounted(server.url, tmp_path_factory.mktemp("other"), "allow_other", "xattr") as it:
        yield it


@pytest.fixture
def here(place: Path) -> Path:
    return place


@pytest.fixture
def there(place: Path, other: MountedFilesystem) -> Path:
    """The same directory in the other mount."""
    path = other.path / place.name
    wait_for(path.is_dir, 5)
    return path


@pytest.fixture
def client(server: RunningServer, place: Path) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/v1/files/{place.name}", trust_env=False) as client:
        yield client


def upload(client: httpx.Client, key: str, data: bytes) -> None:
    """The published way: a session, and its content."""
    base = str(client.base_url).rstrip("/")
    files, bucket = base.rsplit("/", 1)
    wish = {"bucket": bucket, "key": key, "mime_type": "text/plain", "size": len(data)}
    session = client.post(files, json=wish).raise_for_status().json()
    client.post(session["url"], content=data).raise_for_status()


def content(client: httpx.Client, key: str) -> bytes:
    return client.get(f"/{key}?alt=media").raise_for_status().content


def failure(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError, match=r".*") as caught:
        call()
    return caught.value.errno


# -- close to open --------------------------------------------------------------------------------
def test_close_to_open(here: Path, there: Path) -> None:
    """What is closed in one mount is what the other opens: at once, each time."""
    for turn in range(20):
        writer, reader = (here, there) if turn % 2 else (there, here)
        text = f"turn {turn} " * (turn + 1)
        (writer / "f").write_text(text)
        if turn == 0:
            wait_for((reader / "f").exists, SEEN_SECONDS)
        assert (reader / "f").read_text() == text


def test_close_to_open_with_the_plain_client(here: Path, client: httpx.Client) -> None:
    (here / "f").write_text("from the mount")
    assert content(client, "f") == b"from the mount"
    upload(client, "f", b"from the client")
    assert (here / "f").read_text() == "from the client"
    (here / "f").write_text("and back")
    assert content(client, "f") == b"and back"


def test_large_files_close_to_open(here: Path, there: Path) -> None:
    for turn in range(3):
        data = os.urandom(3 << 20)
        (here / "f").write_bytes(data)
        if turn == 0:
            wait_for((there / "f").exists, SEEN_SECONDS)
        assert (there / "f").read_bytes() == data


def test_fsync_publishes(here: Path, there: Path) -> None:
    with (here / "f").open("w") as stream:
        stream.write("half")
        stream.flush()
        os.fsync(stream.fileno())
        wait_for((there / "f").exists, SEEN_SECONDS)
        assert (there / "f").read_text() == "half"
        stream.write(" and half")
    assert (there / "f").read_text() == "half and half"


def test_nobody_sees_what_is_not_closed(here: Path, there: Path, client: httpx.Client) -> None:
    (here / "f").write_text("old")
    wait_for((there / "f").exists, SEEN_SECONDS)
    with (here / "f").open("w") as stream:
        stream.write("new")
        stream.flush()
        assert (there / "f").read_text() == "old"
        assert content(client, "f") == b"old"
    assert (there / "f").read_text() == "new"


# -- names ----------------------------------------------------------------------------------------
def test_new_names_are_seen_in_time(
    here: Path, there: Path, client: httpx.Client, record_property: Callable[[str, object], None]
) -> None:
    """Even where they were looked for, in vain, just before."""
    slowest = 0.0
    for turn in range(10):
        name = f"new{turn}"
        assert not (there / name).exists()
        assert name not in os.listdir(there)
        if turn % 2:
            (here / name).write_text("x")
        else:
            upload(client, name, b"x")
        slowest = max(slowest, wait_for((there / name).exists, SEEN_SECONDS))
        assert name in os.listdir(there)
    record_property("slowest_seconds", slowest)


def test_names_that_go_are_seen_in_time(here: Path, there: Path, client: httpx.Client) -> None:
    for name in ("one", "two"):
        (here / name).write_text("x")
        wait_for((there / name).exists, SEEN_SECONDS)
    (here / "one").unlink()
    client.delete("/two").raise_for_status()
    for name in ("one", "two"):
        wait_for(lambda name=name: not (there / name).exists(), SEEN_SECONDS)  # type: ignore[misc]
        assert name not in os.listdir(there)


def test_implied_directories_are_seen_in_time(there: Path, client: httpx.Client) -> None:
    """Keys of a plain client make several at once, and several go with their last file."""
    for key in ("n/f", "m/l/f", "i/k/j/f"):
        top = key.partition("/")[0]
        assert top not in os.listdir(there)
        assert not (there / top).exists()
        upload(client, key, b"x")
        wait_for((there / top).exists, SEEN_SECONDS)
        assert top in os.listdir(there)
        assert (there / key).read_bytes() == b"x"
        client.delete(f"/{key}").raise_for_status()
        wait_for(lambda top=top: not (there / top).exists(), SEEN_SECONDS)  # type: ignore[misc]
        assert top not in os.listdir(there)


def test_a_rename_is_seen_whole(here: Path, there: Path) -> None:
    (here / "a/b").mkdir(parents=True)
    (here / "a/b/f").write_text("content")
    wait_for((there / "a/b/f").exists, SEEN_SECONDS)
    (here / "a").rename(here / "z")
    wait_for((there / "z/b/f").exists, SEEN_SECONDS)
    wait_for(lambda: not (there / "a").exists(), SEEN_SECONDS)
    assert (there / "z/b/f").read_text() == "content"


def test_a_private_file_is_never_seen_otherwise(here: Path, there: Path) -> None:
    """Its mode and owner come with it, not a moment later."""
    for turn in range(8):
        name = f"private{turn}"
        number = os.open(here / name, os.O_CREAT | os.O_WRONLY, 0o600)
        os.fchown(number, 77, 78)
        os.write(number, b"x" * (1 if turn % 2 else 300_000))
        os.close(number)
        wait_for((there / name).exists, SEEN_SECONDS)
        status = (there / name).stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, 77, 78)


def test_link_counts_are_seen_in_time(here: Path, there: Path) -> None:
    """Under each name, though a change is about one."""
    (here / "one").write_text("content")
    assert (here / "one").stat().st_nlink == 1
    os.link(there / "one", there / "two")
    wait_for(lambda: (here / "one").stat().st_nlink == 2, SEEN_SECONDS)
    assert (here / "two").stat().st_ino == (here / "one").stat().st_ino
    (there / "two").unlink()
    wait_for(lambda: (here / "one").stat().st_nlink == 1, SEEN_SECONDS)


def test_attributes_are_seen_in_time(here: Path, there: Path) -> None:
    (here / "f").write_text("x")
    wait_for((there / "f").exists, SEEN_SECONDS)
    (here / "f").chmod(0o604)
    os.utime(here / "f", ns=(1, 2))
    wait_for(lambda: (there / "f").stat().st_mode & 0o777 == 0o604, SEEN_SECONDS)
    wait_for(lambda: (there / "f").stat().st_mtime_ns == 2, SEEN_SECONDS)


def test_exclusive_creation_between_mounts(here: Path, there: Path) -> None:
    os.close(os.open(here / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    assert failure(lambda: os.open(there / "lock", flags)) == errno.EEXIST


def test_a_client_of_the_plain_api_sees_ordinary_entries(here: Path, client: httpx.Client) -> None:
    (here / "d").mkdir()
    (here / "d/f").write_text("content")
    (here / "link").symlink_to("d/f")
    listed = client.get("").raise_for_status().json()["data"]
    assert sorted(entry["key"] for entry in listed) == ["d/f", "link"]
    assert {entry["bytes"] for entry in listed} == {7, 3}


# -- open files -----------------------------------------------------------------------------------
def test_an_open_file_keeps_its_version(here: Path, there: Path, client: httpx.Client) -> None:
    first, second = os.urandom(2 << 20), os.urandom(2 << 20)
    (here / "f").write_bytes(first)
    wait_for((there / "f").exists, SEEN_SECONDS)
    with (there / "f").open("rb", buffering=0) as stream:
        assert stream.read(10) == first[:10]
        (here / "f").write_bytes(second)
        assert (there / "f").read_bytes() == second
        stream.seek(1 << 20)
        assert stream.read(1 << 20) == first[1 << 20 :]
    assert content(client, "f") == second


def test_an_open_file_outlives_its_removal_elsewhere(here: Path, there: Path) -> None:
    data = os.urandom(2 << 20)
    (here / "f").write_bytes(data)
    wait_for((there / "f").exists, SEEN_SECONDS)
    with (there / "f").open("rb") as stream:
        (here / "f").unlink()
        wait_for(lambda: not (there / "f").exists(), SEEN_SECONDS)
        assert stream.read() == data


def test_a_write_follows_a_rename_elsewhere(here: Path, there: Path) -> None:
    """Files have identity: the old name does not come back."""
    (here / "f").write_text("old")
    wait_for((there / "f").exists, SEEN_SECONDS)
    with (there / "f").open("w") as stream:
        stream.write("new")
        (here / "f").rename(here / "g")
    wait_for((there / "g").exists, SEEN_SECONDS)
    assert (here / "g").read_text() == "new"
    assert os.listdir(here) == ["g"]


def test_a_write_to_a_file_removed_elsewhere_brings_nothing_back(here: Path, there: Path) -> None:
    (here / "f").write_text("old")
    wait_for((there / "f").exists, SEEN_SECONDS)
    with (there / "f").open("w") as stream:
        stream.write("new")
        (here / "f").unlink()
    assert os.listdir(here) == []


def test_the_last_close_wins_whole(here: Path, there: Path) -> None:
    (here / "f").write_text("old")
    wait_for((there / "f").exists, SEEN_SECONDS)
    with (here / "f").open("w") as one, (there / "f").open("w") as two:
        two.write("2" * 100_000)
        one.write("1" * 50_000)
        one.close()
        two.close()
    assert (here / "f").read_text() == "2" * 100_000
    assert (there / "f").read_text() == "2" * 100_000


def test_conflict_fail_makes_it_stale(
    server: RunningServer, here: Path, tmp_path: Path, client: httpx.Client
) -> None:
    (here / "f").write_text("old")
    with mounted(server.url, tmp_path, "conflict=fail") as careful:
        path = careful.path / here.name / "f"
        stream = path.open("r+b", buffering=0)
        stream.write(b"mine")
        (here / "f").write_text("theirs")
        assert failure(stream.close) == errno.ESTALE
        assert content(client, "f") == b"theirs"
        assert path.read_text() == "theirs"


def test_link_counts_of_many_directories_are_seen_in_time(here: Path, there: Path) -> None:
    """The last of them are told by one listing, not each by an answer of its own."""
    names = [f"d{number}" for number in range(12)]
    for name in names:
        (here / name).mkdir()
    wait_for(lambda: all((there / name).exists() for name in names), SEEN_SECONDS)
    for name in names:
        (here / name / "below").mkdir()

    def counts() -> set[int]:
        return {(there / name).stat().st_nlink for name in names}

    wait_for(lambda: counts() == {3}, SEEN_SECONDS)

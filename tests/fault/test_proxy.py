"""Faults between mount and server: what was copied is right, or the copy failed with an errno."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.proxy import (
    AnswerStatus,
    Corrupt,
    DropAnswer,
    Duplicate,
    Fault,
    FaultProxy,
    Reset,
    Rule,
    Stall,
    Truncate,
)
from tests.fault.between import server_behind_proxy
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

TIMEOUT = 3
SLACK = 3.0  # seconds beyond the deadline that a busy machine may take
SIZES = (0, 1, 4096, 3 << 20, 20 << 20)

FAULTS: dict[str, tuple[Fault, str]] = {
    "reset of an answer": (Reset(after=1000), ""),
    "reset of a request": (Reset(after=100_000, request=True), ""),
    "cut short": (Truncate(after=5000), "GET"),
    "corrupted": (Corrupt(position=100), "GET"),
    "429": (AnswerStatus(429, (("Retry-After", "0"),)), ""),
    "500": (AnswerStatus(500), ""),
    "503": (AnswerStatus(503), ""),
    "504": (AnswerStatus(504), ""),
    "PUT answered into the void": (DropAnswer(), "PUT"),
    "part answered into the void": (DropAnswer(), "POST"),
    "duplicated PUT": (Duplicate(), "PUT"),
}


class Place:
    def __init__(self, server: RunningServer, proxy: FaultProxy, mount: MountedFilesystem) -> None:
        self.server, self.proxy, self.mount = server, proxy, mount
        self.bucket = mount.path / "faults"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("proxy")
    with (
        server_behind_proxy(folder / "data") as (server, proxy),
        mounted(proxy.url, folder, f"timeout={TIMEOUT}", "cache_size=1M") as mount,
    ):
        place = Place(server, proxy, mount)
        place.bucket.mkdir()
        yield place


@pytest.fixture(autouse=True)
def calm(place: Place) -> Iterator[None]:
    yield
    place.proxy.clear()
    place.proxy.release()
    place.proxy.up()


def left_over(place: Place) -> list[Path]:
    return [each for each in (place.server.data_dir / "uploads").iterdir() if each.is_file()]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_now_and_then_harms_nothing(place: Place, name: str) -> None:
    """One request in three meets the fault; each copy is right."""
    fault, method = FAULTS[name]
    for size in SIZES:
        data = random.Random(size).randbytes(size)
        for skip in (0, 2):
            place.proxy.add(Rule(fault, method=method, path="/faults/", skip=skip))
        path = place.bucket / f"{name.replace(' ', '-')}-{size}"
        path.write_bytes(data)
        assert path.read_bytes() == data
        place.proxy.clear()
        assert path.read_bytes() == data
    names = [each.name for each in place.bucket.iterdir()]
    assert len(names) == len(set(names))
    assert not [each for each in names if "conflict" in each]
    assert left_over(place) == []


@pytest.mark.timeout(60)
def test_a_body_that_is_always_corrupted_is_eio(place: Place) -> None:
    path = place.bucket / "always"
    data = random.Random(1).randbytes(3 << 20)
    path.write_bytes(data)
    place.mount.remount()
    place.proxy.always(Corrupt(position=5000), method="GET", path="/faults/always")
    with path.open("rb") as file:
        place.proxy.requests.clear()
        with pytest.raises(OSError, match="Errno") as caught:
            file.read(1000)
    assert caught.value.errno == errno.EIO
    asked = [target for _, target in place.proxy.requests if "alt=media" in target]
    assert len(asked) > len(set(asked))  # each range again, before EIO
    place.proxy.clear()
    assert path.read_bytes() == data


@pytest.mark.timeout(60)
def test_a_stall_ends_with_the_deadline(place: Place) -> None:
    place.proxy.always(Stall(), path="/faults/")
    began = time.monotonic()
    with pytest.raises(OSError, match="Errno") as caught:
        (place.bucket / "never-seen").stat()
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - began < TIMEOUT + SLACK


@pytest.mark.timeout(60)
def test_the_server_away(place: Place) -> None:
    """EIO within the deadline, ls of what is cached; a failed close() goes up later."""
    kept = place.bucket / "kept"
    kept.write_bytes(b"old")
    listed = sorted(place.bucket.iterdir())
    place.proxy.down()
    assert sorted(place.bucket.iterdir()) == listed
    began = time.monotonic()
    with pytest.raises(OSError, match="Errno") as caught, kept.open("r+b", buffering=0) as file:
        file.write(b"new")
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - began < 2 * TIMEOUT + SLACK  # open() and close()
    place.proxy.up()
    assert kept.read_bytes() == b"old"


@pytest.mark.timeout(60)
def test_a_failed_close_is_kept_over_kill_9_and_goes_up(place: Place) -> None:
    path = place.bucket / "later"
    file = path.open("wb", buffering=0)
    file.write(b"kept by the journal")
    place.proxy.down()
    with pytest.raises(OSError, match="Errno 5"):
        file.close()
    place.mount.kill()
    place.proxy.up()
    place.mount.start()
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert path.read_bytes() == b"kept by the journal"

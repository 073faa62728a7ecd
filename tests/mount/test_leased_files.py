"""open() of a file that the server has leased to the mount: it asks nobody, and is as strict."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.mount.mounting import MountedFilesystem, mounted
from tests.posix.clock import wait_for

if TYPE_CHECKING:
    from tests.server.running import RunningServer

LEASE_SECONDS = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    from tests.server.running import running_server

    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, lease_seconds=LEASE_SECONDS) as running:
        yield running


@pytest.fixture
def client(server: RunningServer, bucket: Path) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/v1/files/{bucket.name}", trust_env=False) as client:
        yield client


def requests(server: RunningServer) -> int:
    """How many the server has answered, but for those that ask how many."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).raise_for_status().text
    counted = re.findall(r'^files_server_requests_total\{operation="(\w+)".*\} (\S+)', text, re.M)
    return sum(int(float(number)) for operation, number in counted if operation != "metrics")


def put(client: httpx.Client, key: str, data: bytes) -> None:
    client.put(f"/{key}?alt=media", content=data).raise_for_status()


def test_an_open_file_again_asks_nobody(server: RunningServer, bucket: Path) -> None:
    files = [bucket / f"f{number}" for number in range(20)]
    for path in files:
        path.write_bytes(path.name.encode())

    def asked() -> int:
        before = requests(server)
        for path in files:
            assert path.read_bytes() == path.name.encode()
        return requests(server) - before

    wait_for(lambda: asked() <= 1, 10)  # leases are granted once a marker is on the disk
    before = requests(server)
    for path in files * 5:
        assert path.read_bytes() == path.name.encode()
    assert requests(server) - before <= 2  # a lease is extended now and then


def test_each_change_of_another_client_is_seen_at_once(
    bucket: Path, elsewhere: Path, client: httpx.Client
) -> None:
    path = bucket / "f"
    path.write_bytes(b"0")
    assert path.read_bytes() == b"0"
    changes: list[Callable[[bytes], None]] = [
        lambda data: put(client, "f", data),
        lambda data: _replace(elsewhere, data),
        lambda data: _rewrite(elsewhere, data),
        lambda data: _swap_directories(client, data),
    ]
    for number in range(1, 41):
        data = b"%d" % number
        changes[number % 3](data)
        assert path.read_bytes() == data
        assert path.read_bytes() == data
    below = bucket / "d" / "f"
    changes[3](b"new")
    wait_for(below.exists, 5)
    for number in range(10):
        changes[3](b"%d" % number)
        assert below.read_bytes() == b"%d" % number
        assert below.read_bytes() == b"%d" % number


def _replace(folder: Path, data: bytes) -> None:
    (folder / "new").write_bytes(data)
    (folder / "new").rename(folder / "f")


def _rewrite(folder: Path, data: bytes) -> None:
    (folder / "f").write_bytes(data)


def _swap_directories(client: httpx.Client, data: bytes) -> None:
    """Another directory stands in the place of "d"."""
    put(client, "other/f", data)
    base = client.base_url.path.rstrip("/")
    if client.get("/d/?view=full").status_code == 200:
        header = {"Destination": f"{base}/other/", "Exchange": "T"}
        client.request("MOVE", "/d/", headers=header).raise_for_status()
    else:
        header = {"Destination": f"{base}/d/"}
        client.request("MOVE", "/other/", headers=header).raise_for_status()


def test_no_open_is_older_than_what_was_closed_before(
    bucket: Path, elsewhere: Path, client: httpx.Client
) -> None:
    """Readers on one mount; on another one, and through the API, somebody writes."""
    names = [f"f{number}" for number in range(6)]
    closed = dict.fromkeys(names, 0)
    for name in names:
        (bucket / name).write_bytes(b"0")
    end = time.monotonic() + 6
    reads = 0

    def write(name: str, change: Callable[[str, bytes], None]) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            change(name, b"%d" % number)
            closed[name] = number
            time.sleep(0.001 * (number % 7) ** 2)

    def read(start: int) -> int:
        done = 0
        while time.monotonic() < end:
            name = names[(start + done) % len(names)]
            least = closed[name]
            try:
                found = int((bucket / name).read_bytes())
            except OSError as error:  # with other threads looking it up at the same time
                if error.errno != errno.ESTALE:
                    raise
            else:
                assert found >= least, name
                done += 1
        return done

    def replace(name: str, data: bytes) -> None:
        (elsewhere / f"{name}.new").write_bytes(data)
        (elsewhere / f"{name}.new").rename(elsewhere / name)

    def replace_there(name: str, data: bytes) -> None:
        put(client, f"{name}.new", data)
        destination = f"{client.base_url.path.rstrip('/')}/{name}"
        headers = {"Destination": destination}
        client.request("MOVE", f"/{name}.new", headers=headers).raise_for_status()

    def exchange(name: str, data: bytes) -> None:
        put(client, f"{name}.other", data)
        destination = f"{client.base_url.path.rstrip('/')}/{name}"
        headers = {"Destination": destination, "Exchange": "T"}
        client.request("MOVE", f"/{name}.other", headers=headers).raise_for_status()

    ways: list[Callable[[str, bytes], object]] = [
        lambda name, data: put(client, name, data),
        replace,
        replace_there,
        exchange,
        lambda name, data: put(client, name, data),
        replace,
    ]
    with ThreadPoolExecutor(10) as threads:
        writers = [threads.submit(write, *pair) for pair in zip(names, ways, strict=True)]
        readers = [threads.submit(read, start) for start in range(4)]
        for each in (*writers, *readers):
            reads += each.result() or 0
    assert reads > 100


def test_a_mount_that_does_not_answer_holds_a_writer_up_for_no_longer_than_its_lease(
    server: RunningServer, bucket: Path, client: httpx.Client, tmp_path: Path
) -> None:
    put(client, "f", b"1")
    with mounted(server.url, tmp_path, name="stopped") as other:
        assert (other.path / bucket.name / "f").read_bytes() == b"1"
        assert other.process is not None
        other.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            put(client, "f", b"2")
            held = time.monotonic() - began
            put(client, "f", b"3")
        finally:
            other.process.send_signal(signal.SIGCONT)
        assert held < LEASE_SECONDS + 2
        assert (other.path / bucket.name / "f").read_bytes() == b"3"


def test_a_mount_that_ended_holds_nobody_up(
    server: RunningServer, bucket: Path, client: httpx.Client, tmp_path: Path
) -> None:
    put(client, "f", b"1")
    with mounted(server.url, tmp_path, name="ended") as other:
        assert (other.path / bucket.name / "f").read_bytes() == b"1"
        other.unmount()
        began = time.monotonic()
        put(client, "f", b"2")
        assert time.monotonic() - began < LEASE_SECONDS / 2


def test_the_writer_of_a_mount_does_not_wait_for_its_own_leases(bucket: Path) -> None:
    path = bucket / "f"
    slowest = 0.0
    for number in range(20):
        began = time.monotonic()
        path.write_bytes(b"%d" % number)
        slowest = max(slowest, time.monotonic() - began)
        assert path.read_bytes() == b"%d" % number
    assert slowest < LEASE_SECONDS / 2


def test_two_mounts_that_change_what_the_other_has_leased_do_not_wait_for_each_other(
    bucket: Path, elsewhere: Path
) -> None:
    """More changes on their way than there are connections: each still confirms the other's."""
    sides = (bucket, elsewhere)
    for number in range(40):
        (bucket / f"{number}").write_bytes(b"0")
    for side in sides:
        for number in range(40):
            assert (side / f"{number}").read_bytes() == b"0"

    def change(number: int) -> None:
        os.chmod(sides[number % 2] / f"{number}", 0o600)

    began = time.monotonic()
    barrier = threading.Barrier(40)
    with ThreadPoolExecutor(40) as threads:

        def at_once(number: int) -> None:
            barrier.wait()
            change(number)

        for each in [threads.submit(at_once, number) for number in range(40)]:
            each.result()
    assert time.monotonic() - began < LEASE_SECONDS / 2


def test_after_a_kill_of_the_server_a_lease_is_still_worth_what_it_says(
    server: RunningServer, mount: MountedFilesystem, bucket: Path, client: httpx.Client
) -> None:
    path = bucket / "f"
    path.write_bytes(b"1")
    assert path.read_bytes() == b"1"
    server.kill()
    server.start()
    put(client, "f", b"2")
    assert path.read_bytes() == b"2"
    assert mount.process is not None
    assert mount.process.poll() is None

"""One request in ten fails, at random, while several threads work: all that they did is right.

Each call is tried again by the mount until it succeeds, so a program must not see anything of it.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.fakes.proxy import (
    AnswerStatus,
    Corrupt,
    DropAnswer,
    Duplicate,
    Fault,
    FaultProxy,
    Refuse,
    Reset,
    Truncate,
)
from tests.fault.between import server_behind_proxy
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

WORKERS = 3
STEPS = 40
SIZES = (0, 1, 5000, 100_000, 1 << 20, 3 << 20, 12 << 20)
FAULTS: tuple[Fault, ...] = (
    AnswerStatus(500),
    AnswerStatus(502, body=b"<html>bad gateway</html>"),
    AnswerStatus(503, (("Retry-After", "0"),)),
    AnswerStatus(504),
    AnswerStatus(429, (("Retry-After", "1"),)),
    Reset(),
    Reset(after=300),
    Reset(after=10_000, request=True),
    Truncate(after=150),
    Truncate(after=5000),
    DropAnswer(),
    Refuse(),
)
# A DELETE or MOVE that the network sends twice is answered 404 the second time, and that is ENOENT.
ONLY_FOR: dict[str, tuple[Fault, ...]] = {
    "GET": (Corrupt(position=50), Duplicate()),
    "PUT": (Duplicate(),),
    "POST": (Duplicate(),),
}


class Chance:
    """Every tenth request or so meets one of the faults. Called with the proxy's lock held."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.met: list[tuple[str, str]] = []

    def __call__(self, method: str, target: str) -> Fault | None:
        if "changes=1" in target or self._random.random() >= 0.1:
            return None
        kinds = [*FAULTS, *ONLY_FOR.get(method, ())]
        fault = self._random.choice(kinds)
        self.met.append((method, repr(fault)))
        return fault


class Worker(threading.Thread):
    """Does steps in a directory of its own and knows what must be there."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__()
        self._folder = folder
        self._random = random.Random(seed)
        self.expected: dict[str, bytes] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._folder.mkdir()
            for step in range(STEPS):
                self._step(step)
        except BaseException as error:
            self.error = error

    def _step(self, step: int) -> None:
        names = sorted(self.expected)
        act = self._random.choice(("write", "write", "read", "rename", "unlink", "list", "append"))
        if act == "write" or not names:
            self._write(self._random.choice([*names, f"n{step}", f"n{step}"]))
            return
        name = self._random.choice(names)
        path = self._folder / name
        if act == "read":
            assert path.read_bytes() == self.expected[name], f"{name} is wrong"
        elif act == "rename":
            path.rename(self._folder / f"r{step}")
            self.expected[f"r{step}"] = self.expected.pop(name)
        elif act == "unlink":
            path.unlink()
            del self.expected[name]
        elif act == "append":
            with path.open("ab") as file:
                file.write(b"more")
            self.expected[name] += b"more"
        else:
            assert sorted(each.name for each in self._folder.iterdir()) == names

    def _write(self, name: str) -> None:
        data = self._random.randbytes(self._random.choice(SIZES))
        (self._folder / name).write_bytes(data)
        self.expected[name] = data


class Place:
    def __init__(self, server: RunningServer, proxy: FaultProxy, mount: MountedFilesystem) -> None:
        self.server, self.proxy, self.mount = server, proxy, mount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with (
        server_behind_proxy(tmp_path / "data") as (server, proxy),
        mounted(proxy.url, tmp_path, "timeout=30", "cache_size=4M") as mount,
    ):
        (mount.path / "tenth").mkdir()
        yield Place(server, proxy, mount)


@pytest.mark.timeout(120)
def test_a_program_sees_nothing_of_it(place: Place) -> None:
    seed = 11
    chance = place.proxy.chance = Chance(seed)
    bucket = place.mount.path / "tenth"
    workers = [Worker(bucket / f"w{number}", seed + number) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.error for worker in workers] == [None] * WORKERS
    assert len(chance.met) > 20, "too little went wrong to show anything"
    place.proxy.chance = lambda method, target: None
    expected = {
        f"w{number}/{name}": data
        for number, worker in enumerate(workers)
        for name, data in worker.expected.items()
    }
    _compare_with_server(place.server, expected)
    assert _left_on_server(place.server) == []
    log = place.mount.log.read_text()
    assert "conflict" not in log
    assert "unexpected" not in log


def _compare_with_server(server: RunningServer, expected: dict[str, bytes]) -> None:
    with httpx.Client(base_url=f"{server.url}/v1", timeout=30) as client:
        listed = [entry["key"] for entry in client.get("/files/tenth").json()["data"]]
        assert listed == sorted(expected)
        for key, data in expected.items():
            assert client.get(f"/files/tenth/{quote(key)}?alt=media").content == data, key


def _left_on_server(server: RunningServer) -> list[str]:
    """Open sessions and files of uploads, once what is under way has ended."""
    deadline = time.monotonic() + 10
    left = ["not looked"]
    while left and time.monotonic() < deadline:
        with closing(sqlite3.connect(server.data_dir / "catalog.sqlite")) as catalog:
            rows = catalog.execute("SELECT request FROM sessions WHERE state = 0").fetchall()
        left = [row[0] for row in rows]
        left += [each.name for each in (server.data_dir / "uploads").iterdir()]
        time.sleep(0.1)
    return left

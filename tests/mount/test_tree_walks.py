"""Programs that walk through trees, by a mount that knows nothing of these yet: how many requests
it makes, and that it never shows what it was told is over.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, product
from pathlib import Path

import httpx
import pytest

from tests.fakes.proxy import FaultProxy
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import running_server

FEED_SECONDS = 0.1  # after a change's answer, when its event has come; four times that is waited
TREES = {
    "wide": [f"d{number:03}" for number in range(300)],
    "cube": ["/".join(f"c{digit}" for digit in path) for path in product(range(6), repeat=3)],
    "chain": ["/".join(["e"] * depth) for depth in range(1, 41)],
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    folder, proxy = tmp_path_factory.mktemp("walks"), FaultProxy("", 0)
    with running_server(folder / "data", public_url=proxy.url) as server:
        keys = [f"{tree}/{each}/f{n}" for tree in TREES for each in TREES[tree] for n in range(3)]
        with client_of(server.url) as client, ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda key: put(client, key), keys):
                answer.raise_for_status()
        with proxy.forward(server.url):
            yield proxy


@pytest.fixture
def cold(proxy: FaultProxy, tmp_path: Path) -> Iterator[MountedFilesystem]:
    with mounted(proxy.url, tmp_path, "allow_other") as mount:
        yield mount


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=f"{url}/v1/files", timeout=20, trust_env=False)


def put(client: httpx.Client, key: str) -> httpx.Response:
    return client.put(f"/{key}?alt=media", content=b"x")


def asked(proxy: FaultProxy) -> list[str]:
    targets = [target for _, target in proxy.requests if "changes=" not in target]
    proxy.requests.clear()
    return targets


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("command", [["find", "."], ["ls", "-lR"], ["du", "-a"]])
def test_a_walk_makes_a_fifth_of_the_requests(
    proxy: FaultProxy, cold: MountedFilesystem, tree: str, command: list[str]
) -> None:
    os.listdir(cold.path)
    asked(proxy)
    done = subprocess.run(
        command, cwd=cold.path / tree, capture_output=True, text=True, check=True, timeout=60
    )
    paths = [each.split("/") for each in TREES[tree]]
    directories = {above for path in paths for above in accumulate(path, "{}/{}".format)}
    assert len(asked(proxy)) < len(directories) / 5
    files = len(TREES[tree]) * 3
    assert sum(" f" in line or "/f" in line for line in done.stdout.splitlines()) == files
    subprocess.run(command, cwd=cold.path / tree, capture_output=True, check=True, timeout=60)
    assert asked(proxy) == []


def test_one_directory_is_one_request(proxy: FaultProxy, cold: MountedFilesystem) -> None:
    """And the first one below it another, with nothing that nobody asked for."""
    os.listdir(cold.path)
    asked(proxy)
    assert len(os.listdir(cold.path / "wide")) == 300
    assert len(os.listdir(cold.path / "wide/d007")) == 3
    assert len(asked(proxy)) == 2


def shown(path: Path) -> set[str]:
    """All below, as a walk finds it."""
    found = set()
    for folder, directories, files in os.walk(path):
        here = os.path.relpath(folder, path)
        found |= {os.path.normpath(f"{here}/{name}") for name in (*directories, *files)}
    return found


def there(client: httpx.Client, bucket: str) -> set[str]:
    keys = [entry["key"] for entry in client.get(f"/{bucket}").json()["data"]]
    parts = [key.split("/") for key in keys]
    return {"/".join(each[:depth]) for each in parts for depth in range(1, len(each) + 1)}


def change(client: httpx.Client, chance: random.Random, bucket: str) -> None:
    """What a plain client does: directories come and go with what is in them."""
    keys = [entry["key"] for entry in client.get(f"/{bucket}").json()["data"]]
    key, new = chance.choice(keys), "/".join(chance.choices("abcd", k=chance.randint(2, 5)))
    match chance.randrange(4):
        case 0 | 1:
            put(client, f"{bucket}/{new}/f{chance.randrange(9)}")
        case 2:
            client.delete(f"/{bucket}/{key}")
        case _:
            source, target = key.rpartition("/")[0] or key, f"{new}/m{chance.randrange(9)}"
            to = f"/v1/files/{bucket}/{target}"
            client.request("MOVE", f"/{bucket}/{source}", headers={"Destination": to})


@pytest.mark.parametrize("seed", range(2))
def test_a_walk_shows_what_others_have_changed(
    proxy: FaultProxy, cold: MountedFilesystem, seed: int
) -> None:
    """They change it before, after and during walks; when they rest, a walk shows all of it, and
    what it shows of one directory is not older than what was told of it.
    """
    chance, bucket, stop = random.Random(seed), f"busy{seed}", threading.Event()
    with client_of(proxy.url) as client:
        for one in "abcd":
            for two in "abcd":
                for three in "abcd":
                    put(client, f"{bucket}/{one}/{two}/{three}/f").raise_for_status()

        def walk_on() -> None:
            while not stop.is_set():
                shown(cold.path / bucket)

        with ThreadPoolExecutor(2) as pool:
            for _ in range(6):
                stop.clear()
                walking = [pool.submit(walk_on) for _ in range(2)]
                for _ in range(chance.randrange(12)):
                    change(client, chance, bucket)
                time.sleep(FEED_SECONDS * 4)
                assert shown(cold.path / bucket) == there(client, bucket)
                stop.set()
                for each in walking:
                    each.result(timeout=30)
                cold.remount()  # so that the next walk knows nothing

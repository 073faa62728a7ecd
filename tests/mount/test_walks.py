"""Walks through many small files, as cat, grep, tar and cp make them: few requests, as strict."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.mount.mounting import mounted

if TYPE_CHECKING:
    from tests.server.running import RunningServer

DIRECTORIES, FILES = 6, 60


def requests(server: RunningServer) -> int:
    """How many the server has answered, but for those that ask how many."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).raise_for_status().text
    counted = re.findall(r'^files_server_requests_total\{operation="(\w+)".*\} (\S+)', text, re.M)
    return sum(int(float(number)) for operation, number in counted if operation != "metrics")


def name_of(number: int) -> str:
    return f"d{number % DIRECTORIES}/f{number // DIRECTORIES:02}"


def content_of(number: int) -> bytes:
    return b"%d:" % number * (1 + 13 * number % 1500)


@pytest.fixture
def client(server: RunningServer, bucket: Path) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/v1/files/{bucket.name}", trust_env=False) as client:
        yield client


@pytest.fixture
def tree(bucket: Path, client: httpx.Client) -> Path:
    """A bucket with files that this mount has not seen."""
    for number in range(DIRECTORIES * FILES):
        path = f"/{name_of(number)}?alt=media"
        client.put(path, content=content_of(number)).raise_for_status()
    return bucket


@pytest.mark.parametrize(
    "command",
    [
        "cat d*/*", "grep -r nothing-of-the-kind .", "tar cf - . | cat", "cp -r . {copy}",
        "find . -type f | xargs cat", "for d in d*; do ls -f $d | sed s,^,$d/, ; done"
        " | grep f | xargs cat",
    ],
)  # fmt: skip
def test_a_walk_costs_a_request_for_many_files(
    server: RunningServer, tree: Path, tmp_path: Path, command: str
) -> None:
    copy = tmp_path / "copy"
    before = requests(server)
    subprocess.run(command.format(copy=copy), shell=True, cwd=tree, stdout=subprocess.DEVNULL)
    assert requests(server) - before < DIRECTORIES * (FILES // 5)
    for number in range(DIRECTORIES * FILES):
        name = name_of(number)
        assert (tree / name).read_bytes() == content_of(number)
        if copy.exists():
            assert (copy / name).read_bytes() == content_of(number)


def test_files_whose_names_are_numbered_are_walked_in_that_order(
    server: RunningServer, bucket: Path, client: httpx.Client
) -> None:
    for number in range(200):
        client.put(f"/small-{number}?alt=media", content=bytes(4096)).raise_for_status()
    before = requests(server)
    for number in range(200):
        assert (bucket / f"small-{number}").read_bytes() == bytes(4096)
    assert requests(server) - before < 50


def test_single_files_of_directories_cost_what_they_did(server: RunningServer, tree: Path) -> None:
    for number in range(DIRECTORIES):
        list((tree / f"d{number}").iterdir())
    before = requests(server)
    for number in range(0, DIRECTORIES * FILES, 3 * DIRECTORIES + 1):
        assert (tree / name_of(number)).read_bytes() == content_of(number)
    count = len(range(0, DIRECTORIES * FILES, 3 * DIRECTORIES + 1))
    assert requests(server) - before <= count + 2


def test_no_file_of_a_walk_is_older_than_what_was_written_before_its_open(
    tree: Path, client: httpx.Client, elsewhere: Path
) -> None:
    """Through the API, and another mount, files are written, replaced, and removed and made anew,
    while walks go on.
    """
    count = DIRECTORIES * FILES
    written = [0] * count  # how often, by the writers' last word
    for number in range(count):
        client.put(f"/{name_of(number)}?alt=media", content=b"0").raise_for_status()
    over, begun = threading.Event(), threading.Barrier(5)

    def write(part: int) -> int:
        rounds = 0
        begun.wait()
        while not over.is_set():
            number = rounds * 7 % (count // 3) * 3 + part  # each file has one writer
            text = b"%d" % (written[number] + 1)
            name = name_of(number)
            if part == 0:
                client.put(f"/{name}?alt=media", content=text).raise_for_status()
            elif part == 1:
                (elsewhere / name).write_bytes(text)
            else:
                (elsewhere / f"{name}.new").write_bytes(text)
                (elsewhere / f"{name}.new").rename(elsewhere / name)
            written[number] += 1
            rounds += 1
            time.sleep(0.002)
        return rounds

    def walk(offset: int) -> int:
        seen = 0
        begun.wait()
        while not over.is_set():
            for directory in range(DIRECTORIES):
                folder = tree / f"d{(directory + offset) % DIRECTORIES}"
                for path in sorted(folder.glob("f??")):
                    index = int(path.name[1:]) * DIRECTORIES + int(folder.name[1:])
                    least = written[index]
                    found = int(path.read_bytes() or b"-1")
                    if found >= 0 or index % 3 != 1:  # between truncation and the new content
                        assert found >= least, path
                    seen += 1
        return seen

    with ThreadPoolExecutor(5) as threads:
        tasks = [threads.submit(write, part) for part in range(3)]
        tasks += [threads.submit(walk, offset) for offset in (0, 3)]
        time.sleep(8)
        over.set()
        writes, seen = sum(t.result() for t in tasks[:3]), sum(t.result() for t in tasks[3:])
    assert writes > 100
    assert seen > 500


def test_a_walk_ends_with_the_mount(server: RunningServer, tree: Path, tmp_path: Path) -> None:
    """What is on its way holds nobody up."""
    with mounted(server.url, tmp_path, name="short") as other:
        folder = other.path / tree.name / "d0"
        for path in sorted(folder.iterdir())[:3]:
            path.read_bytes()
        began = time.monotonic()
        other.unmount()
        assert time.monotonic() - began < 5

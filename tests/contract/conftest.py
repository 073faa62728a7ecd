"""The backends that the contract is held against: in memory, a plain server, our own server."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.protocol import FilesBackend
from filesfs.backend.settings import BackendSettings
from tests.fakes.memory_backend import MemoryBackend
from tests.fakes.plain_server import PlainServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our own server, as a process, for the whole session."""
    folder: Path = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "files_server.serve", "--listen", "127.0.0.1:0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), (folder / "log").read_text()
        yield line.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def plain_server() -> Iterator[PlainServer]:
    with PlainServer() as server:
        yield server


@pytest.fixture
def bucket() -> str:
    """A name that no other test uses."""
    return f"b{next(_numbers)}"


@pytest.fixture(params=["memory", "plain", "server"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def backend(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[FilesBackend]:
    """Each of the three."""
    if kind == "memory":
        yield MemoryBackend()
        return
    if kind == "plain":
        url = request.getfixturevalue("plain_server").url
    else:
        url = request.getfixturevalue("server_url")
    http = await connect_backend(BackendSettings(base_url=url, timeout=10))
    try:
        yield http
    finally:
        await http.aclose()


@pytest.fixture
async def rich(server_url: str) -> AsyncIterator[HttpBackend]:
    """Our own server alone."""
    http = await connect_backend(BackendSettings(base_url=server_url, timeout=10))
    try:
        yield http
    finally:
        await http.aclose()

"""Clients that are slow, or too many: nobody else waits for them, and they do not stay for ever."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.running import RunningServer, running_server

SIZE = 24 << 20  # more than all buffers between a server and a client who does not read
SLOW = 12
LIMITS = {"header_seconds": 2, "body_idle_seconds": 2, "send_idle_seconds": 2}
END_SECONDS = 30.0  # until they must be gone, on a busy machine

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("slow") / "data", **LIMITS) as server:
        put = httpx.put(f"{server.url}/v1/files/slow/large?alt=media", content=os.urandom(SIZE))
        put.raise_for_status()
        yield server


def connections(server: RunningServer) -> int:
    """Sockets that the server's process has open."""
    found = 0
    for each in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(each).startswith("socket:")
    return found


@contextlib.contextmanager
def clients(server: RunningServer, sent: bytes, buffer: int = 0) -> Iterator[list[socket.socket]]:
    """Many that send the same and then do nothing by themselves."""
    address = (server.url.rpartition("/")[2].partition(":")[0], int(server.url.rpartition(":")[2]))
    opened = []
    try:
        for _ in range(SLOW):
            client = socket.socket()
            if buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            client.connect(address)
            client.sendall(sent)
            opened.append(client)
        yield opened
    finally:
        for client in opened:
            client.close()


def others_are_served(server: RunningServer) -> None:
    with httpx.Client(base_url=f"{server.url}/v1", timeout=20) as client:
        assert client.get("/files/slow").status_code == 200
        assert len(client.get("/files/slow/large?alt=media").content) == SIZE
        client.put("/files/slow/new?alt=media", content=b"new").raise_for_status()


def wait_until_gone(server: RunningServer, before: int, meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while connections(server) > before + 2:  # what httpx keeps alive is not counted exactly
        assert time.monotonic() < deadline, f"{connections(server)} sockets, {before} before"
        meanwhile()
        time.sleep(0.2)


@pytest.mark.parametrize("part", ["whole", "range"])
def test_who_takes_nothing_of_an_answer_is_cut_off(server: RunningServer, part: str) -> None:
    """A byte now and then is no more than nothing."""
    before = connections(server)
    extra = f"Range: bytes=1-{SIZE - 2}\r\n" if part == "range" else ""
    request = f"GET /v1/files/slow/large?alt=media HTTP/1.1\r\nHost: x\r\n{extra}\r\n"
    with clients(server, request.encode(), buffer=4096) as opened:

        def drip() -> None:
            for client in opened:
                with contextlib.suppress(OSError):
                    client.recv(1)

        drip()
        others_are_served(server)
        wait_until_gone(server, before, drip)


def test_who_does_not_finish_a_header_is_cut_off(server: RunningServer) -> None:
    before = connections(server)
    with clients(server, b"GET /v1/files HTTP/1.1\r\nHost:") as opened:
        others_are_served(server)

        def drip() -> None:
            for client in opened:
                with contextlib.suppress(OSError):
                    client.send(b"x")

        wait_until_gone(server, before, drip)


def test_who_does_not_go_on_with_a_body_is_cut_off(server: RunningServer) -> None:
    before = connections(server)
    head = (
        b"PUT /v1/files/slow/never?alt=media HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    with clients(server, head + b"x" * 1000):
        others_are_served(server)
        wait_until_gone(server, before, lambda: None)
    assert httpx.get(f"{server.url}/v1/files/slow/never").status_code == 404
    assert list((server.data_dir / "uploads").iterdir()) == []


def test_too_many_connections_wait_their_turn(tmp_path: Path) -> None:
    """Beyond `max_connections` they are served once one of the first has gone."""
    with running_server(tmp_path / "data", max_connections=2) as server:
        with contextlib.ExitStack() as first:
            held = [first.enter_context(httpx.Client(base_url=server.url)) for _ in range(2)]
            for client in held:
                assert client.get("/healthz").status_code == 200
            with pytest.raises(httpx.TimeoutException):
                httpx.get(f"{server.url}/healthz", timeout=1)
        assert httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200


def test_too_many_sessions_are_429(tmp_path: Path) -> None:
    """Until one of them is given up."""
    with running_server(tmp_path / "data", max_sessions=2) as server:
        body = {"bucket": "b", "mime_type": "text/plain", "size": 1}
        with httpx.Client(base_url=f"{server.url}/v1") as client:
            opened = [client.post("/files", json={**body, "key": str(n)}) for n in range(3)]
            assert [answer.status_code for answer in opened] == [200, 200, 429]
            assert "Retry-After" in opened[2].headers
            client.delete(opened[0].json()["url"]).raise_for_status()
            assert client.post("/files", json={**body, "key": "again"}).status_code == 200


def resident_mib(server: RunningServer) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10


def test_ranges_that_nobody_takes_hold_no_memory(tmp_path: Path) -> None:
    """12 MiB each that are no whole blocks: the server checks them before their header."""
    with running_server(tmp_path / "data") as server:
        put = httpx.put(f"{server.url}/v1/files/slow/large?alt=media", content=os.urandom(SIZE))
        put.raise_for_status()
        asked = b"GET /v1/files/slow/large?alt=media HTTP/1.1\r\nHost: x\r\nRange: bytes=5-12582912"
        before = resident_mib(server)
        with clients(server, asked + b"\r\n\r\n", buffer=4096) as waiting:
            for client in waiting:
                assert client.recv(4096).startswith(b"HTTP/1.1 206")
            assert resident_mib(server) - before < 48

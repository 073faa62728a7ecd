"""What the HTTP front allows a client in time and number, and its sockets: TCP, TLS, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from files_server.front.sending import Sender
from tests.server.fronting import GET, Client, Echo, serving
from tests.server.running import RunningServer, running_server

MIB = 1 << 20
GET_LARGE = b"GET /v1/files/b/large?alt=media HTTP/1.1\r\nHost: x\r\n"
PUT = b"PUT /v1/files/b/large?alt=media HTTP/1.1\r\nHost: x\r\n"


def test_a_head_that_takes_too_long_is_told_so(tmp_path: Path) -> None:
    """However it drips. One who has not begun is not told anything."""
    with serving(Echo(), tmp_path, header_seconds=1.0) as served:
        begun = time.monotonic()
        with served.client() as slow, served.client() as silent, served.client() as blank:
            for byte in GET[:-1]:
                with contextlib.suppress(OSError):
                    slow.send(bytes([byte]))
                    blank.send(b"\r\n")
                time.sleep(0.1)
            assert slow.answer()[0] == 408
            assert silent.rest() == b""
            assert blank.rest() == b""
        assert time.monotonic() - begun < 5
        served.wait_for_connections(0)


def test_time_between_requests_is_not_a_head_s(tmp_path: Path) -> None:
    with serving(Echo(), tmp_path, header_seconds=2.0) as served, served.client() as client:
        time.sleep(1.2)
        client.send(GET[:5])
        time.sleep(1.2)
        client.send(GET[5:])
        assert client.answer()[0] == 200
        time.sleep(0.8)
        client.send(GET)
        assert client.answer()[0] == 200


def test_further_connections_wait_for_one_of_the_first_to_go(tmp_path: Path) -> None:
    with serving(Echo(), tmp_path, most=3) as served:
        first = [served.client() for _ in range(3)]
        later = served.client()
        later.send(GET)
        for client in first:
            client.send(GET)
            assert client.answer()[0] == 200
        later.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            later.answer()
        later.socket.settimeout(20)
        first[0].socket.close()
        assert later.answer()[0] == 200
        assert served.connections() == 3
        for client in (*first, later):
            client.socket.close()


def test_without_descriptors_it_waits_until_there_are_some(tmp_path: Path) -> None:
    with serving(Echo(), tmp_path) as served:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        connection = socket.socket(socket.AF_UNIX)
        resource.setrlimit(resource.RLIMIT_NOFILE, (connection.fileno() + 1, hard))
        try:
            connection.settimeout(10)
            connection.connect(str(served.path))
            client = Client(connection)
            client.send(GET)
            time.sleep(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with client:
            assert client.answer()[0] == 200


def test_who_takes_a_little_all_the_time_costs_no_thread(tmp_path: Path) -> None:
    """8 such clients had all threads, for as long as 64 MiB took each."""
    path, stop = tmp_path / "data", threading.Event()
    path.write_bytes(bytes(16 * MIB))

    def dripping(takers: list[socket.socket]) -> None:
        while not stop.wait(0.005):
            for taker in takers:
                with contextlib.suppress(BlockingIOError):
                    taker.recv(64 << 10)

    async def main() -> float:
        sender, loop = Sender(20.0), asyncio.get_running_loop()
        with path.open("rb") as file, contextlib.ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(9)]
            for one in (socket for pair in pairs for socket in pair):
                stack.enter_context(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
                one.setblocking(False)
            slow = [
                asyncio.create_task(sender.send(pair[0], b"", file.fileno(), 0, 16 * MIB))
                for pair in pairs[1:]
            ]
            taking = threading.Thread(target=dripping, args=([pair[1] for pair in pairs[1:]],))
            taking.start()
            try:
                await asyncio.sleep(0.5)
                begun = loop.time()
                await sender.send(pairs[0][0], b"", file.fileno(), 0, 16 << 10)
                return loop.time() - begun
            finally:
                for task in slow:
                    task.cancel()
                await asyncio.wait(slow)
                stop.set()
                taking.join()
                sender.close()

    assert asyncio.run(main()) < 0.3


def _request(server: RunningServer, sent: bytes, context: ssl.SSLContext | None) -> Client:
    host, _, port = server.url.partition("//")[2].rpartition(":")
    connection = socket.create_connection((host, int(port)), 20)
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname="localhost")
    client = Client(connection)
    client.send(sent)
    return client


@contextlib.contextmanager
def _server(folder: Path, *, tls: bool) -> Iterator[tuple[RunningServer, ssl.SSLContext | None]]:
    if not tls:
        with running_server(folder / "data") as running:
            yield running, None
        return
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    made = [*command, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    with running_server(folder / "data", tls_cert=certificate, tls_key=key) as running:
        yield running, ssl.create_default_context(cafile=str(certificate))


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("tls", [False, True])
def test_large_content_needs_no_memory(tmp_path: Path, tls: bool) -> None:
    """Up in chunks and by length, down whole and in part, for a client that does not take it at
    first."""
    with _server(tmp_path, tls=tls) as (running, context):
        before = _resident(running.pid)
        piece, count = os.urandom(MIB), 192
        whole = hashlib.sha256(piece * count).digest()
        with _request(running, PUT + b"Content-Length: %d\r\n\r\n" % (count * MIB), context) as up:
            for _ in range(count):
                up.send(piece)
            assert up.answer()[0] == 200
        with _request(running, PUT + b"Transfer-Encoding: chunked\r\n\r\n", context) as up:
            for _ in range(count):
                up.send(b"%x\r\n%b\r\n" % (MIB, piece))
            up.send(b"0\r\n\r\n")
            assert up.answer()[0] == 200
        for part in (b"", b"Range: bytes=1-%d\r\n" % (count * MIB - 2), b""):
            with _request(running, GET_LARGE + part + b"\r\n", context) as down:
                time.sleep(0.5)
                assert down.head()[0] == (206 if part else 200)
                ends = (piece[:1], piece[-1:]) if part else (b"", b"")
                size = count * MIB - len(b"".join(ends))
                assert _digest(down, size, *ends) == whole
        assert _resident(running.pid) - before < 70 * MIB


def _digest(client: Client, left: int, before: bytes, behind: bytes) -> bytes:
    found = hashlib.sha256(before)
    while left:
        data = client.take(min(MIB, left))
        left -= len(data)
        found.update(data)
    found.update(behind)
    return found.digest()


def test_stopping_with_clients_that_do_nothing(tmp_path: Path) -> None:
    with _server(tmp_path, tls=True) as (running, context):
        size = 24 * MIB
        with _request(running, PUT + b"Content-Length: %d\r\n\r\n" % size, context) as up:
            up.send(bytes(size))
            assert up.answer()[0] == 200
        with (
            _request(running, GET_LARGE + b"\r\n", context) as stuck,
            _request(running, b"GET", context),
        ):
            stuck.head()
            assert running.stop() == 0

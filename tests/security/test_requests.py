"""Hostile requests over raw sockets: traversal, broken escapes, header injection, another Host."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.running import RunningServer, running_server

SECRET = b"outside of the data folder"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder: Path = tmp_path_factory.mktemp("requests")
    (folder / "secret").write_bytes(SECRET)
    with running_server(folder / "data") as running:
        httpx.put(f"{running.url}/v1/files/b/k?alt=media", content=b"x").raise_for_status()
        yield running


def _raw(server: RunningServer, request: bytes) -> tuple[int, bytes, bytes]:
    host, _, port = server.url.partition("//")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, body


def _request(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


PATHS = [
    "/v1/files/b/../../secret",
    "/v1/files/b/%2e%2e/%2e%2e/secret",
    "/v1/files/b/..%2f..%2fsecret",
    "/v1/files/b/%252e%252e/secret",
    "/v1/files/../secret",
    "/v1/files/%2e%2e/secret",
    "/v1/../secret",
    "/files/b//etc/passwd",
    "/files/b/%2Fetc%2Fpasswd",
    "/files/b/k%00.txt",
    "/files/b%00/k",
    "/files/b/./k",
    "/files/b/k%0d%0aX-Injected:%201",
    "/files/b/%ff%fe",
    "/files/b/%zz",
    "/files/b/" + "a" * 20_000,
    "/files/b/" + "a/" * 9_000 + "a",
    "/files/" + "b" * 300 + "/k",
    "/files/session:../../secret",
    "/files/session:%2e%2e%2fsecret",
    "/files/session:abc/x",
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_no_path_leads_out(server: RunningServer, method: str, path: str) -> None:
    for query in ("", "?alt=media"):
        status, head, body = _raw(server, _request(method, path + query, "Content-Length: 0"))
        assert status in (400, 404, 405, 414, 431), (status, body)
        assert SECRET not in body
        assert b"x-injected" not in head.lower()
        if body and status != 414:
            assert json.loads(body)["status"] == status
    assert (server.data_dir.parent / "secret").read_bytes() == SECRET


def test_urls_never_come_from_the_host_header(server: RunningServer) -> None:
    _, _, body = _raw(
        server,
        b"GET /v1/files/b/k HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: evil.test\r\n"
        b"Connection: close\r\n\r\n",
    )
    assert json.loads(body)["url"].startswith(server.url)


def test_a_content_type_cannot_inject_a_header(server: RunningServer) -> None:
    body = {"bucket": "b", "key": "t", "mime_type": "text/x\r\nX-Injected: 1", "size": 0}
    assert httpx.post(f"{server.url}/v1/files", json=body).status_code == 400
    body["mime_type"] = "töxt; \u2028<script>"
    session = httpx.post(f"{server.url}/v1/files", json=body).json()
    httpx.post(session["url"]).raise_for_status()
    answer = httpx.get(f"{server.url}/v1/files/b/t?alt=media")
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_oversized_json_is_413(server: RunningServer) -> None:
    body = b'{"bucket": "' + b"b" * (1 << 20) + b'"}'
    answer = httpx.post(f"{server.url}/v1/files", content=body)
    assert (answer.status_code, answer.json()["status"]) == (413, 413)
    chunked = httpx.post(f"{server.url}/v1/files", content=iter([body]))
    assert (chunked.status_code, chunked.json()["status"]) == (413, 413)


def test_two_lengths_or_a_broken_request_line_are_refused(server: RunningServer) -> None:
    smuggled = _request("POST", "/v1/files", "Content-Length: 0", "Content-Length: 5")
    assert _raw(server, smuggled + b"GET /")[0] == 400
    both = _request("POST", "/v1/files", "Content-Length: 5", "Transfer-Encoding: chunked")
    assert _raw(server, both + b"0\r\n\r\n")[0] == 400
    assert _raw(server, b"GET /a b c HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 400


def test_the_log_tells_of_each_request_and_no_query(server: RunningServer) -> None:
    httpx.get(f"{server.url}/v1/files/b/k?alt=media&signature=s3cret")
    httpx.get(f"{server.url}/v1/files/b/k", headers={"Authorization": "Bearer s3cret"})
    httpx.get(f"{server.url}/v1/files/b/last")
    log = _log_with(server, "/b/last")
    assert "s3cret" not in log
    assert log.count('"path": "/v1/files/b/k"') >= 2
    for line in log.splitlines():
        json.loads(line)


def _log_with(server: RunningServer, text: str) -> str:
    """The log, once it has `text`: lines are written a moment after their answer."""
    deadline = time.monotonic() + 10
    while text not in (log := server.log()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return log

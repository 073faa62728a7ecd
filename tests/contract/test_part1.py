"""Part 1 of the contract where clients differ most: raw paths, broken bodies, repeats, races."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest


@pytest.fixture
def client(server_url: str) -> Iterator[httpx.Client]:
    """Our own server."""
    with httpx.Client(base_url=server_url, timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture(params=["plain", "server"])
def either(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """The plain server, then ours."""
    kind = "plain_server" if request.param == "plain" else "server_url"
    found = request.getfixturevalue(kind)
    url = found if isinstance(found, str) else found.url
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        yield client


def connect(client: httpx.Client) -> socket.socket:
    address = urlsplit(str(client.base_url))
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


def head(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: evil.example", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_of(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON of the answer, once the server has closed."""
    data = b""
    while chunk := connection.recv(65_536):
        data += chunk
    data = data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = data.partition(b"\r\n\r\n")[2]
    return int(data.split(b" ", 2)[1]), json.loads(body)


def raw(client: httpx.Client, method: str, path: str, *headers: str) -> tuple[int, Any]:
    with connect(client) as connection:
        connection.sendall(head(method, path, *headers))
        return answer_of(connection)


def begin(client: httpx.Client, bucket: str, size: int, key: str = "k") -> str:
    body = {"bucket": bucket, "key": key, "mime_type": "text/plain", "size": size}
    answer = client.post("/v1/files", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


def offset(client: httpx.Client, url: str) -> int:
    return int(client.get(url).json()["offset"])


# -- routing --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/files/session:abc/x", 404), ("GET", "/files/session%3Aabc/x", 404),
        ("GET", "/v1/files/session:", 404), ("PUT", "/files/session:abc", 405),
        ("PATCH", "/files/session:abc", 405), ("POST", "/files/BUCKET", 405),
        ("PUT", "/files/s3://b", 501), ("PUT", "/files/s3%3A%2F%2Fb", 501),
        ("PUT", "/files/s3%3A%2F%2Fb/k", 501), ("PUT", "/files/a.b", 400),
        ("GET", "/files/BUCKET/", 200), ("GET", "/v1/files/", 200), ("GET", "/files//k", 400),
        ("GET", "/files/BUCKET//k", 400), ("GET", "/files/BUCKET/x/../k", 400),
        ("GET", "/files/BUCKET/%2e%2e", 400), ("GET", "/files/BUCKET/%252e", 400),
        ("GET", "/files/BUCKET/a%2Fb", 400), ("GET", "/files/BUCKET/%6B", 404),
        ("GET", "/v1/v1/files", 404), ("GET", "/v1//files", 404),
    ],
)  # fmt: skip
def test_raw_paths(client: httpx.Client, bucket: str, method: str, path: str, status: int) -> None:
    client.put(f"/v1/files/{bucket}")
    code, body = raw(client, method, path.replace("BUCKET", bucket), "Content-Length: 0")
    assert code == status, body
    if status != 200:
        assert list(body) == ["status", "title", "detail"]
        assert body["status"] == status


def test_an_escaped_prefix_is_the_same_path(client: httpx.Client, bucket: str) -> None:
    client.put(f"/v1/files/{bucket}")
    assert raw(client, "GET", f"/%76%31/%66iles/{bucket}") == (200, {"data": []})
    assert raw(client, "GET", f"/v1/%66iles/{bucket}/k")[0] == 404
    assert raw(client, "GET", "/openapi%2Ejson")[0] == 404


def test_urls_never_come_from_the_host_header(either: httpx.Client, bucket: str) -> None:
    either.post(begin(either, bucket, 1), content=b"x")
    code, body = raw(either, "GET", f"/files/{bucket}/k")
    assert code == 200
    assert body["url"].startswith(str(either.base_url))


@pytest.mark.parametrize("mime_type", ["x\u0085", "x\u007f", "x\n", "y" * 256])
def test_a_mime_type_that_cannot_be(client: httpx.Client, bucket: str, mime_type: str) -> None:
    body = {"bucket": bucket, "key": "k", "mime_type": mime_type, "size": 0}
    assert client.post("/v1/files", json=body).status_code == 400


@pytest.mark.parametrize("mime_type", ["\u00e9 ; x", " text/plain ", "y" * 255])
def test_a_mime_type_is_kept_verbatim(either: httpx.Client, bucket: str, mime_type: str) -> None:
    body = {"bucket": bucket, "key": "k", "mime_type": mime_type, "size": 0}
    done = either.post(either.post("/v1/files", json=body).json()["url"])
    assert done.json()["mime_type"] == mime_type


# -- bodies ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [5, 2_000_000])
def test_of_a_body_that_ends_short_nothing_counts(
    either: httpx.Client, bucket: str, size: int
) -> None:
    url = begin(either, bucket, size)
    with connect(either) as connection:
        length = f"Content-Length: {size}"
        connection.sendall(head("POST", urlsplit(url).path, length) + b"a" * (size - 2))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):  # to the end: the server is done with it
            pass
    assert offset(either, url) == 0
    assert either.post(url, content=b"b" * size).json()["bytes"] == size


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
def test_what_is_too_long_is_refused_unread(
    client: httpx.Client, bucket: str, expect: tuple[str, ...]
) -> None:
    url = begin(client, bucket, 5)
    path = urlsplit(url).path
    assert raw(client, "POST", path, "Content-Length: 60000000", *expect)[0] == 413
    assert offset(client, url) == 0
    client.post(url, content=b"ab")
    code, _ = raw(client, "POST", path, "Content-Length: 5", *expect)  # the whole file again
    assert code == 409
    assert offset(client, url) == 2


def test_a_long_chunked_body_counts_for_nothing(client: httpx.Client, bucket: str) -> None:
    """Longer than what is synced, and recorded, on the way."""
    url = begin(client, bucket, (34 << 20) - 1)
    body = (b"w" * (1 << 20) for _ in range(34))
    assert client.post(url, content=body, headers={"Upload-Offset": "0"}).status_code == 413
    assert offset(client, url) == 0


def test_expect_is_answered_before_the_body(client: httpx.Client, bucket: str) -> None:
    path = urlsplit(begin(client, bucket, 3)).path
    with connect(client) as connection:
        connection.sendall(head("POST", path, "Content-Length: 3", "Expect: 100-continue"))
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert answer_of(connection)[0] == 200


# -- repeats, races -------------------------------------------------------------------------------
def test_what_a_complete_session_answers(client: httpx.Client, bucket: str) -> None:
    url = begin(client, bucket, 5)
    client.post(url, content=b"ab")
    done = client.post(url, content=b"cde").json()
    for data, at in ((b"cde", ""), (b"", ""), (b"cde", "2"), (b"", "5")):
        headers = {"Upload-Offset": at} if at else {}
        assert client.post(url, content=data, headers=headers).json() == done
    for data, at in ((b"xyz", ""), (b"abcde", ""), (b"de", ""), (b"cde", "1"), (b"", "2")):
        headers = {"Upload-Offset": at} if at else {}
        refused = client.post(url, content=data, headers=headers)
        assert (refused.status_code, refused.headers["files-error"]) == (409, "complete")


def test_two_requests_on_one_session(client: httpx.Client, bucket: str) -> None:
    url = begin(client, bucket, 10)
    with connect(client) as older:
        older.sendall(
            head("POST", urlsplit(url).path, "Content-Length: 10", "Upload-Offset: 0",
                 "Expect: 100-continue")
        )  # fmt: skip
        assert b"100 Continue" in older.recv(65_536)  # it is the session's by now
        busy = client.post(url, content=b"x")
        assert (busy.status_code, busy.headers["files-error"]) == (409, "busy")
        taken = client.post(url, content=b"0123456789", headers={"Upload-Offset": "0"})
        assert taken.json()["bytes"] == 10
        assert answer_of(older)[0] == 409


def test_the_last_commit_of_parallel_sessions_wins(either: httpx.Client, bucket: str) -> None:
    one, two = begin(either, bucket, 3), begin(either, bucket, 3)
    either.post(two, content=b"222")
    url = either.post(one, content=b"111").json()["url"]
    assert either.get(url).content == b"111"


def test_the_longest_and_the_deepest_key(client: httpx.Client, bucket: str) -> None:
    longest = "/".join(["a" * 1024] * 15 + ["b" * 1009])
    for key in (longest, "/".join("a" * 500)):
        client.post(begin(client, bucket, 0, key))
        assert client.get(f"/v1/files/{bucket}/{key}").json()["key"] == key
    assert len(longest) == 16_384
    body = {"bucket": bucket, "key": longest + "b", "mime_type": "x", "size": 0}
    assert client.post("/v1/files", json=body).status_code == 400

"""The published API, raw: what any client may send, against the plain server and ours.

These cases know no extension and no code of ours.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

FILE_FIELDS = {"bucket", "key", "mime_type", "url", "bytes", "created_at"}
UPLOAD_FIELDS = {"id", "url", "offset", "size"}


@pytest.fixture(params=["plain", "server"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    if request.param == "plain":
        url = request.getfixturevalue("plain_server").url
    else:
        url = request.getfixturevalue("server_url")
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        yield client


def begin(client: httpx.Client, bucket: str, key: str, size: int) -> Any:
    body = {"bucket": bucket, "key": key, "mime_type": "text/plain", "size": size}
    answer = client.post("/v1/files", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def upload(client: httpx.Client, bucket: str, key: str, data: bytes) -> Any:
    answer = client.post(begin(client, bucket, key, len(data))["url"], content=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["status"] == status
    assert isinstance(body["title"], str)
    assert body["detail"]
    assert isinstance(body["detail"], str)


def raw_status(client: httpx.Client, method: str, path: str) -> int:
    """A request whose path no library has tidied up."""
    parts = urlsplit(str(client.base_url))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_upload_from_beginning_to_end(client: httpx.Client, bucket: str) -> None:
    session = begin(client, bucket, "d/f.txt", 10)
    assert set(session) == UPLOAD_FIELDS
    assert (session["offset"], session["size"]) == (0, 10)
    first = client.post(session["url"], content=b"01234")
    assert (first.status_code, first.json()) == (200, None)
    shown = client.get(f"/v1/files/session:{session['id']}").json()
    assert (shown["offset"], shown["size"]) == (5, 10)
    last = client.post(session["url"], content=b"56789").json()
    assert set(last) == FILE_FIELDS
    assert (last["bucket"], last["key"], last["bytes"]) == (bucket, "d/f.txt", 10)
    assert last["mime_type"] == "text/plain"
    assert client.get(last["url"]).content == b"0123456789"
    assert client.get(f"/v1/files/{bucket}/d/f.txt").json().keys() == FILE_FIELDS


def test_an_empty_file_needs_one_empty_post(client: httpx.Client, bucket: str) -> None:
    session = begin(client, bucket, "empty", 0)
    refused(client.get(f"/v1/files/{bucket}/empty"), 404)
    assert client.post(session["url"], content=b"").json()["bytes"] == 0
    assert client.get(f"/v1/files/{bucket}/empty").json()["bytes"] == 0


def test_after_completion(client: httpx.Client, bucket: str) -> None:
    session = begin(client, bucket, "f", 4)
    client.post(session["url"], content=b"ab")
    complete = client.post(session["url"], content=b"cd").json()
    shown = client.get(session["url"]).json()
    assert shown["offset"] == shown["size"] == 4
    for again in (b"", b"cd"):
        answer = client.post(session["url"], content=again)
        assert answer.status_code == 200
        assert answer.json()["bytes"] == complete["bytes"]
    refused(client.post(session["url"], content=b"xx"), 409)


def test_too_much_is_refused_and_the_session_goes_on(client: httpx.Client, bucket: str) -> None:
    session = begin(client, bucket, "f", 4)
    refused(client.post(session["url"], content=b"abcde"), 413)
    assert client.get(session["url"]).json()["offset"] == 0
    assert client.post(session["url"], content=b"abcd").json()["bytes"] == 4


def test_listings(client: httpx.Client, bucket: str) -> None:
    for key in ("b", "a/z", "a.x", "a/b/c"):
        upload(client, bucket, key, b"1")
    listing = client.get(f"/v1/files/{bucket}").json()
    assert set(listing) == {"data"}
    assert [each["key"] for each in listing["data"]] == ["a.x", "a/b/c", "a/z", "b"]
    assert all(set(each) == FILE_FIELDS for each in listing["data"])
    assert client.get(f"/v1/files/{bucket}/").json().keys() == {"data"}
    names = [each["name"] for each in client.get("/v1/files").json()["data"]]
    assert bucket in names
    assert names == sorted(names)
    assert all(set(each) == {"name"} for each in client.get("/v1/files").json()["data"])


def test_deleting(client: httpx.Client, bucket: str) -> None:
    upload(client, bucket, "f", b"1")
    answer = client.delete(f"/v1/files/{bucket}/f")
    assert (answer.status_code, answer.json()) == (200, None)
    refused(client.delete(f"/v1/files/{bucket}/f"), 404)
    refused(client.get(f"/v1/files/{bucket}/f"), 404)


def test_registering_a_bucket(client: httpx.Client, bucket: str) -> None:
    refused(client.get(f"/v1/files/{bucket}"), 404)
    first = client.put(f"/v1/files/{bucket}").json()
    assert set(first) == {"bucket", "created_at", "status"}
    assert first["bucket"] == bucket
    assert client.put(f"/v1/files/{bucket}").json() == first
    assert client.get(f"/v1/files/{bucket}").json() == {"data": []}


def test_routes_without_the_version(client: httpx.Client, bucket: str) -> None:
    upload(client, bucket, "f", b"1")
    shown = client.get(f"/files/{bucket}/f").json()
    assert (shown["bucket"], shown["key"], shown["bytes"]) == (bucket, "f", 1)
    assert client.get("/files").status_code == 200


def test_replacing(client: httpx.Client, bucket: str) -> None:
    upload(client, bucket, "f", b"old")
    session = begin(client, bucket, "f", 4)
    client.post(session["url"], content=b"ne")
    assert client.get(client.get(f"/v1/files/{bucket}/f").json()["url"]).content == b"old"
    client.post(session["url"], content=b"w!")
    assert client.get(client.get(f"/v1/files/{bucket}/f").json()["url"]).content == b"new!"


def test_a_file_is_no_directory(client: httpx.Client, bucket: str) -> None:
    upload(client, bucket, "a", b"1")
    body = {"bucket": bucket, "key": "a/b", "mime_type": "text/plain", "size": 1}
    refused(client.post("/v1/files", json=body), 409)


def test_an_abandoned_session_leaves_no_bucket(client: httpx.Client, bucket: str) -> None:
    begin(client, bucket, "f", 4)
    refused(client.get(f"/v1/files/{bucket}"), 404)


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": True},
        {"size": "1"},
        {"size": None},
        {"size": 1.5},
        {"bucket": "no dots."},
        {"bucket": ""},
        {"bucket": 7},
        {"key": ""},
        {"key": "a//b"},
        {"key": "../a"},
        {"key": "a/./b"},
        {"key": "sp ace"},
        {"key": "/a"},
        {"mime_type": "a\nb"},
        {"mime_type": "x" * 256},
        {"mime_type": None},
    ],
    ids=str,
)
def test_bad_requests(client: httpx.Client, bucket: str, change: dict[str, object]) -> None:
    body = {"bucket": bucket, "key": "f", "mime_type": "text/plain", "size": 1, **change}
    refused(client.post("/v1/files", json=body), 400)


def test_any_content_type_and_unknown_fields(client: httpx.Client, bucket: str) -> None:
    body = {"bucket": bucket, "key": "f", "mime_type": "a/b", "size": 1, "later": [1]}
    headers = {"Content-Type": "text/plain"}
    answer = client.post("/v1/files", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200
    refused(client.post("/v1/files", content=b"{no json"), 400)
    refused(client.post("/v1/files", content=b"[]"), 400)


def test_sessions_that_are_not(client: httpx.Client) -> None:
    refused(client.get("/v1/files/session:abc"), 404)
    refused(client.get("/v1/files/session:abc/x"), 404)
    refused(client.post("/v1/files/session:abc", content=b""), 404)


@pytest.mark.parametrize("key", ["a/../b", "./a", "a//b", "a%20b", "%2e%2e/a"])
def test_keys_that_cannot_be(client: httpx.Client, bucket: str, key: str) -> None:
    client.put(f"/v1/files/{bucket}")
    assert raw_status(client, "GET", f"/v1/files/{bucket}/{key}") in (400, 404)
    assert raw_status(client, "DELETE", f"/v1/files/{bucket}/{key}") in (400, 404)


def test_storage_that_is_not_supported(client: httpx.Client) -> None:
    assert client.put("/v1/files/gopher%3A%2F%2Fhost").status_code == 501

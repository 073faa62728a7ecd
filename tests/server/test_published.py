"""Part 1 of the contract: the nine operations, as a client sees them that knows nothing else."""

from __future__ import annotations

import httpx
import pytest

FILE_FIELDS = ["bucket", "key", "mime_type", "url", "bytes", "created_at"]


def upload(client: httpx.Client, bucket: str, key: str, data: bytes) -> httpx.Response:
    made = client.post("/files", json={"bucket": bucket, "key": key, "mime_type": "text/plain",
                                       "size": len(data)})  # fmt: skip
    assert made.status_code == 200, made.text
    return client.post(made.json()["url"], content=data)


def test_an_upload_in_two_parts(client: httpx.Client, bucket: str) -> None:
    made = client.post(
        "/files", json={"bucket": bucket, "key": "a/b", "mime_type": "x", "size": 5, "more": 1}
    )
    assert list(made.json()) == ["id", "url", "offset", "size"]
    url = made.json()["url"]
    first = client.post(url, content=b"abc")
    assert (first.status_code, first.json()) == (200, None)
    assert client.get(url).json()["offset"] == 3
    assert client.get(f"/files/{bucket}/a/b").status_code == 404
    assert client.get(f"/files/{bucket}").status_code == 404
    last = client.post(url, content=b"de")
    assert list(last.json()) == FILE_FIELDS
    assert client.get(last.json()["url"]).content == b"abcde"
    assert client.post(url, content=b"de").json() == last.json()
    assert client.post(url).json() == last.json()
    other = client.post(url, content=b"x")
    assert (other.status_code, other.headers["files-error"]) == (409, "complete")
    assert client.get(url).json()["offset"] == 5


def test_an_empty_file_needs_one_empty_post(client: httpx.Client, bucket: str) -> None:
    assert upload(client, bucket, "empty", b"").json()["bytes"] == 0
    assert client.get(f"/files/{bucket}/empty?alt=media").content == b""


def test_too_long_a_part_is_refused_and_the_session_goes_on(
    client: httpx.Client, bucket: str
) -> None:
    body = {"bucket": bucket, "key": "k", "mime_type": "x", "size": 4}
    url = client.post("/files", json=body).json()["url"]
    assert client.post(url, content=b"12345").status_code == 413
    client.post(url, content=b"12")
    again = client.post(url, content=b"1234")
    assert (again.status_code, again.headers["upload-offset"]) == (409, "2")
    assert client.post(url, content=b"345").status_code == 413
    assert client.post(url, content=b"34").json()["bytes"] == 4


def test_unprefixed_routes_answer_too(client: httpx.Client, bucket: str, server: object) -> None:
    upload(client, bucket, "k", b"x")
    base = str(client.base_url).removesuffix("/v1/")
    plain = client.get(f"{base}/files/{bucket}/k").json()
    assert plain == client.get(f"/files/{bucket}/k").json()
    assert plain["url"].startswith(f"{base}/v1/files/")


def test_listing_is_complete_and_by_key_bytes(client: httpx.Client, bucket: str) -> None:
    keys = ["b", "a/b/c", "a-b", "a.b", "a/a", "a0", "A", "a/b-c", "_", "a/b.c/d"]
    for key in keys:
        upload(client, bucket, key, key.encode())
    listed = client.get(f"/files/{bucket}").json()
    assert list(listed) == ["data"]
    assert [entry["key"] for entry in listed["data"]] == sorted(keys)
    assert client.get(f"/files/{bucket}/").json() == listed
    assert {"name": bucket} in client.get("/files?bucket=other").json()["data"]


def test_a_file_and_a_directory_do_not_share_a_name(client: httpx.Client, bucket: str) -> None:
    upload(client, bucket, "a", b"")
    late = client.post("/files", json={"bucket": bucket, "key": "z", "mime_type": "x", "size": 1})
    refused = client.post(
        "/files", json={"bucket": bucket, "key": "a/b", "mime_type": "x", "size": 1}
    )
    assert (refused.status_code, refused.headers["files-error"]) == (409, "not-directory")
    upload(client, bucket, "z/below", b"")
    at_commit = client.post(late.json()["url"], content=b"x")
    assert (at_commit.status_code, at_commit.headers["files-error"]) == (409, "is-directory")


def test_delete(client: httpx.Client, bucket: str) -> None:
    upload(client, bucket, "d/k", b"x")
    assert client.delete(f"/files/{bucket}/d/k").json() is None
    assert client.delete(f"/files/{bucket}/d/k").status_code == 404
    assert client.get(f"/files/{bucket}").json() == {"data": []}
    assert client.get(f"/files/{bucket}/d/?view=full").status_code == 404  # only implied


def test_register_a_plain_name(client: httpx.Client, bucket: str) -> None:
    made = client.put(f"/files/{bucket}").json()
    assert list(made) == ["bucket", "created_at", "status"]
    assert client.put(f"/files/{bucket}").json() == made


@pytest.mark.parametrize(
    "body",
    [
        "[]", "{", '{"bucket":"b","key":"k","mime_type":"x","size":true}',
        '{"bucket":"b","key":"k","mime_type":"x","size":"1"}',
        '{"bucket":"b","key":"k","mime_type":"x","size":-1}',
        '{"bucket":"b","key":"k","mime_type":"x\\u0007","size":1}',
        '{"bucket":"b","key":"a//b","mime_type":"x","size":1}',
        '{"bucket":"b","key":"a/","mime_type":"x","size":1}',
        '{"bucket":"b","key":"a/../b","mime_type":"x","size":1}',
        '{"bucket":"b.c","key":"a","mime_type":"x","size":1}',
        '{"bucket":"b","key":"a b","mime_type":"x","size":1}',
        '{"bucket":"b","key":"a\\n","mime_type":"x","size":1}',
        '{"bucket":"b","key":"","mime_type":"x","size":1}',
    ],
)  # fmt: skip
def test_bad_requests_are_400(client: httpx.Client, body: str) -> None:
    answer = client.post("/files", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["status", "title", "detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("POST", "/v1/files/b/k", 405), ("GET", "/v1/files/nob", 404),
        ("DELETE", "/v1/files/nob/k", 404), ("GET", "/v1/files/session:abc/x", 404),
        ("GET", "/v1/files/session:abc", 404), ("GET", "/v1/files/b/%2e%2e", 400),
        ("GET", "/v1/files/b/a%2Fb", 400), ("GET", "/v1/files/%ff", 400),
        ("PUT", "/v1/files/s3%3A%2F%2Fb", 501), ("PUT", "/v1/files/s3://b", 501),
    ],
)  # fmt: skip
def test_the_error_object_is_everywhere(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    url = client.base_url.copy_with(raw_path=path.encode())
    answer = client.request(method, url)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["status", "title", "detail"]
    assert (body["status"], answer.status_code) == (status, status)

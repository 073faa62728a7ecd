"""Part 2 of the contract: content, versions, attributes, names, directories."""

from __future__ import annotations

import base64
import hashlib
import os
import struct

import httpx
import pytest
from crc32c import crc32c

MIB = 1 << 20


def put(client: httpx.Client, path: str, data: bytes = b"", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put(f"/files/{path}?alt=media&view=full", content=data, headers=named)


def full(client: httpx.Client, path: str) -> dict[str, object]:
    answer = client.get(f"/files/{path}?view=full")
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def keys(client: httpx.Client, bucket: str) -> list[str]:
    return [entry["key"] for entry in client.get(f"/files/{bucket}").json()["data"]]


@pytest.mark.parametrize("size", [1, 65536, 65537, 3 * MIB + 5])
def test_ranges_and_their_checksums(client: httpx.Client, bucket: str, size: int) -> None:
    data = os.urandom(size)
    etag = put(client, f"{bucket}/f", data).headers["etag"]
    url = f"/files/{bucket}/f?alt=media"
    whole = client.get(url)
    assert (whole.content, whole.headers["etag"]) == (data, etag)
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert client.head(url).headers["content-length"] == str(size)
    part = client.get(url, headers={"range": f"bytes={size // 2}-"})
    assert (part.status_code, part.content) == (206, data[size // 2 :])
    assert part.headers["content-range"] == f"bytes {size // 2}-{size - 1}/{size}"
    first = client.get(url, headers={"range": f"bytes=0-{MIB - 1}"})
    expected = base64.b64encode(struct.pack(">I", crc32c(data[:MIB]))).decode()
    assert first.headers["content-digest"] == f"crc32c=:{expected}:"
    assert client.get(url, headers={"range": f"bytes={size}-"}).status_code == 416
    assert client.get(url, headers={"range": "bytes=0-0", "if-range": '"x"'}).status_code == 200
    assert client.get(url, headers={"if-none-match": etag}).status_code == 304


def test_several_blocks_carry_a_checksum_each(client: httpx.Client, bucket: str) -> None:
    data = os.urandom(2 * MIB + 7)
    put(client, f"{bucket}/f", data)
    answer = client.get(f"/files/{bucket}/f?alt=media", headers={"range": f"bytes={MIB}-"})
    sums = base64.b64decode(answer.headers["files-block-digests"])
    assert sums == struct.pack(">II", crc32c(data[MIB : 2 * MIB]), crc32c(data[2 * MIB :]))


def test_a_superseded_version_can_be_read(client: httpx.Client, bucket: str) -> None:
    for size in (10, 100_000):
        old = put(client, f"{bucket}/f", b"o" * size).headers["etag"]
        new = put(client, f"{bucket}/f", b"n" * size).headers["etag"]
        assert old != new
        params = {"alt": "media", "version": old}
        assert client.get(f"/files/{bucket}/f", params=params).content == b"o" * size
        client.delete(f"/files/{bucket}/f")
        params["version"] = new
        assert client.get(f"/files/{bucket}/f", params=params).content == b"n" * size
        params["version"] = '"gone"'
        assert client.get(f"/files/{bucket}/f", params=params).status_code == 410


def test_etag_rules(client: httpx.Client, bucket: str) -> None:
    made = put(client, f"{bucket}/f", b"x", if_none_match="*")
    etag = made.headers["etag"]
    assert put(client, f"{bucket}/f", b"y", if_none_match="*").status_code == 412
    assert put(client, f"{bucket}/f", b"y", if_match='"no"').status_code == 412
    assert put(client, f"{bucket}/g", b"y", if_match="*").status_code == 412
    client.patch(f"/files/{bucket}/f", json={"mode": 0o600})
    client.request(
        "MOVE", f"/files/{bucket}/f", headers={"Destination": f"/v1/files/{bucket}/moved"}
    )
    entry = full(client, f"{bucket}/moved")
    assert (entry["etag"], entry["mode"]) == (etag, 0o600)
    assert entry["resource_id"] == made.json()["resource_id"]
    assert put(client, f"{bucket}/moved", b"z", if_match=etag).headers["etag"] != etag


def test_a_condition_is_checked_again_at_commit(client: httpx.Client, bucket: str) -> None:
    body = {"bucket": bucket, "key": "f", "mime_type": "x", "size": 1}
    made = client.post("/files", json=body, headers={"If-None-Match": "*"}).json()
    put(client, f"{bucket}/f", b"first")
    assert client.post(made["url"], content=b"x").status_code == 412
    assert client.get(f"/files/{bucket}/f?alt=media").content == b"first"


def test_attributes_come_with_the_content(client: httpx.Client, bucket: str) -> None:
    given = '{"mode":384,"uid":7,"modified_ns":-5,"xattrs":{"user.a":"YQ=="}}'
    entry = put(client, f"{bucket}/f", b"x", files_attributes=given).json()
    assert (entry["mode"], entry["uid"], entry["modified_ns"]) == (384, 7, -5)
    assert entry["xattrs"] == {"user.a": "YQ=="}
    change = {"xattrs": {"user.a": None, "user.b": "Yg=="}}
    patched = client.patch(f"/files/{bucket}/f?view=full", json=change).json()
    assert patched["xattrs"] == {"user.b": "Yg=="}
    assert patched["changed_ns"] > entry["changed_ns"]
    assert client.patch(f"/files/{bucket}/f", json={"mime_type": "inode/fifo"}).status_code == 400
    assert client.patch(f"/files/{bucket}/f", json={"mode": "x"}).status_code == 400
    huge = {"xattrs": {"user.c": base64.b64encode(b"x" * 70000).decode()}}
    assert client.patch(f"/files/{bucket}/f", json=huge).status_code == 413


def test_digests(client: httpx.Client, bucket: str) -> None:
    for size in (10, 200_000):
        data = os.urandom(size)
        good = f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
        assert put(client, f"{bucket}/f", data, content_digest=good).status_code == 200
        assert put(client, f"{bucket}/f", data[1:], repr_digest=good).status_code == 400
        assert client.get(f"/files/{bucket}/f?alt=media").content == data
        asked = client.head(
            f"/files/{bucket}/f?alt=media", headers={"want-repr-digest": "sha-256=1"}
        )
        assert asked.headers["repr-digest"] == good


def test_hard_links_share_content_and_attributes(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/a", b"one")
    bound = client.request(
        "BIND", f"/files/{bucket}/a?view=full", headers={"Destination": f"/v1/files/{bucket}/d/b"}
    )
    assert bound.json()["nlink"] == 2
    put(client, f"{bucket}/d/b", b"two")
    assert client.get(f"/files/{bucket}/a?alt=media").content == b"two"
    again = client.request(
        "BIND", f"/files/{bucket}/a", headers={"Destination": f"/v1/files/{bucket}/d/b"}
    )
    assert (again.status_code, again.headers["files-error"]) == (409, "exists")
    client.delete(f"/files/{bucket}/a")
    assert full(client, f"{bucket}/d/b")["nlink"] == 1
    assert client.get(f"/files/{bucket}/d/b?alt=media").content == b"two"


def test_directories_come_and_go(client: httpx.Client, bucket: str) -> None:
    made = put(client, f"{bucket}/dir/")
    assert made.json()["mime_type"] == "inode/directory"
    assert keys(client, bucket) == []
    put(client, f"{bucket}/dir/f")
    before = full(client, f"{bucket}/dir/")
    busy = client.delete(f"/files/{bucket}/dir/")
    assert (busy.status_code, busy.headers["files-error"]) == (409, "not-empty")
    client.delete(f"/files/{bucket}/dir/f")
    after = full(client, f"{bucket}/dir")  # without a slash too
    assert (after["key"], after["resource_id"]) == ("dir/", before["resource_id"])
    assert int(str(after["modified_ns"])) > int(str(before["modified_ns"]))
    assert client.get(f"/files/{bucket}/dir").status_code == 404  # plain op 6
    assert client.delete(f"/files/{bucket}/dir/").status_code == 200
    put(client, f"{bucket}/implied/f")
    client.delete(f"/files/{bucket}/implied/f", headers={"Files-Keep-Parent": "1"})
    assert full(client, f"{bucket}/implied/")["bytes"] == 0


def test_a_bucket_goes_only_when_it_is_empty(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/f")
    assert client.delete(f"/files/{bucket}").headers["files-error"] == "not-empty"
    client.delete(f"/files/{bucket}/f")
    assert client.delete(f"/files/{bucket}").status_code == 200
    assert client.get(f"/files/{bucket}").status_code == 404


def test_a_listing_of_one_directory_in_pages(client: httpx.Client, bucket: str) -> None:
    names = ["d/a", "d/b/x", "d/b/y", "d/b-c", "d/e/", "d/f", "top"]
    for name in names:
        put(client, f"{bucket}/{name}")
    found: list[str] = []
    after, more = "", True
    while more:
        params = {"prefix": "d/", "delimiter": "/", "limit": "2", "after": after, "view": "full"}
        body = client.get(f"/files/{bucket}", params=params).json()
        page = sorted(entry["key"] for entry in body["data"] + body["common_prefixes"])
        assert len(page) <= 2
        found += page
        after, more = page[-1], body["has_more"]
    assert found == ["d/a", "d/b-c", "d/b/", "d/e/", "d/f"]
    plain = client.get(f"/files/{bucket}", params={"prefix": "d/b"}).json()
    assert [entry["key"] for entry in plain["data"]] == ["d/b-c", "d/b/x", "d/b/y"]
    rest = client.get(f"/files/{bucket}", params={"after": "d/b/x", "limit": "2"}).json()
    assert [entry["key"] for entry in rest["data"]] == ["d/b/y", "d/f"]
    assert rest["has_more"] is True


def test_usage_and_options(client: httpx.Client, bucket: str) -> None:
    put(client, f"{bucket}/f", b"x")
    usage = client.get("/files?usage=1").json()
    assert usage["total_bytes"] >= usage["free_bytes"] + usage["reserved_bytes"]
    assert usage["free_bytes"] > 0
    assert usage["files"] >= 1
    assert "move" in client.options("/files").headers["files-extensions"].split(", ")
    assert "files-cursor" in client.get(f"/files/{bucket}").headers

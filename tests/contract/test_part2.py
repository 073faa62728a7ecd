"""Part 2 of the contract, sentence by sentence, against our own server."""

from __future__ import annotations

import base64
import hashlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from filesfs import wire
from tests.server.running import running_server

FILE = ["bucket", "key", "mime_type", "url", "bytes", "created_at"]
FULL = [
    *FILE, "etag", "modified_ns", "changed_ns", "accessed_ns", "mode", "uid", "gid", "nlink",
    "resource_id", "xattrs",
]  # fmt: skip


class Files:
    """A bucket of our server."""

    def __init__(self, client: httpx.Client, bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        client.put(f"/v1/files/{bucket}")

    def path(self, key: str) -> str:
        return f"/v1/files/{self.bucket}/{key}"

    def put(self, key: str, data: bytes = b"x", **headers: str) -> str:
        """The new ETag."""
        answer = self.client.put(f"{self.path(key)}?alt=media", content=data, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["etag"]

    def read(self, key: str, version: str = "") -> bytes | int:
        """Content, or the status of a refusal."""
        params = {"alt": "media"} | ({"version": version} if version else {})
        answer = self.client.get(self.path(key), params=params)
        return answer.content if answer.status_code == 200 else answer.status_code

    def move(
        self, key: str, to: str, other: Files | None = None, /, **headers: str
    ) -> tuple[int, str]:
        """Status and Files-Error."""
        headers["Destination"] = (other or self).path(to)
        answer = self.client.request("MOVE", self.path(key), headers=headers)
        return answer.status_code, answer.headers.get("files-error", "")

    def session(self, key: str, size: int, **headers: str) -> httpx.Response:
        body = {"bucket": self.bucket, "key": key, "mime_type": "x", "size": size}
        return self.client.post("/v1/files", json=body, headers=headers)


@pytest.fixture
def files(server_url: str, bucket: str) -> Iterator[Files]:
    with httpx.Client(base_url=server_url, timeout=10, trust_env=False) as client:
        yield Files(client, bucket)


@pytest.fixture
def other(files: Files) -> Files:
    return Files(files.client, f"{files.bucket}-other")


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


# -- versions -------------------------------------------------------------------------------------
def test_an_etag_outlives_patch_and_move(files: Files) -> None:
    etag = files.put("k", b"hello")
    patched = files.client.patch(files.path("k"), json={"mime_type": "a/b", "mode": 0o600})
    assert patched.headers["etag"] == etag
    assert files.move("k", "d/k") == (200, "")
    content = files.client.get(f"{files.path('d/k')}?alt=media")
    assert (content.headers["etag"], content.headers["content-type"]) == (etag, "a/b")
    assert content.headers["x-content-type-options"] == "nosniff"
    assert content.headers["content-disposition"].startswith("attachment")
    assert files.put("d/k", b"hello") != etag


@pytest.mark.parametrize("size", [3, 2_000_000])
def test_a_version_is_read_whatever_became_of_its_name(files: Files, size: int) -> None:
    first, second = b"1" * size, b"2" * size
    one, two = files.put("k", first), files.put("k", second)
    assert files.read("k", one) == first
    files.move("k", "moved")
    assert (files.read("k", one), files.read("k", two)) == (first, second)
    files.put("other")
    files.move("other", "moved")
    assert files.read("moved", two) == second
    files.client.delete(files.path("moved"))
    assert files.read("moved", two) == second
    assert files.read("moved", '"never"') == 410


def test_a_version_follows_a_file_to_another_bucket(files: Files, other: Files) -> None:
    moved, linked, below = files.put("m", b"m"), files.put("l", b"l"), files.put("d/b", b"b")
    files.move("m", "m", other)
    other.move("m", "renamed")
    assert other.read("m", moved) == b"m"
    files.move("d/", "d", other)
    other.move("d/", "e")
    assert other.read("d/b", below) == b"b"
    files.client.request("BIND", files.path("l"), headers={"Destination": other.path("l")})
    other.move("l", "l2")
    assert other.read("l", linked) == b"l"
    assert files.read("l", linked) == b"l"
    secret = files.put("secret")
    assert other.read("secret", secret) == 410  # whoever may read one bucket may not read all


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-1", 206, b"he", "bytes 0-1/5"), ("bytes=3-", 206, b"lo", "bytes 3-4/5"),
        ("bytes=-9", 206, b"hello", "bytes 0-4/5"), ("bytes=4-99", 206, b"o", "bytes 4-4/5"),
        ("bytes=5-", 416, None, "bytes */5"), ("bytes=-0", 416, None, "bytes */5"),
        ("bytes=2-1", 200, b"hello", None), ("lines=1-2", 200, b"hello", None),
        ("bytes=0-1,3-4", 200, b"hello", None),
    ],
)  # fmt: skip
def test_ranges(
    files: Files, asked: str, status: int, content: bytes | None, content_range: str | None
) -> None:
    files.put("k", b"hello")
    answer = files.client.get(f"{files.path('k')}?alt=media", headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("content-range")) == (status, content_range)
    assert content is None or answer.content == content


def test_conditions_on_reading(files: Files) -> None:
    etag = files.put("k", b"hello")

    def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return files.client.get(f"{files.path('k')}?alt=media", headers=named).status_code

    assert status(If_None_Match=etag) == status(If_None_Match=f'"q", W/{etag}') == 304
    assert status(Range="bytes=0-1", If_Range=etag) == 206
    assert status(Range="bytes=0-1", If_Range=f"W/{etag}") == 200
    assert status(If_Match='"q"') == 412


# -- sessions -------------------------------------------------------------------------------------
def test_a_deleted_session_is_gone(files: Files) -> None:
    for size, posts in ((5, 0), (0, 1)):
        url = files.session("k", size).json()["url"]
        for _ in range(posts):
            assert files.client.post(url).json()["bytes"] == 0
        assert files.client.delete(url).json() is None
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert files.client.request(method, url).status_code == 410
    assert files.read("k") == b""  # what was committed stays


def test_a_length_told_is_held(files: Files) -> None:
    made = files.session("k", 0, **{"Upload-Defer-Length": "1"})
    url = made.json()["url"]
    assert made.headers["upload-defer-length"] == "1"
    assert files.client.post(url, content=b"abc").json() is None
    assert files.client.post(url, headers={"Upload-Length": "5"}).json() is None
    assert files.client.post(url, content=b"def").status_code == 413
    assert files.client.post(url, content=b"de").json()["bytes"] == 5


@pytest.mark.parametrize("size", [6, 34 << 20])
@pytest.mark.parametrize("headers", [{}, {"Upload-Offset": "0"}])
def test_a_mismatch_counts_for_nothing(files: Files, size: int, headers: dict[str, str]) -> None:
    url, data = files.session("k", size).json()["url"], b"q" * size
    for name in ("Content-Digest", "Repr-Digest"):
        bad = files.client.post(url, content=data, headers=headers | {name: digest(b"other")})
        assert bad.status_code == 400
        assert files.client.get(url).json()["offset"] == 0
    good = headers | {"Content-Digest": digest(data), "Repr-Digest": digest(data)}
    assert files.client.post(url, content=data, headers=good).json()["bytes"] == size


def test_conditions_hold_at_the_commit_too(files: Files) -> None:
    new = files.session("new", 1, **{"If-None-Match": "*"}).json()["url"]
    match = files.session("k", 1, **{"If-Match": files.put("k")}).json()["url"]
    files.put("new")
    files.put("k")
    for url in (new, match):
        assert files.client.post(url, content=b"y").status_code == 412
    assert files.session("new", 1, **{"If-None-Match": "*"}).status_code == 412
    assert files.session("missing", 1, **{"If-Match": "*"}).status_code == 412


def test_a_large_put_is_refused_unread(files: Files) -> None:
    files.put("k")
    for key, status in (("k", 412), ("k/below", 409)):
        url = urlsplit(str(files.client.base_url))
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as raw:
            lines = [f"PUT {files.path(key)}?alt=media HTTP/1.1", "Host: x", "If-None-Match: *"]
            lines += ["Content-Length: 50000000", "Expect: 100-continue", "", ""]
            raw.sendall("\r\n".join(lines).encode())
            assert raw.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())


# -- listings -------------------------------------------------------------------------------------
KEYS = ["-", "A", "_", "a-b", "a.b", "a/b-c", "a/b.x/d", "a/b/c", "a0", "aa/b", "b", "z/z/z"]
PLACES = ["", "a", "a/", "a/b", "a/b/", "a-", "a0", "z/z", "/", "/a", "a//", "zz"]


def expected(prefix: str, after: str, *, delimited: bool) -> list[str]:
    found: list[str] = []
    for key in KEYS:
        if not key.startswith(prefix):
            continue
        if delimited and "/" in key[len(prefix) :]:
            key = prefix + key[len(prefix) :].partition("/")[0] + "/"
        is_past = key > after and not (delimited and key.endswith("/") and after.startswith(key))
        if is_past and key not in found:
            found.append(key)
    return found


def test_every_listing_is_in_key_order(files: Files) -> None:
    for key in reversed(KEYS):
        files.put(key)
    url = f"/v1/files/{files.bucket}"
    assert [each["key"] for each in files.client.get(url).json()["data"]] == KEYS
    for prefix, after, delimited in itertools.product(PLACES, PLACES, (False, True)):
        wanted = expected(prefix, after, delimited=delimited)
        query = {"prefix": prefix, "after": after, "limit": "2"}
        query |= {"delimiter": "/"} if delimited else {}
        body = files.client.get(url, params=query).json()
        assert list(body) == ["data", "common_prefixes", "has_more"]
        found = sorted([each["key"] for each in body["data"]] + body["common_prefixes"])
        assert (found, body["has_more"]) == (wanted[:2], len(wanted) > 2), query


def test_rows_of_a_directory_come_in_the_same_pages(files: Files) -> None:
    for key in reversed(KEYS):
        files.put(key)
    url = f"/v1/files/{files.bucket}"
    for prefix, after in itertools.product(PLACES, PLACES):
        wanted = expected(prefix, after, delimited=True)
        query = {"prefix": prefix, "after": after, "limit": "2", "delimiter": "/", "view": "full"}
        answer = files.client.get(url, params=query, headers={"Files-Rows": "1"})
        assert ("files-rows" in answer.headers) == (prefix[-1:] in ("", "/")), query
        if "files-rows" in answer.headers:
            body = answer.json()
            assert answer.headers["vary"] == "Files-Rows"
            found = [prefix + row[0] for row in body["rows"]]
            assert (found, body["has_more"]) == (wanted[:2], len(wanted) > 2), query
    plain = {"delimiter": "/", "view": "full"}  # without an end of the page
    for query in (plain, plain | {"limit": "2", "view": "basic"}, {"limit": "2"}):
        answer = files.client.get(url, params=query, headers={"Files-Rows": "1"})
        assert "data" in answer.json()


def test_what_is_in_a_directory_comes_with_it_if_that_is_not_too_much(files: Files) -> None:
    for key in ("d/a", "d/b", "d/c/e"):
        files.put(key)
    url, full = f"/v1/files/{files.bucket}/d", {"view": "full"}
    page = {"prefix": "d/", "delimiter": "/", "view": "full", "limit": "9"}
    listed = files.client.get(
        f"/v1/files/{files.bucket}", params=page, headers={"Files-Rows": "1"}
    ).json()
    for most, comes in (("3", True), ("2", False), ("0", False), ("999999999", True)):
        body = files.client.get(url, params=full, headers={"Files-Listing": most}).json()
        assert list(body) == FULL + ["listing"] * comes
        assert not comes or body["listing"] == listed
    assert list(files.client.get(url, params=full).json()) == FULL
    with_listing = {"Files-Listing": "9"}
    assert list(files.client.get(f"{url}/a", params=full, headers=with_listing).json()) == FULL
    assert files.client.get(url, params=full, headers={"Files-Listing": "x"}).status_code == 400


def test_full_entries(files: Files) -> None:
    files.put("d/k")
    files.put("k")
    answer = files.client.get(f"/v1/files/{files.bucket}?delimiter=/&view=full")
    (entry,), (folder,) = answer.json()["data"], answer.json()["common_prefixes"]
    assert list(entry) == list(folder) == FULL
    assert (folder["key"], folder["mime_type"], folder["bytes"]) == ("d/", "inode/directory", 0)
    assert "-" in answer.headers["files-cursor"]


def test_the_shared_models_name_exactly_what_is_answered(files: Files) -> None:
    """`wire` is what both programs and other clients read: it must not drift from the server."""
    files.put("k")
    full = files.client.get(f"{files.path('k')}?view=full").json()
    buckets = files.client.get("/v1/files?view=full").json()["data"]
    registered = files.client.put(files.path("k")).json()
    refused = files.client.get(files.path("none")).json()
    for body, model in (
        (full, wire.FullFileResponse),
        (files.client.get(files.path("k")).json(), wire.FileResponse),
        (buckets[0], wire.FullBucketResponse),
        (registered, wire.RegisterFileResponse),
        (files.client.put(f"/v1/files/{files.bucket}").json(), wire.RegisterBucketResponse),
        (files.session("s", 1).json(), wire.FileUploadResponse),
        (files.client.get("/v1/files?usage=1").json(), wire.UsageResponse),
        (refused, wire.ErrorBody),
    ):
        assert set(body) == set(model.model_fields), model.__name__
        model.model_validate(body, strict=True)


# -- attributes and names -------------------------------------------------------------------------
def test_patch_merges(files: Files) -> None:
    files.put("k")
    url = f"{files.path('k')}?view=full"
    before = files.client.get(url).json()
    change = {
        "mode": 0o640,
        "uid": 7,
        "modified_ns": -5,
        "xattrs": {"user.a": "AAA=", "user.b": ""},
    }
    after = files.client.patch(url, json=change | {"unknown": 1}).json()
    assert after == before | change | {"changed_ns": after["changed_ns"]}
    merged = files.client.patch(url, json={"mode": None, "xattrs": {"user.a": None}}).json()
    assert (merged["mode"], merged["uid"], merged["xattrs"]) == (None, 7, {"user.b": ""})


@pytest.mark.parametrize(
    "change",
    [{"mode": -1}, {"mode": 0o10000}, {"mode": True}, {"uid": 1.5}, {"xattrs": {"a": "%"}},
     {"modified_ns": 2**63}, {"mime_type": "inode/symlink"}, {"mime_type": "x\n"}, []],
)  # fmt: skip
def test_patches_that_cannot_be(files: Files, change: object) -> None:
    files.put("k")
    assert files.client.patch(files.path("k"), json=change).status_code == 400


def test_what_a_link_is_stays(files: Files) -> None:
    files.put("k", b"target", **{"Content-Type": "inode/symlink"})
    answer = files.client.patch(files.path("k"), json={"mime_type": "text/plain"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("source", "destination", "headers", "result"),
    [
        ("f", "f", {}, (200, "")), ("d/", "d", {}, (200, "")), ("f", "g", {}, (200, "")),
        ("f", "g", {"Overwrite": "F"}, (412, "")), ("f", "new", {"Overwrite": "F"}, (200, "")),
        ("f", "d", {}, (409, "is-directory")), ("f", "empty", {}, (409, "is-directory")),
        ("d/", "f", {}, (409, "not-directory")), ("d/", "e", {}, (409, "not-empty")),
        ("d/", "empty", {}, (200, "")), ("d/", "d/y/z", {}, (400, "")),
        ("d/x", "d", {}, (409, "is-directory")), ("f", "g/below", {}, (409, "not-directory")),
        ("d", "new", {}, (404, "")), ("missing", "new", {}, (404, "")),
        ("f", "a//b", {}, (400, "")), ("f", "d", {"Exchange": "T"}, (200, "")),
        ("d/", "f", {"Exchange": "T"}, (200, "")), ("d/", "d/y", {"Exchange": "T"}, (400, "")),
        ("d/y/", "d", {"Exchange": "T"}, (400, "")), ("f", "new", {"Exchange": "T"}, (404, "")),
    ],
)  # fmt: skip
def test_moves(
    files: Files, source: str, destination: str, headers: dict[str, str], result: tuple[int, str]
) -> None:
    for key in ("f", "g", "d/x", "d/y/w", "e/q"):
        files.put(key, key.encode())
    files.put("empty/", b"")
    assert files.move(source, destination, **headers) == result
    if result[0] != 200:
        assert [files.read(key) for key in ("f", "g", "d/x")] == [b"f", b"g", b"d/x"]


# -- registered locations -------------------------------------------------------------------------
def test_a_registered_location_keeps_to_the_same_rules(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "root" / "place").mkdir(parents=True)
    with (
        running_server(tmp_path / "data", file_root=[tmp_path / "root"]) as server,
        httpx.Client(base_url=server.url, timeout=10, trust_env=False) as client,
    ):
        uri = quote(f"file://{tmp_path}/root/place", safe="")
        client.put(f"/v1/files/{uri}?mode=rw&name={bucket}").raise_for_status()
        place = Files(client, bucket)
        url = f"{place.path('k')}?alt=media"
        for name in ("Content-Digest", "Repr-Digest"):
            bad = client.put(url, content=b"bytes", headers={name: digest(b"other")})
            assert (bad.status_code, place.read("k")) == (400, 404)
        etag = place.put("k", b"bytes", **{"Content-Digest": digest(b"bytes")})
        assert place.read("k", etag) == place.read("k", etag.strip('"')) == b"bytes"
        assert place.read("k", '"older"') == 410
        assert client.get(f"{place.path('k')}?view=odd").status_code == 400
        assert client.get(f"/v1/files/{bucket}?view=odd").status_code == 400

"""/metrics: what Prometheus reads of a server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from files_server.auth import new_token
from files_server.meters import Histogram, operation
from files_server.names import Kind
from tests.server.running import running_server

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    answer.raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def requests(samples: Samples, name: str, status: int) -> float:
    labels = (("operation", name), ("status", str(status)))
    return samples.get(("files_server_requests_total", labels), 0.0)


def test_requests_bytes_commits_and_what_is_held(data_dir: Path, bucket: str) -> None:
    with (
        running_server(data_dir, keep_deleted="1h") as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        files = f"/v1/files/{bucket}"
        for size in (10, 200_000):
            client.put(f"{files}/{size}?alt=media", content=b"x" * size).raise_for_status()
        body = {"bucket": bucket, "key": "open", "mime_type": "a/b", "size": 9}
        session = client.post("/v1/files", json=body).json()["url"]
        client.post(session, content=b"12345", headers={"Upload-Offset": "0"})
        client.get(f"{files}/200000?alt=media")
        client.get(f"{files}/absent")
        client.delete(f"{files}/10")
        with client.stream("GET", "/v1/files?changes=1") as feed:
            pieces = feed.iter_bytes()  # given up, it would close the connection
            next(pieces)
            found = scrape(client)
        expected = {
            ("put_content", 200): 2, ("create_session", 200): 1, ("upload", 200): 1,
            ("read_content", 200): 1, ("get_file", 404): 1, ("delete_file", 200): 1,
        }  # fmt: skip
        assert {key: requests(found, *key) for key in expected} == expected
        held = {
            "received_bytes_total": 10 + 200_000 + 5, "upload_sessions": 1, "files": 1,
            "used_bytes": 200_000, "kept_bytes": 10, "deleted_files": 1, "blobs": 1,
            "feed_subscribers": 1,
        }  # fmt: skip
        assert {name: found[f"files_server_{name}", ()] for name in held} == held
        assert found["files_server_sent_bytes_total", ()] > 200_000
        label = (("le", "+Inf"), ("operation", "put_content"))
        assert found["files_server_request_seconds_bucket", label] == 2
        commits = found["files_server_commit_seconds_count", ()]
        assert 0 < commits <= found["files_server_commit_mutations_sum", ()]
        assert found["files_server_disk_free_bytes", ()] > 0
        assert found["process_resident_memory_bytes", ()] > 0
        deadline = time.monotonic() + 20
        while (later := scrape(client))["files_server_feed_subscribers", ()]:
            assert time.monotonic() < deadline, "the feed's end was not noticed"
            time.sleep(0.05)
        assert requests(later, "change_feed", 200) == 1
        feed_label = (("operation", "change_feed"),)
        assert ("files_server_request_seconds_count", feed_label) not in later


def test_with_tokens_it_takes_the_admin_right(tmp_path: Path, data_dir: Path) -> None:
    tokens = {name: new_token(name, name, "*") for name in ("read", "admin")}
    (tmp_path / "tokens").write_text("".join(f"{line}\n" for _, line in tokens.values()))
    os.chmod(tmp_path / "tokens", 0o600)
    asked = {name: {"Authorization": f"Bearer {secret}"} for name, (secret, _) in tokens.items()}
    with (
        running_server(data_dir, tokens_file=tmp_path / "tokens") as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        assert client.get("/metrics").status_code == 401
        for path in ("/metrics", "/metrics?x=1", "/metric%73", "/metrics?x=/y"):
            assert client.get(path, headers=asked["read"]).status_code in (403, 404), path
        assert client.get("/metrics", headers=asked["admin"]).status_code == 200


@pytest.mark.parametrize(
    ("kind", "method", "query", "name"),
    [
        (Kind.KEY, "GET", b"", "get_file"),
        (Kind.KEY, "GET", b"view=full&alt=media", "read_content"),
        (Kind.KEY, "PUT", b"alt=media", "put_content"),
        (Kind.ROOT, "GET", b"changes=1&own=0", "change_feed"),
        (Kind.ROOT, "OPTIONS", b"", "other"),
        (None, "GET", b"", "other"),
        (Kind.KEY, "INVENTED", b"", "other"),
    ],
)
def test_operations_have_few_names(kind: Kind | None, method: str, query: bytes, name: str) -> None:
    assert operation(kind, method, query) == name


def test_a_value_at_a_bound_counts_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert (histogram.counts, histogram.total) == ([2, 1, 1], 12.0)

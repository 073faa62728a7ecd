"""The change feed: commit order, resuming, 410."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.server.running import RunningServer, running_server


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, object]]]:
    """(id, event) as they come."""
    number = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            number = line.removeprefix("id: ")
        elif line.startswith("data: "):
            yield number, json.loads(line.removeprefix("data: "))


def test_every_commit_makes_one_event_in_order(server: RunningServer, bucket: str) -> None:
    base = f"{server.url}/v1/files"
    with httpx.Client(trust_env=False) as client, client.stream("GET", f"{base}?changes=1") as feed:
        assert feed.headers["content-type"].startswith("text/event-stream")
        headers = {"Files-Origin": "me"}
        with httpx.Client(headers=headers, trust_env=False) as other:
            put = other.put(f"{base}/{bucket}/a?alt=media&view=full", content=b"x")
            other.patch(f"{base}/{bucket}/a", json={"mode": 0o600})
            target = {"Destination": f"/v1/files/{bucket}/d/b"}
            moved = other.request("MOVE", f"{base}/{bucket}/a", headers=target)
            deleted = other.delete(f"{base}/{bucket}/d/b")
        found = events(feed)
        got = [next(found) for _ in range(5)]
    assert [event["operation"] for _, event in got] == [
        "bucket", "commit", "attributes", "move", "delete",
    ]  # fmt: skip
    assert got[3][1]["keys"] == [[bucket, "a"], [bucket, "d/b"]]
    assert got[1][1]["etag"] == put.headers["etag"]
    assert {event["origin"] for _, event in got} == {"me"}
    assert got[1][0] == put.headers["files-cursor"]
    assert got[3][0] == moved.headers["files-cursor"]
    assert got[4][0] == deleted.headers["files-cursor"]


def test_resuming_and_410(data_dir: Path) -> None:
    with running_server(data_dir) as server:
        base = f"{server.url}/v1/files"
        first = httpx.put(f"{base}/b/a?alt=media", content=b"x").headers["files-cursor"]
        httpx.put(f"{base}/b/b?alt=media", content=b"x")
        server.restart()
        with httpx.stream("GET", f"{base}?changes=1", headers={"Last-Event-ID": first}) as feed:
            lines = feed.iter_lines()
            told = [line for line in itertools.islice(lines, 8) if line]
        assert told[0] == ": connected"
        assert '"keys":[["b","b"]]' in told[3]
        assert told[2].startswith("id: ")
        assert told[4] == told[2]  # that was all until now
        epoch = first.partition("-")[0]
        for cursor, status in ((f"{epoch}-99", 410), ("00-1", 410), ("what", 400)):
            headers = {"Last-Event-ID": cursor}
            assert httpx.get(f"{base}?changes=1", headers=headers).status_code == status
        server.stop()
        copy = data_dir / "copy"
        copy.write_bytes((data_dir / "catalog.sqlite").read_bytes())  # as from a backup
        copy.rename(data_dir / "catalog.sqlite")
        server.start()
        headers = {"Last-Event-ID": first}
        assert httpx.get(f"{base}?changes=1", headers=headers).status_code == 410
        assert httpx.get(f"{base}/b/a?alt=media").content == b"x"


def test_own_changes_are_left_out_where_asked(server: RunningServer) -> None:
    base = f"{server.url}/v1/files"
    headers = {"Files-Origin": "me"}
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("GET", f"{base}?changes=1&own=0", headers=headers) as feed,
    ):
        lines = feed.iter_lines()
        next(lines)
        client.put(f"{base}/own/mine?alt=media", content=b"1", headers=headers)
        client.put(f"{base}/own/theirs?alt=media", content=b"2")
        data = next(line for line in lines if line.startswith("data:"))
        assert "theirs" in data

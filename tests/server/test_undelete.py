"""Deleted and replaced files that are kept: over the API, by the command, after a restart."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from files_server.auth import new_token
from files_server.backup import backup
from files_server.fsck import check
from files_server.settings import SettingsError, load
from tests.server.running import RunningServer, running_server

_BIG = os.urandom(200_000)  # has a blob; what is small is in the catalog


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("undelete") / "data"
    with running_server(folder, keep_deleted="7d") as server:
        yield server


@pytest.fixture
def client(running: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.url}/v1/files/", timeout=20, trust_env=False) as client:
        yield client


def put(client: httpx.Client, key: str, data: bytes, **headers: str) -> str:
    answer = client.put(f"{key}?alt=media", content=data, headers=headers)
    answer.raise_for_status()
    return answer.headers["etag"]


def kept(client: httpx.Client, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
    answer = client.get(bucket, params={"deleted": "1", "prefix": prefix})
    answer.raise_for_status()
    assert answer.json()["next"] is None
    return list(answer.json()["data"])


def undelete(client: httpx.Client, key: str, etag: str, **headers: str) -> httpx.Response:
    return client.post(key, params={"undelete": etag}, headers=headers)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "filesfs.cli", "undelete", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("data", [b"small", _BIG], ids=["catalog", "blob"])
def test_a_deleted_file_comes_back_as_it_was(
    client: httpx.Client, bucket: str, data: bytes
) -> None:
    attributes = {"mode": 0o640, "modified_ns": 12345, "xattrs": {"user.a": "eA=="}}
    headers = {"Files-Attributes": json.dumps(attributes), "Content-Type": "text/x-odd"}
    etag = put(client, f"{bucket}/d/f", data, **headers)
    before = time.time()
    client.delete(f"{bucket}/d/f").raise_for_status()
    assert client.get(f"{bucket}/d/f").status_code == 404
    [one] = kept(client, bucket)
    assert (one["bucket"], one["key"], one["etag"], one["bytes"], one["mime_type"]) == (
        bucket, "d/f", etag, len(data), "text/x-odd",
    )  # fmt: skip
    assert (one["replaced"], one["deleted_by"], one["modified_ns"]) == (False, "", 12345)
    assert one["deleted_at"] >= int(before)
    assert one["expires_at"] - one["deleted_at"] == 7 * 86400
    back = undelete(client, f"{bucket}/d/f", etag)
    assert (back.status_code, back.headers["etag"]) == (200, etag)
    assert client.get(f"{bucket}/d/f?alt=media").content == data
    entry = client.get(f"{bucket}/d/f?view=full").json()
    assert {name: entry[name] for name in attributes} == attributes
    assert entry["mime_type"] == "text/x-odd"
    assert kept(client, bucket) == []
    assert undelete(client, f"{bucket}/d/g", etag).status_code == 404


def test_replaced_contents_are_kept_and_nothing_is_overwritten_unasked(
    client: httpx.Client, bucket: str
) -> None:
    first = put(client, f"{bucket}/f", b"one")
    second = put(client, f"{bucket}/f", b"two")
    put(client, f"{bucket}/tmp", b"three")
    headers = {"Destination": f"/v1/files/{bucket}/f"}
    client.request("MOVE", f"{bucket}/tmp", headers=headers).raise_for_status()  # as editors save
    assert [(one["etag"], one["replaced"]) for one in kept(client, bucket, "f")] == [
        (first, True), (second, True),
    ]  # fmt: skip
    identity = client.get(f"{bucket}/f?view=full").json()["resource_id"]
    assert undelete(client, f"{bucket}/f", first).status_code == 412
    assert client.get(f"{bucket}/f?alt=media").content == b"three"
    undelete(client, f"{bucket}/copy/f", second).raise_for_status()
    assert client.get(f"{bucket}/copy/f?alt=media").content == b"two"
    undelete(client, f"{bucket}/f", first, Overwrite="T").raise_for_status()
    entry = client.get(f"{bucket}/f?view=full").json()
    assert (entry["resource_id"], entry["bytes"]) == (identity, 3)
    assert client.get(f"{bucket}/f?alt=media").content == b"one"
    assert [client.get(f"{bucket}/f?alt=media&version={kept(client, bucket)[0]['etag']}").text] == [
        "three"
    ]
    assert undelete(client, bucket + "/f/below", kept(client, bucket)[0]["etag"]).status_code == 409


def test_it_is_there_after_a_kill_and_in_a_backup_and_fsck_knows_it(
    running: RunningServer, client: httpx.Client, bucket: str, tmp_path: Path
) -> None:
    small, big = put(client, f"{bucket}/s", b"small"), put(client, f"{bucket}/b", _BIG)
    for key in ("s", "b"):
        client.delete(f"{bucket}/{key}").raise_for_status()
    used = client.get("?usage=1").json()
    assert used["kept_bytes"] >= 5 + len(_BIG)
    running.kill()
    copy = tmp_path / "copy"
    backup(running.data_dir, copy)
    assert check(copy, digests=True, repair=False) == []
    with contextlib.closing(sqlite3.connect(copy / "catalog.sqlite")) as catalog:
        catalog.execute("UPDATE versions SET expires_at = NULL WHERE etag = ?", (small,))
        catalog.execute("DELETE FROM contents")
        catalog.commit()
    texts = [problem.text for problem in check(copy, digests=False, repair=True)]
    assert f"the deleted file {bucket}/s has no content any more" in texts
    running.start()
    assert len(kept(client, bucket)) == 2
    undelete(client, f"{bucket}/s", small).raise_for_status()
    undelete(client, f"{bucket}/b", big).raise_for_status()
    assert client.get(f"{bucket}/b?alt=media").content == _BIG
    assert client.get("?usage=1").json()["kept_bytes"] == used["kept_bytes"] - 5 - len(_BIG)


def test_a_backup_carries_what_was_deleted(
    running: RunningServer, client: httpx.Client, bucket: str, tmp_path: Path
) -> None:
    etag = put(client, f"{bucket}/b", _BIG)
    client.delete(f"{bucket}/b").raise_for_status()
    backup(running.data_dir, tmp_path / "copy")
    with running_server(tmp_path / "copy") as restored, httpx.Client() as other:
        answer = other.post(f"{restored.url}/v1/files/{bucket}/b?undelete={etag.strip(chr(34))}")
        assert answer.status_code == 200, answer.text
        assert other.get(f"{restored.url}/v1/files/{bucket}/b?alt=media").content == _BIG


def test_what_has_expired_or_is_given_up_takes_no_space(data_dir: Path, bucket: str) -> None:
    with running_server(data_dir, keep_deleted="1h", superseded_seconds=0) as server:
        with httpx.Client(base_url=f"{server.url}/v1/files/", trust_env=False) as client:
            first = put(client, f"{bucket}/one", _BIG)
            put(client, f"{bucket}/two", _BIG)
            for key in ("one", "two"):
                client.delete(f"{bucket}/{key}").raise_for_status()
            assert len(list(data_dir.glob("blobs/??/*"))) == 2
            assert client.post(f"{bucket}/two?purge={first}").status_code == 404
            client.post(f"{bucket}/one?purge={first}").raise_for_status()
            assert [one["key"] for one in kept(client, bucket)] == ["two"]
            assert len(list(data_dir.glob("blobs/??/*"))) == 1
            server.stop()
            with contextlib.closing(sqlite3.connect(data_dir / "catalog.sqlite")) as catalog:
                catalog.execute("UPDATE versions SET expires_at = 1 WHERE expires_at IS NOT NULL")
                catalog.commit()
            server.start()
            for _ in range(100):  # the row goes first, and then the file
                if not kept(client, bucket) and not list(data_dir.glob("blobs/??/*")):
                    break
                time.sleep(0.1)
            assert kept(client, bucket) == []
            assert list(data_dir.glob("blobs/??/*")) == []
        server.stop()
        assert check(data_dir, digests=True, repair=False) == []


def test_it_is_off_unless_asked_for(data_dir: Path, bucket: str) -> None:
    with (
        running_server(data_dir) as server,
        httpx.Client(base_url=f"{server.url}/v1/files/", trust_env=False) as client,
    ):
        put(client, f"{bucket}/f", b"x")
        client.delete(f"{bucket}/f").raise_for_status()
        assert kept(client, bucket) == []
        assert client.get("?deleted=1").json() == {"data": []}


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("12h", 43200), ("90", 90), ("off", 0), ("0", 0)]
)
def test_how_long_is_written(tmp_path: Path, text: str, seconds: int) -> None:
    environment = {"FILES_SERVER_KEEP_DELETED": text}
    assert load({"data_dir": tmp_path}, environment=environment).keep_deleted == seconds
    with pytest.raises(SettingsError, match="a number with s, m, h or d"):
        load({"data_dir": tmp_path, "keep_deleted": "1 week"}, environment={})


def test_who_may_see_it_and_bring_it_back(tmp_path: Path, data_dir: Path) -> None:
    given = {"all": "read,write,delete", "reader": "read", "writer": "read,write"}
    tokens = {name: new_token(name, rights, "b") for name, rights in given.items()}
    (tmp_path / "tokens").write_text("".join(f"{line}\n" for _, line in tokens.values()))
    os.chmod(tmp_path / "tokens", 0o600)
    asked = {name: {"Authorization": f"Bearer {secret}"} for name, (secret, _) in tokens.items()}
    with (
        running_server(data_dir, keep_deleted="1d", tokens_file=tmp_path / "tokens") as server,
        httpx.Client(base_url=f"{server.url}/v1/files/", trust_env=False) as client,
    ):
        etag = put(client, "b/f", b"x", **asked["all"])
        client.delete("b/f", headers=asked["all"]).raise_for_status()
        [one] = client.get("b?deleted=1", headers=asked["all"]).json()["data"]
        assert one["deleted_by"] == "all"
        for name in ("reader", "writer"):
            assert client.get("b?deleted=1", headers=asked[name]).status_code == 403
            assert client.get("?deleted=1", headers=asked[name]).json() == {"data": []}
            assert undelete(client, "b/f", etag, **asked[name]).status_code == 403
        assert undelete(client, "c/f", etag, **asked["all"]).status_code == 403
        undelete(client, "b/f", etag, **asked["all"]).raise_for_status()


def test_the_command_lists_and_brings_back(
    running: RunningServer, client: httpx.Client, bucket: str
) -> None:
    for key in ("d/a", "d/sub/b", "d/_-c_20d", "da"):
        put(client, f"{bucket}/{key}", key.encode())
        client.delete(f"{bucket}/{key}").raise_for_status()
    put(client, f"{bucket}/d/a", b"again")
    place = f"{running.url}/{bucket}/d"
    listed = command(place)
    assert listed.returncode == 0, listed.stderr
    assert [line.split("  ")[-1] for line in listed.stdout.splitlines()] == [
        f"{bucket}/d/c d", f"{bucket}/d/a", f"{bucket}/d/sub/b",
    ]  # fmt: skip
    assert [one["key"] for one in json.loads(command(place, "--json").stdout)] == [
        "d/_-c_20d", "d/a", "d/sub/b",
    ]  # fmt: skip
    restored = command(place, "--restore")
    assert restored.returncode == 1
    assert f"not restored: {bucket}/d/a exists" in restored.stdout
    assert f"restored: {bucket}/d/c d" in restored.stdout
    assert client.get(f"{bucket}/d/_-c_20d?alt=media").content == b"d/_-c_20d"
    assert client.get(f"{bucket}/d/sub/b?alt=media").content == b"d/sub/b"
    assert client.get(f"{bucket}/da").status_code == 404
    other = command(f"{place}/a", "--to", "old name")
    assert other.returncode == 0, other.stdout + other.stderr
    assert client.get(f"{bucket}/_-old_20name?alt=media").content == b"d/a"
    [replaced] = [one for one in kept(client, bucket) if one["key"] == "da"]
    assert command(f"{running.url}/{bucket}/da", "--purge").stdout == "given up: 1\n"
    assert replaced not in kept(client, bucket)
    nothing = command(f"{running.url}/{bucket}/da", "--restore")
    assert (nothing.returncode, "nothing that was deleted" in nothing.stderr) == (1, True)


def test_the_command_replaces_when_told(
    running: RunningServer, client: httpx.Client, bucket: str
) -> None:
    for data in (b"one", b"two", b"three"):
        put(client, f"{bucket}/f", data)
    place = f"{running.url}/{bucket}/f"
    assert command(place, "--overwrite").returncode == 0
    assert client.get(f"{bucket}/f?alt=media").content == b"two"
    [first] = [one for one in kept(client, bucket) if one["bytes"] == 3]
    assert command(place, "--overwrite", "--version", first["etag"].strip('"')).returncode == 0
    assert client.get(f"{bucket}/f?alt=media").content == b"one"


def test_a_registered_location_keeps_nothing(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "root" / "place").mkdir(parents=True)
    (tmp_path / "root" / "place" / "f").write_text("x")
    with (
        running_server(data_dir, keep_deleted="1d", file_root=[str(tmp_path / "root")]) as server,
        httpx.Client(base_url=f"{server.url}/v1/files/", trust_env=False) as client,
    ):
        etag = put(client, "b/f", b"x")
        client.delete("b/f").raise_for_status()
        uri = quote(f"file://{tmp_path}/root/place", safe="")
        client.put(f"{uri}?mode=rw").raise_for_status()
        client.delete("place/f").raise_for_status()
        assert kept(client, "place") == []
        assert undelete(client, "place/f", etag).status_code == 501
        listed = command(f"{server.url}/place")
        assert (listed.returncode, listed.stdout.count("nothing that was deleted")) == (0, 1)


def test_long_lists_come_in_pages(client: httpx.Client, bucket: str) -> None:
    for number in range(3):
        put(client, f"{bucket}/{number}", b"x")
        client.delete(f"{bucket}/{number}").raise_for_status()
    data = kept(client, bucket)
    after = f"{data[1]['id']}/{data[1]['key']}"
    rest = client.get(bucket, params={"deleted": "1", "after": after}).json()["data"]
    assert rest == data[2:]

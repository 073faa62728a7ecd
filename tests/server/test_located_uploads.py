"""Uploads and changes in a location registered for writing: as in any bucket, on files in place."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from files_server.registration.locations import TEMPORARY
from tests.server.running import RunningServer, running_server

_numbers = itertools.count()
_BIG = os.urandom(300_000)  # more than what the catalog keeps


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("located") / "root"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[RunningServer]:
    with running_server(root.parent / "server", file_root=[str(root)]) as server:
        yield server


@pytest.fixture
def client(running: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.url}/v1/files/", timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture(params=["one disk", "another disk"])
def place(
    request: pytest.FixtureRequest, root: Path, client: httpx.Client
) -> Iterator[tuple[str, Path]]:
    """Alias and folder of a fresh location, on the data folder's disk or on one of its own."""
    number = f"location{next(_numbers)}"
    folder = root / number
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        if request.param == "another disk":
            mount_tmpfs(folder, stack)
        register(client, folder, mode="rw")
        yield number, folder
        client.delete(number).raise_for_status()


def mount_tmpfs(folder: Path, stack: contextlib.ExitStack) -> None:
    if os.getuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], check=True)
    stack.callback(subprocess.run, ["umount", "-l", folder], capture_output=True)


def register(client: httpx.Client, folder: Path, key: str = "", **query: str) -> httpx.Response:
    path = quote(f"file://{folder}", safe="") + (f"/{key}" if key else "")
    answer = client.put(path, params=query)
    answer.raise_for_status()
    return answer


def begin(client: httpx.Client, bucket: str, key: str, size: int, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"bucket": bucket, "key": key, "mime_type": "text/plain", "size": size, **more}
    return client.post("", json=body, headers=headers)


def litter(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.startswith(TEMPORARY)]


def test_a_session_is_filled_in_parts_and_shows_whole(
    client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    (folder / "deep").mkdir()
    (folder / "deep" / "f.txt").write_text("before")
    session = begin(client, bucket, "deep/f.txt", len(_BIG)).json()
    assert client.post(session["url"], content=_BIG[:100_000]).json() is None
    assert (folder / "deep" / "f.txt").read_text() == "before"
    assert client.get(session["url"]).json()["offset"] == 100_000
    rest = client.post(session["url"], content=_BIG[100_000:])
    assert rest.json()["bytes"] == len(_BIG)
    assert set(rest.json()) == {"bucket", "key", "mime_type", "url", "bytes", "created_at"}
    assert (folder / "deep" / "f.txt").read_bytes() == _BIG
    read = client.get(f"{bucket}/deep/f.txt?alt=media")
    assert (read.content, read.headers["etag"]) == (_BIG, rest.headers["etag"])
    assert client.post(session["url"]).json() == rest.json()  # remembered
    assert client.get(session["url"]).json()["offset"] == len(_BIG)
    assert not litter(folder)


def test_a_session_goes_on_after_the_server_was_killed(
    running: RunningServer, client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    session = begin(client, bucket, "f", len(_BIG)).json()
    client.post(session["url"], content=_BIG[:200_000], headers={"Upload-Offset": "0"})
    running.kill()
    running.start()
    assert client.get(session["url"]).json()["offset"] == 200_000
    headers = {"Upload-Offset": "200000"}
    client.post(session["url"], content=_BIG[200_000:], headers=headers).raise_for_status()
    assert (folder / "f").read_bytes() == _BIG


def test_a_commit_of_which_nobody_heard_is_not_done_twice(
    running: RunningServer, client: httpx.Client, place: tuple[str, Path]
) -> None:
    """The server died between the rename and the catalog's word: the file is there, not the row."""
    bucket, folder = place
    headers = {"If-None-Match": "*"}
    session = begin(client, bucket, "f", len(_BIG), headers=headers).json()
    client.post(session["url"], content=_BIG[:-1])
    done = client.post(session["url"], content=_BIG[-1:])
    running.kill()
    status = (folder / "f").stat()
    mark = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    with contextlib.closing(sqlite3.connect(running.data_dir / "catalog.sqlite")) as catalog:
        catalog.execute(
            "UPDATE sessions SET state = 0, answer = ? WHERE id = ?",
            (json.dumps(mark), session["id"]),
        )
        catalog.commit()
    with contextlib.suppress(OSError):  # its other name was still there; not on another disk
        (running.data_dir / "uploads" / session["id"]).hardlink_to(folder / "f")
    running.start()
    again = client.post(session["url"])
    assert again.status_code == 200, again.text
    assert again.json() == done.json()
    assert again.headers["ETag"] == client.head(f"{bucket}/f?alt=media").headers["ETag"]
    assert (folder / "f").read_bytes() == _BIG


def test_a_file_that_got_the_inode_of_a_lost_commit_is_not_taken_for_it(
    running: RunningServer, client: httpx.Client, place: tuple[str, Path]
) -> None:
    """The server died ahead of the rename, its copy is gone, and its inode is another file's."""
    bucket, folder = place
    session = begin(client, bucket, "f", len(_BIG)).json()
    client.post(session["url"], content=_BIG[:-1], headers={"Upload-Offset": "0"})
    running.kill()
    (folder / "f").write_bytes(b"others wrote")
    status = (folder / "f").stat()
    mark = [status.st_dev, status.st_ino, len(_BIG), status.st_mtime_ns - 1]
    with contextlib.closing(sqlite3.connect(running.data_dir / "catalog.sqlite")) as catalog:
        catalog.execute(
            "UPDATE sessions SET answer = ? WHERE id = ?", (json.dumps(mark), session["id"])
        )
        catalog.commit()
    running.start()
    last = {"Upload-Offset": str(len(_BIG) - 1)}
    done = client.post(session["url"], content=_BIG[-1:], headers=last)
    assert (done.status_code, done.json()["bytes"]) == (200, len(_BIG))
    assert (folder / "f").read_bytes() == _BIG


def test_digests_and_a_length_that_comes_late(
    client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    whole = "sha-256=:" + base64.b64encode(hashlib.sha256(_BIG).digest()).decode() + ":"
    wrong = "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"
    headers = {"Upload-Defer-Length": "1"}
    session = begin(client, bucket, "f", 0, headers=headers).json()
    client.post(session["url"], content=_BIG[:5], headers={"Upload-Offset": "0"})
    last = {"Upload-Offset": "5", "Upload-Length": str(len(_BIG))}
    refused = client.post(session["url"], content=_BIG[5:], headers={**last, "Repr-Digest": wrong})
    assert refused.status_code == 400
    assert not (folder / "f").exists()
    kept = client.post(session["url"], content=_BIG[5:], headers={**last, "Repr-Digest": whole})
    assert kept.status_code == 200
    assert (folder / "f").read_bytes() == _BIG
    for digest, status in ((wrong, 400), (whole, 200)):
        headers = {"Content-Digest": digest}
        answer = client.put(f"{bucket}/g?alt=media", content=_BIG, headers=headers)
        assert answer.status_code == status
        assert (folder / "g").exists() == (status == 200)
    assert not litter(folder)


def test_unchanged_bytes_are_taken_from_what_is_there(
    client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    (folder / "f").write_bytes(_BIG)
    etag = client.get(f"{bucket}/f?view=full").json()["etag"]
    for data, status in ((_BIG, 200), (b"others wrote", 410)):
        session = begin(client, bucket, "f", len(_BIG) + 1, headers={"Files-Base": etag}).json()
        if data != _BIG:
            (folder / "f").write_bytes(data)
        base = {"Files-Copy-Base": "200000", "Upload-Offset": "0"}
        copied = client.post(session["url"], headers=base)
        assert copied.status_code == status
        if status == 200:
            client.post(session["url"], content=_BIG[200_000:] + b"!").raise_for_status()
            assert (folder / "f").read_bytes() == _BIG + b"!"
            etag = client.get(f"{bucket}/f?view=full").json()["etag"]


def test_conditions_hold_at_the_beginning_and_at_the_end(
    client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    only_new = {"If-None-Match": "*"}
    (folder / "there").write_text("x")
    assert begin(client, bucket, "there", 1, headers=only_new).status_code == 412
    late = begin(client, bucket, "late", 3, headers=only_new).json()
    (folder / "late").write_text("mine")
    assert client.post(late["url"], content=b"abc").status_code == 412
    assert (folder / "late").read_text() == "mine"
    etag = client.get(f"{bucket}/there?view=full").json()["etag"]
    match = {"If-Match": etag}
    session = begin(client, bucket, "there", 3, headers=match).json()
    (folder / "there").write_text("another")
    assert client.post(session["url"], content=b"abc").status_code == 412
    assert client.delete(f"{bucket}/there", headers=match).status_code == 412
    assert client.patch(f"{bucket}/there", json={"mode": 0o600}, headers=match).status_code == 412
    assert (folder / "there").read_text() == "another"
    gone = begin(client, bucket, "there", 3, resource_id=f"{bucket}.1").json()
    (folder / "there").unlink()
    assert client.post(gone["url"], content=b"abc").status_code == 410
    assert not (folder / "there").exists()
    assert not litter(folder)


def test_a_cancelled_session_leaves_nothing(
    running: RunningServer, client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    session = begin(client, bucket, "f", 10).json()
    client.post(session["url"], content=b"12345")
    client.delete(session["url"]).raise_for_status()
    assert client.get(session["url"]).status_code == 410
    assert list(folder.iterdir()) == []
    assert session["id"] not in [path.name for path in (running.data_dir / "uploads").iterdir()]


def test_mode_and_times_come_with_the_content_and_later(
    client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    attributes = {"mode": 0o640, "modified_ns": 1_234_567_890_123_456_789}
    session = begin(client, bucket, "f", 2, attributes=attributes).json()
    client.post(session["url"], content=b"ab").raise_for_status()
    status = (folder / "f").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 1_234_567_890_123_456_789)
    changed = client.patch(f"{bucket}/f?view=full", json={"mode": 0o604, "accessed_ns": 5})
    assert (changed.json()["mode"], changed.json()["accessed_ns"]) == (0o604, 5)
    client.put(f"{bucket}/f?alt=media", content=b"new").raise_for_status()
    assert (folder / "f").stat().st_mode & 0o7777 == 0o604  # replaced content keeps the mode
    made = client.put(f"{bucket}/d/e/?alt=media", headers={"Files-Attributes": '{"mode": 448}'})
    assert made.status_code == 200
    assert (folder / "d" / "e").stat().st_mode & 0o7777 == 0o700
    again = client.put(f"{bucket}/d/e/?alt=media", headers={"If-None-Match": "*"})
    assert again.status_code == 412
    client.patch(f"{bucket}/d/", json={"mode": 0o711}).raise_for_status()
    assert (folder / "d").stat().st_mode & 0o7777 == 0o711
    assert client.delete(f"{bucket}/d/").status_code == 409
    client.delete(f"{bucket}/d/e/").raise_for_status()
    assert not (folder / "d" / "e").exists()


def test_what_a_location_cannot_keep_is_501(client: httpx.Client, place: tuple[str, Path]) -> None:
    bucket, folder = place
    (folder / "f").write_text("x")
    assert client.patch(f"{bucket}/f", json={"xattrs": {"user.a": "eA=="}}).status_code == 501
    assert client.patch(f"{bucket}/f", json={"mime_type": "image/png"}).status_code == 501
    link = begin(client, bucket, "link", 1, mime_type="inode/symlink")
    assert link.status_code == 501
    for method in ("MOVE", "BIND"):
        headers = {"Destination": f"/v1/files/{bucket}/g"}
        assert client.request(method, f"{bucket}/f", headers=headers).status_code == 501
    assert os.listdir(folder) == ["f"]


def test_sessions_need_rw_and_go_through_no_link(
    client: httpx.Client, root: Path, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    outside = root.parent / "outside"
    outside.mkdir(exist_ok=True)
    (folder / "lead").symlink_to(outside)
    for key in ("lead/planted", "lead"):
        answer = begin(client, bucket, key, 1)
        if answer.status_code == 200:
            answer = client.post(answer.json()["url"], content=b"x")
        assert answer.status_code in (200, 403, 409)
    assert list(outside.iterdir()) == []
    reading = root / f"{bucket}-ro"
    reading.mkdir()
    register(client, reading)
    refused = begin(client, reading.name, "f", 1)
    assert refused.status_code == 403
    assert "mode=rw" in refused.json()["detail"]
    assert client.patch(f"{reading.name}/f", json={"mode": 0o600}).status_code in (403, 404)


def test_an_unmounted_location_is_503_and_not_empty(client: httpx.Client, root: Path) -> None:
    folder = root / "stick"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        mount_tmpfs(folder, stack)
        (folder / "f").write_text("x")
        before = register(client, folder, mode="rw").json()
        session = begin(client, "stick", "new", 1).json()
        subprocess.run(["umount", folder], check=True)
        for path in ("stick", "stick/f", "stick/f?alt=media", "stick?delimiter=/&view=full"):
            assert client.get(path).status_code == 503, path
        assert client.put("stick/g?alt=media", content=b"x").status_code == 503
        away = client.post(session["url"], content=b"x")
        assert away.status_code == 503
        assert "Mount it" in away.json()["detail"]
        assert register(client, folder).json() == {**before, "status": "unavailable"}
        assert client.get("stick").status_code == 503  # asking again has not changed that
        assert list(folder.iterdir()) == []
        mount_tmpfs(folder, stack)
        assert client.get("stick").json() == {"data": []}
        client.post(session["url"]).raise_for_status()  # its byte is here already
        assert (folder / "new").read_text() == "x"


def test_delete_of_a_registered_file_leaves_its_data_also_where_writing_is_allowed(
    client: httpx.Client, place: tuple[str, Path]
) -> None:
    bucket, folder = place
    (folder / "one").write_text("1")
    register(client, folder, "one", mode="rw")
    client.delete(f"{bucket}/one").raise_for_status()
    assert (folder / "one").read_text() == "1"
    client.delete(f"{bucket}/one").raise_for_status()  # by now only a file of the whole location
    assert not (folder / "one").exists()


def test_a_session_that_shares_a_version_of_a_bucket_before(
    root: Path, client: httpx.Client
) -> None:
    """It began when the name was a bucket's. Neither gets the other's bytes."""
    folder = root / f"location{next(_numbers)}"
    folder.mkdir()
    name, old = folder.name, os.urandom(9 << 20)
    base = client.put(f"{name}/f?alt=media", content=old).headers["etag"]
    answer = begin(client, name, "f", len(old), headers={"Files-Base": base})
    assert answer.headers["files-shares-base"] == "1"
    url, half = answer.json()["url"], 4 << 20
    first = {"Upload-Offset": "0", "Files-Copy-Base": str(half)}
    client.post(url, headers=first).raise_for_status()
    client.delete(f"{name}/f").raise_for_status()
    client.delete(name).raise_for_status()
    register(client, folder, mode="rw")
    new = os.urandom(len(old) - half)
    client.post(url, content=new, headers={"Upload-Offset": str(half)}).raise_for_status()
    assert (folder / "f").read_bytes() == old[:half] + new
    assert (folder / "f").stat().st_nlink == 1
    client.delete(name).raise_for_status()

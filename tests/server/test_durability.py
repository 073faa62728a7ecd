"""What survives kill -9: acknowledged content does, a torn upload resumes, leftovers go."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import httpx
import pytest

from tests.server.running import RunningServer, running_server

MIB = 1 << 20


def new_session(server: RunningServer, size: int) -> str:
    body = {"bucket": "b", "key": "k", "mime_type": "x", "size": size}
    url: str = httpx.post(f"{server.url}/v1/files", json=body).json()["url"]
    return url


def send_torn(
    server: RunningServer, url: str, announced: int, data: bytes, *lines: str
) -> socket.socket:
    """A POST whose body stays behind its Content-Length; the caller closes the socket."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    path = url.removeprefix(server.url)
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {announced}", *lines]
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)
    return connection


def await_offset(url: str, offset: int) -> None:
    """Until the server shows this offset; bounded by the test's timeout."""
    while httpx.get(url).json()["offset"] != offset:
        pass


@pytest.mark.parametrize("size", [10, 300_000])
def test_an_acknowledged_put_survives(data_dir: Path, size: int) -> None:
    data = os.urandom(size)
    with running_server(data_dir) as server:
        url = f"{server.url}/v1/files/b/k?alt=media"
        etag = httpx.put(url, content=data).headers["etag"]
        server.kill()
        server.start()
        found = httpx.get(url)
        assert (found.content, found.headers["etag"]) == (data, etag)


def test_a_session_goes_on_after_a_crash(data_dir: Path) -> None:
    data = os.urandom(3 * MIB)
    with running_server(data_dir) as server:
        url = new_session(server, len(data))
        httpx.post(url, content=data[:MIB])
        server.kill()
        torn = next((data_dir / "uploads").iterdir())
        with torn.open("ab") as file:
            file.write(b"never acknowledged")
        server.start()
        assert httpx.get(url).json()["offset"] == MIB
        assert httpx.post(url, content=data[MIB:]).json()["bytes"] == len(data)
        assert httpx.get(f"{server.url}/v1/files/b/k?alt=media").content == data


def test_leftovers_are_swept(data_dir: Path) -> None:
    with running_server(data_dir) as server:
        httpx.put(f"{server.url}/v1/files/b/k?alt=media", content=os.urandom(100_000))
        server.kill()
        (data_dir / "uploads" / "orphan").write_bytes(b"x")
        (data_dir / "blobs" / "00" / "orphan").write_bytes(b"x")
        server.start()
        assert list((data_dir / "uploads").iterdir()) == []
        assert len(list((data_dir / "blobs").glob("*/*"))) == 1
        assert len(httpx.get(f"{server.url}/v1/files/b/k?alt=media").content) == 100_000


def test_a_published_blob_without_its_commit_is_an_upload_again(data_dir: Path) -> None:
    data = os.urandom(2 * MIB)
    with running_server(data_dir) as server:
        url = new_session(server, len(data))
        httpx.post(url, content=data[:MIB])
        server.kill()
        upload = next((data_dir / "uploads").iterdir())
        upload.rename(data_dir / "blobs" / "00" / upload.name)  # as if killed between the two
        server.start()
        assert httpx.post(url, content=data[MIB:]).json()["bytes"] == len(data)
        assert httpx.get(f"{server.url}/v1/files/b/k?alt=media").content == data


def test_a_broken_part_counts_for_nothing_without_an_offset(server: RunningServer) -> None:
    url = new_session(server, 4 * MIB)
    httpx.post(url, content=b"x" * MIB)
    with send_torn(server, url, MIB, b"y" * 1000):
        pass
    await_offset(url, MIB)
    done = httpx.post(url, content=b"z" * (3 * MIB), headers={"Upload-Offset": str(MIB)})
    assert done.json()["bytes"] == 4 * MIB
    assert httpx.get(done.json()["url"]).content == b"x" * MIB + b"z" * (3 * MIB)


def test_a_broken_part_keeps_its_prefix_with_an_offset(server: RunningServer) -> None:
    data = os.urandom(3 * MIB)
    url = new_session(server, len(data))
    with send_torn(server, url, len(data), data[:2_000_000], "Upload-Offset: 0"):
        while not httpx.head(url).headers["upload-offset"].isdigit():
            pass
    await_offset(url, 2_000_000)
    wrong = httpx.post(url, content=b"x", headers={"Upload-Offset": "5"})
    assert (wrong.status_code, wrong.headers["upload-offset"]) == (409, "2000000")
    assert wrong.headers["files-error"] == "offset"
    done = httpx.post(url, content=data[2_000_000:], headers={"Upload-Offset": "2000000"})
    assert httpx.get(done.json()["url"]).content == data


def test_two_parts_at_a_time(server: RunningServer) -> None:
    data = os.urandom(2 * MIB)
    url = new_session(server, len(data))
    with send_torn(server, url, len(data), data[:MIB], "Upload-Offset: 0") as older:
        while True:  # until the older one is at work
            second = httpx.post(url, content=data[:10])
            if second.status_code == 409 and second.headers["files-error"] == "busy":
                break
            assert second.status_code == 409
        offset = "0"
        while True:
            third = httpx.post(url, content=data[int(offset) :], headers={"Upload-Offset": offset})
            if third.status_code == 200:
                break
            offset = third.headers["upload-offset"]
        assert b" 409 " in older.recv(4096).split(b"\r\n")[0]
    assert httpx.get(third.json()["url"]).content == data


def test_cancel(server: RunningServer) -> None:
    url = new_session(server, 10)
    httpx.post(url, content=b"abc")
    assert httpx.delete(url).status_code == 200
    assert httpx.get(url).status_code == 410
    assert httpx.post(url, content=b"x").status_code == 410


def test_a_length_that_is_not_yet_known(server: RunningServer) -> None:
    body = {"bucket": "deferred", "key": "k", "mime_type": "x", "size": 0}
    made = httpx.post(f"{server.url}/v1/files", json=body, headers={"Upload-Defer-Length": "1"})
    url = made.json()["url"]
    assert httpx.post(url, content=b"abc", headers={"Upload-Offset": "0"}).json() is None
    assert httpx.post(url, content=b"def", headers={"Upload-Offset": "3"}).json() is None
    last = httpx.post(url, content=b"g", headers={"Upload-Offset": "6", "Upload-Length": "7"})
    assert httpx.get(last.json()["url"]).content == b"abcdefg"


def test_a_data_folder_has_one_server(data_dir: Path) -> None:
    with running_server(data_dir), pytest.raises(RuntimeError, match="in use by another server"):
        RunningServer(data_dir, {"listen": "127.0.0.1:0"}).start()


def test_a_unix_socket(data_dir: Path, tmp_path: Path) -> None:
    with running_server(data_dir, listen=f"unix:{tmp_path}/s") as server:
        assert server.socket is not None
        transport = httpx.HTTPTransport(uds=str(server.socket))
        with httpx.Client(transport=transport, base_url=server.url) as client:
            client.put("/v1/files/b/k?alt=media", content=b"x")
            entry = client.get("/v1/files/b/k").json()
            assert entry["url"] == "http://localhost/v1/files/b/k?alt=media"
            assert client.get(entry["url"]).content == b"x"


def test_copying_from_the_base_version(server: RunningServer) -> None:
    data = os.urandom(3 * MIB)
    path = f"{server.url}/v1/files/based/k?alt=media"
    etag = httpx.put(path, content=data).headers["etag"]
    body = {"bucket": "based", "key": "k", "mime_type": "x", "size": len(data)}
    made = httpx.post(f"{server.url}/v1/files", json=body, headers={"Files-Base": etag}).json()
    copied = httpx.post(
        made["url"], headers={"Files-Copy-Base": str(2 * MIB), "Upload-Offset": "0"}
    )
    assert copied.headers["upload-offset"] == str(2 * MIB)
    httpx.post(made["url"], content=b"n" * MIB, headers={"Upload-Offset": str(2 * MIB)})
    assert httpx.get(path).content == data[: 2 * MIB] + b"n" * MIB

"""Starting, refusing to start, and stopping: what the operator sees."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from files_server.serve import ADDRESS, DATA_FOLDER, USAGE, ServeError, check_exposure
from files_server.settings import Settings
from tests.server.running import running_server


def _refused(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "files_server.serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def test_mistakes_are_one_line_and_an_exit_code(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert _refused("--listen", "127.0.0.1:0")[0] == USAGE
    code, text = _refused("--data-dir", data, "--listen", "somewhere")
    assert (code, "somewhere" in text) == (USAGE, True)
    code, text = _refused("--data-dir", data, "--tokens-file", tmp_path / "absent")
    assert (code, "absent" in text) == (USAGE, True)
    (tmp_path / "file").touch()
    code, text = _refused("--data-dir", tmp_path / "file", "--listen", "127.0.0.1:0")
    assert (code, str(tmp_path / "file") in text) == (DATA_FOLDER, True)


def test_a_data_folder_in_use_or_newer_is_refused(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        code, text = _refused("--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0")
        assert (code, "in use" in text) == (DATA_FOLDER, True)
        address = server.url.partition("//")[2]
        code, text = _refused("--data-dir", tmp_path / "other", "--listen", address)
        assert (code, "in use" in text) == (ADDRESS, True)
    (tmp_path / "data" / "format").write_text("99\n")
    code, text = _refused("--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0")
    assert (code, "99" in text) == (DATA_FOLDER, True)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "192.0.2.1:1", "[::]:1", "example.test:1"])
def test_it_does_not_listen_beyond_the_machine_without_tokens_and_tls(
    tmp_path: Path, listen: str
) -> None:
    with pytest.raises(ServeError, match=r"tokens .* and without TLS .* --insecure"):
        check_exposure(Settings(data_dir=tmp_path, listen=listen))
    check_exposure(Settings(data_dir=tmp_path, listen=listen, insecure=True))


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/x"])
def test_it_listens_on_this_machine_without_more_ado(tmp_path: Path, listen: str) -> None:
    check_exposure(Settings(data_dir=tmp_path, listen=listen))


def test_tls_is_not_a_substitute_for_tokens(tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    settings = Settings(data_dir=tmp_path, listen="0.0.0.0:1", tls_cert=pem, tls_key=pem)
    with pytest.raises(ServeError, match="without tokens"):
        check_exposure(settings)


def test_a_stop_ends_event_streams_and_finishes_the_rest(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        url = f"{server.url}/v1/files"
        with (
            httpx.Client(timeout=10) as client,
            client.stream("GET", f"{url}?changes=1") as stream,
        ):
            chunks = stream.iter_raw()
            assert next(chunks).startswith(b":")
            uploading = threading.Event()
            answers: list[httpx.Response] = []

            def parts() -> Iterator[bytes]:
                yield b"x" * (1 << 20)  # too large for memory: it shows in uploads/ once begun
                while not any((tmp_path / "data" / "uploads").iterdir()):
                    time.sleep(0.01)
                uploading.set()
                for _ in chunks:  # goes on once the stop has ended the stream
                    pass
                yield b"y"

            def upload() -> None:
                answers.append(httpx.put(f"{url}/b/k?alt=media", content=parts(), timeout=10))

            sender = threading.Thread(target=upload)
            sender.start()
            assert uploading.wait(10)
            os.kill(server.pid, signal.SIGTERM)
            ended = os.pidfd_open(server.pid)
            sender.join(15)
        assert answers[0].status_code == 200
        assert answers[0].json()["bytes"] == (1 << 20) + 1
        assert select.select([ended], [], [], 15)[0]
        os.close(ended)
        assert server.stop() == 0


def test_a_unix_socket_is_private_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with running_server(tmp_path / "data", listen=f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o600
        code, text = _refused("--data-dir", tmp_path / "other", "--listen", f"unix:{path}")
        assert (code, "another server" in text) == (ADDRESS, True)
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport) as client:
            answer = client.put("http://localhost/v1/files/b/k?alt=media", content=b"x")
        assert answer.json()["url"].startswith("http://localhost/v1/files/b/k")
    assert not path.exists()


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    code, text = _refused("--data-dir", tmp_path / "d", "--listen", f"unix:{tmp_path}/precious")
    assert (code, "is no socket" in text) == (ADDRESS, True)
    assert (tmp_path / "precious").read_text() == "data"


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running_server(tmp_path / "data"):
            assert told.recv(100) == b"READY=1"
        assert told.recv(100) == b"STOPPING=1"

"""No secret is in the mount's log nor the server's, at debug level and when things go wrong."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from files_server.auth import new_token
from tests.fakes.plain_server import PlainServer
from tests.fakes.proxy import AnswerStatus, Corrupt, FaultProxy, Reset, Rule, Truncate
from tests.fault.between import server_behind_proxy
from tests.mount.mounting import MountedFilesystem, mounted
from tests.server.running import RunningServer

MIB = 1 << 20

pytestmark = pytest.mark.timeout(60)


def _work(mount: MountedFilesystem, proxy: FaultProxy) -> None:
    """All kinds of requests, with a fault now and then."""
    bucket = mount.path / "a"
    bucket.mkdir(exist_ok=True)
    for fault in (AnswerStatus(503), Reset(after=10), Truncate(after=300), Corrupt(position=20)):
        for skip in (0, 1, 3):
            proxy.add(Rule(fault, skip=skip))
        for size in (0, 1000, 9 * MIB):
            with contextlib.suppress(OSError):
                (bucket / "file").write_bytes(bytes(size))
                (bucket / "file").read_bytes()
                (bucket / "file").rename(bucket / "moved")
                (bucket / "moved").unlink()
        with contextlib.suppress(OSError):
            list(bucket.iterdir())
        proxy.clear()
    with contextlib.suppress(OSError):
        (bucket / "there").write_bytes(b"there")
        proxy.always(AnswerStatus(500, body=b"no JSON"))
        (bucket / "there").read_bytes()
    proxy.clear()
    with contextlib.suppress(OSError):
        (mount.path / "forbidden").mkdir()
        (mount.path / "forbidden" / "x").write_bytes(b"x")


def _session_ids(server: RunningServer) -> list[str]:
    with closing(sqlite3.connect(server.data_dir / "catalog.sqlite")) as catalog:
        return [row[0] for row in catalog.execute("SELECT id FROM sessions")]


def test_no_secret_with_our_own_server(tmp_path: Path) -> None:
    secret, line = new_token("ann", "read,write,delete", "a")
    tokens, mine = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text(f"{line}\n")
    mine.write_text(secret)
    mine.chmod(0o600)
    options = (f"token_file={mine}", "log_level=debug", "timeout=3", "cache_size=1M")
    with (
        server_behind_proxy(tmp_path / "data", tokens_file=tokens, log_level="debug") as (
            server,
            proxy,
        ),
        mounted(proxy.url, tmp_path, *options) as mount,
    ):
        _work(mount, proxy)
        (mount.path / "a" / "kept").write_bytes(b"kept")
        headers = {"Authorization": f"Bearer {secret}"}
        url = httpx.get(f"{server.url}/v1/files/a/kept", headers=headers).json()["url"]
        assert httpx.get(url).content == b"kept"
        ids = _session_ids(server)
        assert ids
        mount.unmount()
        logs = {"mount": mount.log.read_text(), "server": server.log()}
        mount.start()
    assert re.search(r" WARNING .* EIO: No answer within 3 s", logs["mount"])
    assert '"path": "/v1/files/a/kept"' in logs["server"]
    for name, text in logs.items():
        for value in (secret, "signature=", *ids):
            assert value not in text, f"{value!r} is in the {name}'s log"


def test_no_signed_url_of_other_storage(tmp_path: Path) -> None:
    """A plain server whose urls are signed and lead elsewhere: to another port."""
    with PlainServer(token="s3cret-token") as server, FaultProxy.to(server.url) as proxy:
        server.url_query = "?signature=s3cret-signature"
        token = tmp_path / "token"
        token.write_text("s3cret-token")
        token.chmod(0o600)
        options = (f"token_file={token}", "log_level=debug", "timeout=2", "cache_size=1M")
        with mounted(proxy.url, tmp_path, *options) as mount:
            _work(mount, proxy)
            with contextlib.suppress(OSError):
                (mount.path / "a" / "kept").write_bytes(b"kept")
            mount.unmount()
            text = mount.log.read_text()
            mount.start()
    assert "DEBUG" in text
    assert "s3cret" not in text
    assert "session:" not in text

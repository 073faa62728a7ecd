"""Our server over a Unix socket and over TLS: the same operations arrive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from filesfs.backend.http import HttpBackend, connect_backend
from filesfs.backend.settings import BackendSettings
from filesfs.domain import AttributeChange, Location
from filesfs.errors import AccessDenied

pytestmark = pytest.mark.trio


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "files_server.serve", "--data-dir", str(folder / "data")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), (folder / "log").read_text()
        yield line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def use(backend: HttpBackend) -> None:
    """Metadata, a large part, a large range, the feed."""
    try:
        await _use(backend)
    finally:
        await backend.aclose()


async def _use(backend: HttpBackend) -> None:
    location, data = Location("b", "d/f"), os.urandom(3_000_000)
    async with backend.changes() as changes:
        entry = await backend.put(location, data, "text/plain", AttributeChange(mode=0o600))
        while location not in (await anext(changes)).locations:
            pass
    assert await backend.read(entry, 0, len(data)) == data
    assert await backend.read(entry, 5, 10) == data[5:15]
    session = await backend.open_upload(location, "text/plain", AttributeChange(), size=3)
    await session.send(b"a")
    assert (await session.send(b"bc", final=True)) is not None
    assert (await backend.read_whole(location, 10))[1] == b"abc"


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(tmp_path, "--listen", f"unix:{path}"):
        await use(await connect_backend(BackendSettings(unix_socket=path, timeout=10)))


async def test_tls(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    options = ["--listen", "127.0.0.1:0", "--tls-cert", str(certificate), "--tls-key", str(key)]
    with serving(tmp_path, *options) as url:
        assert url.startswith("https://")
        known = BackendSettings(base_url=url, ca_file=certificate, timeout=10)
        await use(await connect_backend(known))
        with pytest.raises(AccessDenied, match="certificate"):
            await connect_backend(BackendSettings(base_url=url))


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate), *names],
        check=True,
        capture_output=True,
    )
    return certificate, key

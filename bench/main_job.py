"""The main job, once, from end to end: a real tree into a mount, out of it, and over HTTP.

    python -m bench.main_job SOURCE DIR [--files 10000] [--bytes 300M] [--big 2G] [--root FOLDER]

SOURCE is a running server as `filesfs mount` takes it; DIR is an empty directory that is mounted
and unmounted several times. FOLDER is one that the server may register (its `--file-root`): without
it, only the refusal of another is seen. Each step prints its seconds; the first wrong result ends
the job with exit code 1. It must not start a server, nor leave anything but a warm server behind.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from bench.job_tree import DOCUMENTS, build_tree, count

STEP_SECONDS = 900
BLOCK = 1 << 20
SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class WrongResult(Exception):
    """A step did not do what it must; the message says what it did."""


def run(*command: str, expect: int = 0, **environment: str) -> str:
    """A command's output. WrongResult on another exit code, or after STEP_SECONDS."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=STEP_SECONDS,
            check=False,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired as error:
        raise WrongResult(f"{command} took more than {STEP_SECONDS} s") from error
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode != expect:
        raise WrongResult(f"{command} ended with {done.returncode}, not {expect}: {said[-2000:]}")
    return said


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise WrongResult(otherwise)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Print the name of a step and its seconds."""
    print(f"{name:<44}", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"{time.monotonic() - started:9.2f} s  WRONG", flush=True)
        raise
    print(f"{time.monotonic() - started:9.2f} s", flush=True)


def drop_caches() -> None:
    """The kernel's clean pages, so that what is read comes from the server. Root only."""
    os.sync()
    with contextlib.suppress(PermissionError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Job:
    """One run; it owns the mount, a scratch folder and one bucket."""

    def __init__(self, source: str, mount: Path, scratch: Path, root: Path | None) -> None:
        self.source = source
        self.mount = mount
        self.scratch = scratch
        self.may_register = root
        self.tree = scratch / "tree"
        self.bucket = f"main-job-{os.getpid()}"
        self.root = mount / self.bucket
        self._filesfs = str(Path(sys.executable).with_name("filesfs"))

    def mounted(self, options: str = "rw") -> None:
        cache = f"cache_dir={self.scratch / 'cache'}"
        run(self._filesfs, "mount", self.source, str(self.mount), "-o", f"{options},{cache}")

    def unmounted(self) -> None:
        run(self._filesfs, "umount", str(self.mount))

    def anew(self, options: str = "rw") -> None:
        self.unmounted()
        drop_caches()
        self.mounted(options)

    def clean(self) -> None:
        if os.path.ismount(self.mount):
            with contextlib.suppress(OSError):
                shutil.rmtree(self.root, ignore_errors=True)
            with contextlib.suppress(WrongResult):
                self.unmounted()

    def curl(self, *arguments: str, expect: str = "200") -> bytes:
        """A request; the last argument is the path below the server's /v1. The body."""
        *options, path = arguments
        where = ["--unix-socket", self.source[5:]] if self.source.startswith("unix:") else []
        base = "http://localhost" if where else self.source
        url = f"{base}/v1{path}"
        body = self.scratch / "body"
        body.unlink(missing_ok=True)
        command = ["curl", "-sS", *where, "-o", str(body), "-w", "%{http_code}", *options, url]
        status = run(*command)
        content = body.read_bytes() if body.exists() else b""
        require(status == expect, f"{command} answered {status}: {content[:400]!r}")
        return content

    def copy_in(self) -> None:
        self.root.mkdir()
        run("cp", "-r", str(self.tree), str(self.root))

    def compare(self) -> None:
        run("diff", "-r", "--no-dereference", str(self.tree), str(self.root / "tree"))

    def walk(self) -> None:
        there, here = (count(self.root / "tree"), count(self.tree))
        require(there == here, f"the mount has {there} entries, the source {here}")
        run("ls", "-lR", str(self.root))

    def search(self) -> None:
        found = run("grep", "-rl", "straße", str(self.root / "tree" / "Größe und Maß"))
        require(len(found.splitlines()) == DOCUMENTS, f"grep found {len(found.splitlines())}")
        run("grep", "-rc", "import os", str(self.root / "tree"))

    def apparent_size(self) -> None:
        """Bytes of regular files; a directory's own size differs between file systems."""
        sizes = [
            sum(p.lstat().st_size for p in top.rglob("*") if p.is_file() and not p.is_symlink())
            for top in (self.tree, self.root / "tree")
        ]
        require(sizes[0] == sizes[1], f"source and mount have {sizes} bytes")
        run("du", "-s", str(self.root))

    def big_file(self, size: int) -> None:
        path, digest = self.root / "big", hashlib.sha256()
        with step(f"write {size >> 20} MiB and close"), path.open("wb") as stream:
            for _ in range(size // BLOCK):
                block = os.urandom(BLOCK)
                digest.update(block)
                stream.write(block)
        drop_caches()
        with step("read it back by SHA-256"):
            require(sha256(path) == digest.hexdigest(), "the big file came back different")
        path.unlink()

    def over_http(self) -> None:
        self.curl("/files")
        listed = json.loads(self.curl(f"/files/{self.bucket}"))["data"]
        files = sum(p.is_file() and not p.is_symlink() for p in self.tree.rglob("*"))
        regular = [entry for entry in listed if not entry["mime_type"].startswith("inode/")]
        require(len(regular) == files, f"HTTP lists {len(regular)} files, the tree has {files}")
        for entry in regular[:: max(1, len(regular) // 20)]:
            path = f"/files/{self.bucket}/{entry['key']}"
            require(json.loads(self.curl(path))["bytes"] == entry["bytes"], f"{path}: other size")
            content = self.curl(f"{path}?alt=media")
            require(len(content) == entry["bytes"], f"{path} gave {len(content)} bytes")

    def uploads(self) -> None:
        """Two parts, and one shot; both are seen under the mount at once."""
        parts = os.urandom(3000), os.urandom(5000)
        request = {"bucket": self.bucket, "key": "two/parts", "mime_type": "a/b", "size": 8000}
        opened = json.loads(self.curl("-d", json.dumps(request), "/files"))
        for part in parts:
            self.send(part, "POST", f"/files/session:{opened['id']}")
            left = json.loads(self.curl(f"/files/session:{opened['id']}"))
            require(left["size"] == 8000, f"the session says {left}")
        require(left["offset"] == 8000, f"the completed session says {left}")
        self.send(parts[0], "PUT", f"/files/{self.bucket}/one-shot?alt=media")
        seen = [(self.root / name).read_bytes() for name in ("two/parts", "one-shot")]
        require(seen == [parts[0] + parts[1], parts[0]], "an upload shows differently in the mount")
        self.curl("-X", "DELETE", f"/files/{self.bucket}/one-shot")
        self.curl(f"/files/{self.bucket}/one-shot", expect="404")

    def registers(self) -> None:
        """Operations 8 and 9: a bucket by its name, a folder and a file by their URI."""
        new = f"{self.bucket}-new"
        said = json.loads(self.curl("-X", "PUT", f"/files/{new}"))
        require(said["bucket"] == new and said["status"] == "available", f"op 8 said {said}")
        require((self.mount / new).is_dir(), f"{new} is not in the mount")
        self.curl("-X", "DELETE", f"/files/{new}")
        self.curl("-X", "PUT", f"/files/{_uri(Path('/etc'))}", expect="403")
        if self.may_register is None:
            return
        with tempfile.TemporaryDirectory(dir=self.may_register) as folder:
            (Path(folder) / "there").write_text("known")
            os.chmod(folder, 0o755)  # the server may be another user
            self.curl("-X", "PUT", f"/files/{_uri(Path(folder))}?name={new}")
            seen = (self.mount / new / "there").read_text()
            require(seen == "known", f"the registered file shows {seen!r}")
            self.curl("-X", "DELETE", f"/files/{new}")
            self.curl("-X", "PUT", f"/files/{_uri(Path(folder))}/there")
            require((Path(folder) / "there").exists(), "the data went with its name")

    def send(self, content: bytes, method: str, path: str) -> None:
        part = self.scratch / "part"
        part.write_bytes(content)
        self.curl("-X", method, "--data-binary", f"@{part}", path)

    def interrupt(self) -> None:
        """Ctrl-C in a copy: cp ends, and the mount goes on."""
        command = ["cp", "-r", str(self.tree), str(self.root / "cut")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as copying:
            time.sleep(0.5)
            copying.send_signal(signal.SIGINT)
            copying.wait(60)
        (self.root / "after").write_text("after")
        require((self.root / "after").read_text() == "after", "no writing after Ctrl-C")

    def editors(self) -> None:
        path = self.root / "a note é.txt"
        path.write_text("one\ntwo\n")
        run("sed", "-i", "s/one/eins/", str(path))
        if shutil.which("vim"):
            run("vim", "-es", "-u", "NONE", "-c", "%s/two/zwei/", "-c", "wq", str(path))
        expected = "eins\nzwei\n" if shutil.which("vim") else "eins\ntwo\n"
        require(path.read_text() == expected, f"edited, it is {path.read_text()!r}")

    def refusals(self) -> None:
        """What must fail, with the exit code that README promises."""
        filesfs, other = self._filesfs, str(self.scratch / "other")
        Path(other).mkdir()
        run(filesfs, "mount", "http://127.0.0.1:9", other, "-o", "timeout=2", expect=32)
        run(filesfs, "mount", self.source, other, "-o", "no_such_option", expect=2)
        run(filesfs, "mount", self.source, str(self.tree), expect=32)  # not empty
        with (self.root / "after").open():
            run("umount", str(self.mount), expect=32)
        run("df", str(self.mount))
        # Its exit code is about every mount of the machine; another's is no matter of ours.
        status = subprocess.run(
            [filesfs, "status"], stdout=subprocess.PIPE, timeout=60, check=False
        )
        wanted = f"{self.mount}  serving"
        require(wanted in status.stdout.decode(), f"status does not say {wanted!r}")

    def read_only(self) -> None:
        self.anew("ro")
        try:
            run("touch", str(self.root / "x"), expect=1)
            require((self.root / "after").read_text() == "after", "reading failed")
        finally:
            self.anew()


def _uri(path: Path) -> str:
    """A location as one segment of a path."""
    return quote(f"file://{path}", safe="")


def perform(job: Job, files: int, size: int, big: int) -> None:
    """All steps in order."""
    steps: list[tuple[str, Callable[[], None]]] = [
        ("mount", job.mounted),
        ("cp -r into a new bucket", job.copy_in),
        ("unmount, drop caches, mount", job.anew),
        ("diff -r", job.compare),
        ("walk and ls -lR", job.walk),
        ("sizes and du -s", job.apparent_size),
        ("grep -r", job.search),
        ("list and fetch over HTTP", job.over_http),
        ("uploads over HTTP seen in the mount", job.uploads),
        ("register over HTTP", job.registers),
        ("Ctrl-C in a copy", job.interrupt),
        ("sed -i and vim", job.editors),
        ("refusals, df, status", job.refusals),
        ("read-only mount", job.read_only),
        ("rm -r", lambda: shutil.rmtree(job.root)),
    ]
    with step(f"build a tree of {files} files"):
        build_tree(job.tree, files, size)
    for name, action in steps:
        if name == "rm -r" and big:
            job.big_file(big)
        with step(name):
            action()


def size_of(text: str) -> int:
    return int(text[:-1]) * SUFFIXES[text[-1]] if text[-1:] in SUFFIXES else int(text)


def main() -> int:
    """0 when all went well, 1 on the first wrong result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("source", help="http://HOST:PORT or unix:PATH of a running server")
    parser.add_argument("mount", type=Path, help="an empty directory")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--bytes", type=size_of, default=size_of("300M"), help="of the tree")
    parser.add_argument("--root", type=Path, help="a folder that the server may register")
    parser.add_argument("--big", type=size_of, default=size_of("2G"), help="0: no big file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="main-job-") as scratch:
        job = Job(given.source.rstrip("/"), given.mount.resolve(), Path(scratch), given.root)
        try:
            perform(job, given.files, given.bytes, given.big)
        except (WrongResult, OSError) as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            job.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())

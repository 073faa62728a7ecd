"""A bucket of very many files, through the mount and at the server: does anything but a listing
depend on how many there are?

    python -m bench.million [--files 1000000] [--folder 100000] [--out FOLDER]

The files are made over the API. It must not compare with peers. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench import http, machine
from bench.scaling import each, listed, seconds, table
from bench.systems import Filesfs, drop_caches

MAKERS = 8  # processes that fill the bucket
SAMPLE = 100  # operations of one kind


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and servers end
    before = machine.load()
    system, folder = Filesfs(), Path(tempfile.mkdtemp(prefix="filesfs-bench-"))
    rows = []
    try:
        with system.serve(folder):
            for first, last in _stages(given.files, given.folder):
                _fill(folder, range(first, last), given.folder)
                rows.append(_measured(system, folder, last, given.folder))
                print(rows[-1], file=sys.stderr, flush=True)
    finally:
        if not os.path.ismount(folder / "mnt"):
            shutil.rmtree(folder, ignore_errors=True)
    text = f"{machine.describe(before)}\n\n{table(rows)}"
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "million.md").write_text(text + "\n")
    (given.out / "million.json").write_text(json.dumps(rows))
    print(text)
    return 0


def _stages(files: int, folder: int) -> Iterator[tuple[int, int]]:
    """One folder full, and then all of them."""
    yield 0, min(files, folder)
    if files > folder:
        yield folder, files


def _name(number: int, folder: int) -> str:
    return f"d{number // folder:03}/file-{number % folder:06}"


def _fill(folder: Path, numbers: range, size: int) -> None:
    parts = [numbers[start::MAKERS] for start in range(MAKERS)]
    with ProcessPoolExecutor(MAKERS) as pool:
        list(pool.map(_make, [str(folder / "server.sock")] * MAKERS, parts, [size] * MAKERS))


def _make(address: str, numbers: range, size: int) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    for number in numbers:
        target = f"/v1/files/bench/{_name(number, size)}?alt=media"
        connection.sendall(http.put_head(target, 1) + b"x")
        http.answer(connection)


def _measured(system: Filesfs, folder: Path, files: int, size: int) -> dict[str, float]:
    """One folder: microseconds of an operation, seconds of a listing; the mount's memory."""
    row: dict[str, float] = {"files": files}
    chosen = random.Random(files)
    drop_caches()
    with system.mount(folder) as root:
        where = root / "d000"
        names = [where / f"file-{number:06}" for number in chosen.sample(range(size), SAMPLE)]
        row["one lookup us"] = each(names[:3], os.stat)
        row["cold ls s"] = seconds(lambda: listed(where))
        row["hot ls s"] = seconds(lambda: listed(where))
        row["hot stat us"] = each(names, os.stat)
        new = [where / f"new-{number}" for number in range(SAMPLE)]
        row["create us"] = each(new, lambda path: path.write_bytes(b"x"))
        row["unlink us"] = each(new, os.unlink)
        row["ls -lR s"] = seconds(lambda: [listed(one) for one in root.iterdir()])
        row["mount MiB"] = _resident() / (1 << 20)
    return row


def _resident() -> int:
    """Bytes of memory of the mount, which is a child of ours."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            command = (status.parent / "cmdline").read_bytes().split(b"\0")
            if int(fields["PPid"]) == os.getpid() and b"filesfs.cli" in command:
                return int(fields["VmRSS"].split()[0]) << 10
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A bucket of very many files.")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=int, default=100_000, help="files of one folder")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""What an operation costs as files grow and as folders grow, on one system.

    python -m bench.scaling [--largest 1G] [--most 10000] [--out FOLDER]

Sizes go from 1 KiB up in steps of 16, counts from 10 up in steps of 10. It must not compare with
peers: whether a cost stays flat is seen within one system. Needs root, as `python -m bench` does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import machine
from bench.main_job import size_of
from bench.systems import Filesfs, drop_caches

MIB = 1 << 20
SMALLEST, SIZE_STEP = 1 << 10, 16
FEWEST, COUNT_STEP = 10, 10
SAMPLE = 100  # operations of one kind in a folder of any size
THREADS = 8

Rows = list[dict[str, float]]


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and servers end
    before = machine.load()
    system, folder = Filesfs(), Path(tempfile.mkdtemp(prefix="filesfs-bench-"))
    try:
        with system.serve(folder):
            sizes = [_size(system, folder, size) for size in _sizes(given.largest)]
            counts = [_count(system, folder, count) for count in _counts(given.most)]
    finally:
        if not os.path.ismount(folder / "mnt"):
            shutil.rmtree(folder, ignore_errors=True)
    text = "\n\n".join(
        [machine.describe(before), table(sizes), table(counts)],
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scaling.md").write_text(text + "\n")
    (given.out / "scaling.json").write_text(json.dumps({"sizes": sizes, "counts": counts}))
    print(text)
    return 0


def _sizes(largest: int) -> Iterator[int]:
    size = SMALLEST
    while size < largest:
        yield size
        size *= SIZE_STEP
    yield largest


def _counts(most: int) -> Iterator[int]:
    count = FEWEST
    while count <= most:
        yield count
        count *= COUNT_STEP


def _size(system: Filesfs, folder: Path, size: int) -> dict[str, float]:
    """Seconds to write a file with fsync, to append 1 KiB to it, to change 4 KiB in its middle in a
    mount that has not seen it (a second time: with the file open), and to read it cold."""
    name, block = f"size-{size}", os.urandom(min(size, MIB))
    row: dict[str, float] = {"bytes": size}
    with system.mount(folder) as root:
        row["write s"] = seconds(lambda: _write(root / name, block, size, "wb"))
        row["append s"] = seconds(lambda: _write(root / name, block[:1024], 1024, "ab"))
    drop_caches()
    with system.mount(folder) as root, (root / name).open("r+b", buffering=0) as file:
        row["change s"] = seconds(lambda: _change(file, size // 2, block[:4096]))
        row["2nd change s"] = seconds(lambda: _change(file, size // 3, block[:4096]))
    drop_caches()
    with system.mount(folder) as root:
        row["cold read s"] = seconds(lambda: _read(root / name))
        (root / name).unlink()
    print(row, file=sys.stderr, flush=True)
    return row


def _count(system: Filesfs, folder: Path, count: int) -> dict[str, float]:
    """Seconds for a cold and a hot listing, microseconds of one operation, of a full folder."""
    name, chosen = f"count-{count}", random.Random(1)
    row: dict[str, float] = {"files": count}
    with system.mount(folder) as root:
        (root / name).mkdir()
        paths = [root / name / f"file-{number}" for number in range(count)]
        with ThreadPoolExecutor(THREADS) as pool:
            filled = seconds(lambda: [*pool.map(lambda path: path.write_bytes(b"x"), paths)])
        row["fill us a file"] = filled / count * 1e6
    drop_caches()
    with system.mount(folder) as root:
        some = [root / name / path.name for path in chosen.sample(paths, min(SAMPLE, count))]
        row["cold stat us"] = each(some, os.stat)
        row["cold ls s"] = seconds(lambda: listed(root / name))
        row["hot ls s"] = seconds(lambda: listed(root / name))
        new = [root / name / f"new-{number}" for number in range(SAMPLE)]
        row["create us"] = each(new, lambda path: path.write_bytes(b"x"))
        row["unlink us"] = each(new, os.unlink)
    print(row, file=sys.stderr, flush=True)
    return row


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def each(paths: list[Path], work: Callable[[Path], object]) -> float:
    """Microseconds of one."""
    return seconds(lambda: [work(path) for path in paths]) / len(paths) * 1e6


def _write(path: Path, block: bytes, size: int, mode: str) -> None:
    with path.open(mode, buffering=0) as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
        os.fsync(file.fileno())


def _change(file: io.FileIO, at: int, data: bytes) -> None:
    file.seek(at // 4096 * 4096)
    file.write(data)
    os.fsync(file.fileno())


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(MIB):
            pass


def listed(folder: Path) -> None:
    """As `ls -l` does."""
    with os.scandir(folder) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def table(rows: Rows) -> str:
    """As Markdown."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        first, *rest = (row[name] for name in names)
        cells = [f"{first:,.0f}", *(f"{v:,.0f}" if v >= 100 else f"{v:.4f}" for v in rest)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cost against size and count.")
    parser.add_argument("--largest", type=size_of, default=size_of("1G"))
    parser.add_argument("--most", type=int, default=10_000, help="files of the fullest folder")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""The server alone, beside what the machine allows, in one run: `python -m bench.server`.

It must not mount anything, and must not compare figures of different runs. Up to 5 GiB of disk in a
temporary folder for its time, gone at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from bench import disk, http, machine, nginx
from bench.systems import free_port, running

MIB = 1 << 20
CONNECTIONS = 8
SMALL = os.urandom(4096)
LARGE = "/v1/files/bench/large?alt=media"
GOAL_PUTS = 1500


@dataclass(frozen=True)
class Server:
    """A running server: its port, its process and its data folder."""

    port: int
    pid: int
    data: Path


@dataclass
class Figures:
    """One figure of each kind a round; times in seconds, rates a second, memory in bytes."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        print(f"{name}: {value:,.3f}", file=sys.stderr, flush=True)
        self.values.setdefault(name, []).append(value)

    def time(self, name: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        self.add(name, time.perf_counter() - started)

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers and files go
    load_before = machine.load()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="filesfs-bench-", dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "source"
        _fill(source, arguments.size * MIB)
        with _server(folder) as server:
            figures.add("memory idle", resident(server.pid))
            for number in range(arguments.rounds):
                _large_round(figures, server, source, turned=bool(number % 2))
                _small_round(figures, server, folder, number, arguments.seconds)
    print(_table(figures, arguments.size * MIB, arguments.rounds, load_before))
    return 0


def _large_round(figures: Figures, server: Server, source: Path, *, turned: bool) -> None:
    copy = source.with_name("copy")
    with Watch(server.pid) as watch:
        uploads: list[tuple[str, Callable[[], object]]] = [
            ("upload", lambda: http.upload(server.port, LARGE, source)),
            ("cp and fsync", lambda: disk.copy_durably(source, copy)),
        ]
        for name, work in uploads[::-1] if turned else uploads:
            figures.time(name, work)
    figures.add("memory, upload", watch.most)
    copy.unlink()
    _downloads(figures, server, source, turned)
    with Watch(server.pid) as watch, ThreadPoolExecutor(2) as pool:
        up = pool.submit(http.upload, server.port, LARGE.replace("large", "other"), source)
        down = pool.submit(http.download, server.port, LARGE)
        up.result(), down.result()
    figures.add("memory, both at once", watch.most)
    for key in ("large", "other"):
        http.delete(server.port, f"/v1/files/bench/{key}")


def _downloads(figures: Figures, server: Server, source: Path, turned: bool) -> None:
    """The very file that the server sends is what nginx sends; both from the page cache."""
    size = source.stat().st_size
    blob = next(p for p in server.data.rglob("*") if p.is_file() and p.stat().st_size == size)
    with (
        nginx.serving(blob.parent, source.with_name("nginx")) as theirs,
        Watch(server.pid) as watch,
    ):
        http.download(server.port, LARGE)  # warm, for all
        downloads: list[tuple[str, Callable[[], object]]] = [
            ("download", lambda: http.download(server.port, LARGE)),
            ("nginx", lambda: http.download(theirs, f"/{blob.name}")),
        ]
        for name, work in (downloads[::-1] if turned else downloads) * 2:
            figures.time(name, work)
    figures.add("memory, download", watch.most)


def _small_round(
    figures: Figures, server: Server, folder: Path, number: int, seconds: float
) -> None:
    figures.add("fdatasyncs", disk.syncs_a_second(folder, seconds / 2))
    figures.add("SQLite commits", disk.sqlite_commits_a_second(folder, seconds / 2))
    before, begin = processor_seconds(server.pid), time.time() + 0.5
    work = [(server.port, f"r{number}-c{c}", begin, seconds) for c in range(CONNECTIONS)]
    # A process for each connection: threads would wait for one another's interpreter.
    with ProcessPoolExecutor(CONNECTIONS, mp_context=get_context("spawn")) as pool:
        counts = list(pool.map(put_small, work))
    figures.add("PUTs", sum(counts) / seconds)
    figures.add("CPU a PUT", (processor_seconds(server.pid) - before) / max(sum(counts), 1))


def put_small(work: tuple[int, str, float, float]) -> int:
    """PUTs of 4 KiB on one connection, one after the other; how many were answered in time."""
    port, prefix, begin, seconds = work
    count = 0
    with http.connect(port) as connection:
        time.sleep(max(0.0, begin - time.time()))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            target = f"/v1/files/small/{prefix}/{count}?alt=media"
            connection.sendall(http.put_head(target, len(SMALL)) + SMALL)
            http.answer(connection)
            count += 1
    return count


class Watch:
    """The most resident memory, in bytes, of a process and its children while it is entered."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.most = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.most = max(self.most, resident(self._pid))


def resident(pid: int) -> int:
    """Bytes of resident memory of a process and its children, shared pages counted for each."""
    pages = (Path(f"/proc/{one}/statm").read_text().split()[1] for one in _family(pid))
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its children so far."""
    stats = (Path(f"/proc/{one}/stat").read_text().rpartition(")")[2] for one in _family(pid))
    ticks = sum(int(value) for stat in stats for value in stat.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[Server]:
    port, data = free_port(), folder / "data"
    command = [sys.executable, "-m", "files_server.serve", "--data-dir", str(data)]
    options = ["--listen", f"127.0.0.1:{port}", "--superseded-seconds", "0", "--log-level"]
    with running([*command, *options, "warning"], folder / "server.log", announces=True) as process:
        yield Server(port, process.pid, data)


def _fill(path: Path, size: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
        os.fsync(file.fileno())


def _table(figures: Figures, size: int, rounds: int, load_before: str) -> str:
    def rate(name: str) -> str:
        return f"{size / figures.median(name) / 1e6:,.0f} MB/s"

    def ratio(theirs: str, ours: str) -> str:
        return f"{figures.median(theirs) / figures.median(ours):.2f}"

    allowed = CONNECTIONS * figures.median("fdatasyncs")
    puts, cost = figures.median("PUTs"), figures.median("CPU a PUT")
    peak = max(figures.median(n) for n in figures.values if n.startswith("memory,"))
    name = f"{size // MIB} MiB"
    lines = [
        f"{machine.describe(load_before)} Medians of {rounds} rounds.\n",
        "| work | server | beside it | ratio | goal |\n|---|---|---|---|---|",
        f"| GET of {name} | {rate('download')} | nginx sendfile {rate('nginx')} "
        f"| {ratio('nginx', 'download')} | 0.8 |",
        f"| PUT of {name}, durable | {rate('upload')} | cp and fsync {rate('cp and fsync')} "
        f"| {ratio('cp and fsync', 'upload')} | 0.6 |",
        f"| PUTs of 4 KiB, {CONNECTIONS} connections, durable | {puts:,.0f} /s "
        f"| SQLite commits one by one {figures.median('SQLite commits'):,.0f} /s "
        f"| {puts / figures.median('SQLite commits'):.2f} | {min(GOAL_PUTS, allowed):,.0f} /s |",
        f"| resident memory, {name} in flight | {peak / MIB:.0f} MiB "
        f"| idle {figures.median('memory idle') / MIB:.0f} MiB | | 150 MiB |\n",
        f"Arithmetic of the small PUTs: the disk does {allowed / CONNECTIONS:,.0f} fdatasyncs a "
        f"second one after the other. A commit costs one and serves at most {CONNECTIONS} waiting "
        f"requests, so it allows {CONNECTIONS} x {allowed / CONNECTIONS:,.0f} = {allowed:,.0f} "
        f"PUTs a second; the goal is the lesser of that and {GOAL_PUTS:,}. The server spends "
        f"{cost * 1e3:.2f} ms of processor time on a PUT, so one core of its own allows "
        f"{1 / cost:,.0f} a second.",
    ]
    memory = (
        f"{n.partition(', ')[2]} {figures.median(n) / MIB:.0f} MiB"
        for n in figures.values
        if n.startswith("memory,")
    )
    return "\n".join([*lines, f"\nResident memory at most: {', '.join(memory)}.\n"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the server beside nginx and the disk.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file")
    parser.add_argument("--seconds", type=float, default=4.0, help="of small PUTs a round")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""What one small request costs the server in processor time: `python -m bench.requests`.

It must not compare wall time: processor time by thread, from the kernel's schedstat, stays much the
same whatever else runs. The client is one process of raw sockets, and is not counted. Requests are
those that the mount sends, with its headers, at the log level that a server has by default.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import http, machine
from bench.systems import free_port, running

SMALL = os.urandom(4096)
PARTS = 10
LISTED = 300  # entries of the directory that is listed
_CHECK = "Want-Content-Digest: crc32c=10\r\n"
_ATTRIBUTES = 'Files-Attributes: {"mode":420,"uid":0,"gid":0}\r\n'
_STEP = "Files-Keep-Parent: 1\r\n"
_PATCH = b'{"mode":384,"modified_ns":1700000000000000000}'


@dataclass(frozen=True)
class Work:
    """One kind of request; `make` gives the n-th one's head and body."""

    name: str
    share: float  # of the count asked for: a listing costs as much as many others
    make: Callable[[int], bytes]


def request(method: str, target: str, fields: str = "", body: bytes | None = None) -> bytes:
    """A request with the mount's headers."""
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    head = f"{method} /v1/files/{target} HTTP/1.1\r\nHost: bench\r\n{fields}{length}"
    return f"{head}Files-Origin: 0123456789abcdef\r\n\r\n".encode() + (body or b"")


def _works() -> Iterator[Work]:
    read, named = f"Range: bytes=0-262143\r\n{_CHECK}", lambda n: f"small/d/f{n % LISTED:06}"
    yield Work("HEAD, full entry", 1, lambda n: request("HEAD", f"{named(n)}?view=full"))
    yield Work("GET, full entry", 1, lambda n: request("GET", f"{named(n)}?view=full"))
    yield Work("GET, missing", 1, lambda n: request("GET", f"small/d/none{n}?view=full"))
    media = "?alt=media&view=full"
    yield Work("GET of 4 KiB", 1, lambda n: request("GET", named(n) + media, read))
    yield Work("PUT of 4 KiB", 1, lambda n: _put(f"small/new/f{n:06}"))
    yield Work("PATCH", 1, lambda n: request("PATCH", f"small/new/f{n:06}?view=full", "", _PATCH))
    yield Work("MOVE", 1, lambda n: _move(f"small/new/f{n:06}", f"small/new/g{n:06}"))
    yield Work("DELETE", 1, lambda n: request("DELETE", f"small/new/g{n:06}", _STEP))
    query = "?prefix=d/&delimiter=/&view=full&limit=10000"
    yield Work(f"listing of {LISTED}", 0.05, lambda n: request("GET", f"small{query}"))


def _put(target: str) -> bytes:
    fields = f"Content-Type: text/plain\r\n{_ATTRIBUTES}If-None-Match: *\r\n"
    return request("PUT", f"{target}?alt=media&view=full", fields, SMALL)


def _move(source: str, destination: str) -> bytes:
    return request("MOVE", source, f"Destination: /v1/files/{destination}\r\n{_STEP}")


def processor_time(pid: int) -> dict[str, float]:
    """Seconds on a processor so far: of the event loop's thread, and of all others."""
    times = {"event loop": 0.0, "other threads": 0.0}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = "event loop" if task.name == str(pid) else "other threads"
        times[name] += int((task / "schedstat").read_text().split()[0]) / 1e9
    return times


def measure(port: int, pid: int, work: Work, connections: int, count: int) -> str:
    """A line of the table: the least of several parts, since what else runs only adds to it."""
    clients = [http.connect(port) for _ in range(connections)]
    rounds = max(1, int(count * work.share) // connections // PARTS)
    parts = []
    for part in range(PARTS):
        before = processor_time(pid)
        for number in range(part * rounds, (part + 1) * rounds):
            for client, sent in enumerate(clients):
                sent.sendall(work.make(number * connections + client))
            for client in clients:
                _answer(client, is_head=work.name.startswith("HEAD"))
        after = processor_time(pid)
        parts.append([(after[name] - before[name]) / (rounds * connections) for name in before])
    for client in clients:
        client.close()
    least = min(parts, key=sum)
    shown = " | ".join(f"{each * 1e6:,.0f}" for each in (sum(least), *least))
    return f"| {work.name} | {connections} | {shown} |"


def _answer(client: http.socket.socket, *, is_head: bool) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, rest = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    left = 0 if is_head else int(fields[b"content-length"]) - len(rest)
    while left > 0:
        left -= len(client.recv(left))


def main() -> int:
    arguments = _arguments()
    load_before = machine.load()
    with tempfile.TemporaryDirectory(prefix="filesfs-bench-") as name:
        folder, port = Path(name), free_port()
        data, listen = str(folder / "data"), f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "files_server.serve", "--data-dir", data]
        with running(
            [*command, "--listen", listen], folder / "server.log", announces=True
        ) as server:
            _prepare(port)
            print("| request | connections | us in all | event loop | other threads |")
            print("|---|---|---|---|---|")
            for connections in arguments.connections:
                for work in _works():
                    if arguments.only in work.name:
                        line = measure(port, server.pid, work, connections, arguments.count)
                        print(line, flush=True)
    print(f"\n{machine.describe(load_before)} {arguments.count} requests of each kind.")
    return 0


def _prepare(port: int) -> None:
    with http.connect(port) as client:
        for number in range(LISTED):
            client.sendall(_put(f"small/d/f{number:06}"))
            http.answer(client)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Processor time of the server for each request.")
    parser.add_argument("--count", type=int, default=2000, help="requests of each kind")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--only", default="", help="requests whose name contains this")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

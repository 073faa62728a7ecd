"""A client of raw sockets, so that what is measured is the server and not its client.

It must not check more than status and length; it is no client for anything but measurements.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

CHUNK = 4 << 20


def connect(port: int) -> socket.socket:
    """A connection to a port of loopback."""
    connection = socket.create_connection(("127.0.0.1", port), 120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def download(port: int, target: str) -> int:
    """Bytes of the body. They are discarded in the kernel (MSG_TRUNC): no copy to the client."""
    with connect(port) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        length, early = _head(connection)
        scratch = bytearray(CHUNK)
        done = early
        while done < length:
            count = connection.recv_into(scratch, min(CHUNK, length - done), socket.MSG_TRUNC)
            if not count:
                raise RuntimeError(f"GET {target} ended at {done} of {length} bytes")
            done += count
        return done


def upload(port: int, target: str, source: Path) -> None:
    """PUT of a whole file, sent by sendfile; returns when the answer is there."""
    with connect(port) as connection, source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        connection.sendall(put_head(target, size))
        connection.sendfile(file)
        answer(connection)


def put_head(target: str, size: int) -> bytes:
    """The head of a PUT with `size` bytes."""
    return f"PUT {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n".encode()


def delete(port: int, target: str) -> None:
    """DELETE of one key."""
    with connect(port) as connection:
        connection.sendall(f"DELETE {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        answer(connection)


def answer(connection: socket.socket) -> None:
    """One small answer, its body read and dropped."""
    length, early = _head(connection)
    while early < length:
        early += len(connection.recv(length - early) or _ended())


def _head(connection: socket.socket) -> tuple[int, int]:
    """(Content-Length, bytes of the body that came with the head); RuntimeError unless 200."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(4096) or _ended()
    head, _, rest = received.partition(b"\r\n\r\n")
    if b" 200 " not in head[:13]:
        raise RuntimeError(f"unexpected answer: {received[:400]!r}")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    return int(fields[b"content-length"]), len(rest)


def _ended() -> bytes:
    raise RuntimeError("the server closed the connection without an answer")

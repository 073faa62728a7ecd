"""What the files of a crash run may hold: a pure function of who wrote them.

A slot is one file that lives under one of two names. Its content is a row of chunks, each derived
from (slot, version), so that a reader can tell whole content from torn or mixed content. Pure: no
mount, no process.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass

CHUNK_BYTES = (100, 4096, 70_000, 1_500_000)  # in the journal itself, a page, spooled, a session


@dataclass(frozen=True)
class State:
    """`name` None: there is no such file."""

    name: str | None = None
    chunks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Slot:
    writer: int
    number: int

    @property
    def names(self) -> tuple[str, str]:
        stem = f"w{self.writer}-s{self.number}"
        return f"{stem}-a", f"{stem}-b"

    @property
    def chunk_bytes(self) -> int:
        return CHUNK_BYTES[self.number % len(CHUNK_BYTES)]

    def chunk(self, version: int) -> bytes:
        """The bytes of one version: its label, then bytes that only it has."""
        label = f"w{self.writer}-s{self.number} version {version}\n".encode()
        noise = random.Random(f"{self.writer}/{self.number}/{version}")
        return label + noise.randbytes(self.chunk_bytes - len(label))

    def content(self, state: State) -> bytes:
        return b"".join(map(self.chunk, state.chunks))


def line(**fields: object) -> bytes:
    """One line of a writer's side file, written with one write()."""
    return json.dumps(fields).encode() + b"\n"


def as_fields(state: State) -> dict[str, object]:
    return asdict(state)


def from_fields(fields: dict[str, object]) -> State:
    name, chunks = fields["name"], fields["chunks"]
    assert name is None or isinstance(name, str)
    assert isinstance(chunks, (list, tuple))
    return State(name, tuple(chunks))

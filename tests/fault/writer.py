"""A writer of the kill run, a process of its own: `python -m tests.fault.writer`, a job on stdin.

Before each operation it writes to its side file what it is about to do, after it what was
acknowledged. The side file is not on the mount. It ends on SIGTERM, between two operations. A slot
whose operation failed is left alone: what it holds is only known after the next mount.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from tests.fault.slots import Slot, State, as_fields, from_fields, line

MOST_CHUNKS = 4


@dataclass
class Job:
    folder: Path
    side: int
    rng: random.Random
    version: int
    states: dict[Slot, State]
    stopping: bool = False


def run(job: Job) -> None:
    while job.states and not job.stopping:
        slot = job.rng.choice(list(job.states))
        kind, after = _choose(job, slot)
        _say(job, event="begin", slot=slot.number, kind=kind, state=as_fields(after))
        try:
            _do(job.folder, slot, kind, job.states[slot], after)
        except OSError as error:
            _say(job, event="error", slot=slot.number, kind=kind, why=str(error))
            del job.states[slot]
            continue
        _say(job, event="ack", slot=slot.number, kind=kind, state=as_fields(after))
        job.states[slot] = after


def _say(job: Job, **fields: object) -> None:
    os.write(job.side, line(**fields))


def _choose(job: Job, slot: Slot) -> tuple[str, State]:
    """An operation that suits the slot's state, and the state after it."""
    state = job.states[slot]
    job.version += 1
    version = job.version
    if state.name is None:
        return "create", State(job.rng.choice(slot.names), (version,))
    kinds = ["overwrite", "replace", "patch", "rename", "unlink"]
    if len(state.chunks) < MOST_CHUNKS:
        kinds += ["append", "append"]
    kind = job.rng.choice(kinds)
    other = slot.names[slot.names.index(state.name) ^ 1]
    return kind, {
        "overwrite": replace(state, chunks=(version,)),
        "replace": replace(state, chunks=(version,)),
        "patch": replace(state, chunks=(version, *state.chunks[1:])),
        "append": replace(state, chunks=(*state.chunks, version)),
        "rename": replace(state, name=other),
        "unlink": State(),
    }[kind]


def _do(folder: Path, slot: Slot, kind: str, before: State, after: State) -> None:
    old, new = folder / str(before.name), folder / str(after.name)
    if kind == "rename":
        old.rename(new)
    elif kind == "unlink":
        old.unlink()
    elif kind == "append":
        _write(new, slot.chunk(after.chunks[-1]), os.O_APPEND)
    elif kind == "patch":
        _write(new, slot.chunk(after.chunks[0]), 0)
    elif kind == "replace":
        beside = folder / f"{slot.names[0]}.tmp"
        _write(beside, slot.chunk(after.chunks[0]), os.O_CREAT | os.O_TRUNC)
        beside.rename(new)
    else:
        _write(new, slot.chunk(after.chunks[0]), os.O_CREAT | os.O_TRUNC)


def _write(path: Path, data: bytes, flags: int) -> None:
    """Every second one is acknowledged by fsync(), the others by close() alone."""
    descriptor = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        for start in range(0, len(data), 1 << 17):
            os.write(descriptor, data[start : start + (1 << 17)])
        if data[-1] & 1:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    given = json.load(sys.stdin)
    side = os.open(given["side"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    writer = given["writer"]
    states = {Slot(writer, int(n)): from_fields(each) for n, each in given["states"].items()}
    rng = random.Random(given["seed"])
    job = Job(Path(given["folder"]), side, rng, given["version"], states)

    def stop(number: int, frame: FrameType | None) -> None:
        job.stopping = True

    signal.signal(signal.SIGTERM, stop)
    run(job)


if __name__ == "__main__":
    main()

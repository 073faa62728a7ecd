"""Reads the writers' side files, and holds a directory against what they were told.

It must not know mounts or servers: a local directory will do, and the harness's own tests use one.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault.slots import Slot, State, from_fields


@dataclass
class Ledger:
    """What one round acknowledged and attempted. `allowed` begins with what was acknowledged."""

    allowed: dict[Slot, list[State]] = field(default_factory=dict)
    acknowledged: Counter[str] = field(default_factory=Counter)
    in_flight: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    version: int = 0

    def read(self, writer: int, side: Path) -> None:
        """Take in one writer's side file; a line that a kill cut off never was."""
        open_kinds: dict[int, str] = {}
        text = side.read_text() if side.exists() else ""
        for row in (
            json.loads(each) for each in text.splitlines(keepends=True) if each[-1] == "\n"
        ):
            slot = Slot(writer, row["slot"])
            if row["event"] == "begin":
                state = from_fields(row["state"])
                self.allowed[slot].append(state)
                self.version = max(self.version, *state.chunks, 0)
                open_kinds[slot.number] = row["kind"]
            else:
                open_kinds.pop(slot.number, None)
            if row["event"] == "ack":
                self.allowed[slot] = [from_fields(row["state"])]
                self.acknowledged[row["kind"]] += 1
            if row["event"] == "error":
                self.errors.append(f"{slot}: {row['kind']}: {row['why']}")
        self.in_flight += open_kinds.values()


@dataclass
class Verdict:
    """`losses` must be empty. `states`: what each slot holds now."""

    states: dict[Slot, State] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def check(folder: Path, allowed: dict[Slot, list[State]]) -> Verdict:
    """Read every file and find the allowed state that it is in."""
    verdict = Verdict()
    listed = sorted(each.name for each in folder.iterdir())
    verdict.conflicts = [name for name in listed if ".conflict-" in name]
    for slot, states in allowed.items():
        there = [name for name in slot.names if name in listed]
        _check_slot(folder, slot, states, there, verdict)
    return verdict


def _check_slot(
    folder: Path, slot: Slot, states: list[State], there: list[str], verdict: Verdict
) -> None:
    if len(there) > 1:
        verdict.losses.append(f"{slot}: under both names: {there}; allowed {states}")
        return
    name = there[0] if there else None
    data = (folder / name).read_bytes() if name else b""
    for state in reversed(states):
        if state.name == name and slot.content(state) == data:
            verdict.states[slot] = state
            return
    what = "there is no such file" if name is None else _described(slot, data)
    verdict.losses.append(f"{slot}: {name}: {what}; allowed {states}")


def _described(slot: Slot, data: bytes) -> str:
    """Which chunks the content seems to be made of."""
    size = slot.chunk_bytes
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    labels = [part.partition(b"\n")[0].decode(errors="replace")[:60] for part in parts]
    return f"{len(data)} bytes, chunks {labels}"

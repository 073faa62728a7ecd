"""The crash run's own writers and reckoning, on a local directory: they pass, and they see harm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.ledger import Ledger, check
from tests.fault.slots import Slot, State, as_fields

SLOTS = [Slot(0, number) for number in range(4)]


@pytest.fixture
def written(tmp_path: Path) -> Ledger:
    """What a writer did in FOLDER/it until it was told to end."""
    folder, side = tmp_path / "it", tmp_path / "side"
    folder.mkdir()
    job = {
        "folder": str(folder),
        "side": str(side),
        "writer": 0,
        "seed": "a seed",
        "version": 0,
        "states": {slot.number: as_fields(State()) for slot in SLOTS},
    }
    command = [sys.executable, "-m", "tests.fault.writer"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode())
    process.stdin.close()
    try:
        while not side.exists() or side.read_bytes().count(b'"ack"') < 200:
            assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(10) == 0
    ledger = Ledger({slot: [State()] for slot in SLOTS})
    ledger.read(0, side)
    return ledger


def test_what_a_local_directory_acknowledged_is_there(written: Ledger, tmp_path: Path) -> None:
    verdict = check(tmp_path / "it", written.allowed)
    assert verdict.losses == []
    assert written.acknowledged.total() >= 200
    assert not written.errors


def test_harm_is_seen(written: Ledger, tmp_path: Path) -> None:
    """A byte changed, a file cut short, an older version, a file gone: each is a loss."""
    folder = tmp_path / "it"
    slot, states = next((s, a) for s, a in written.allowed.items() if a[-1].name)
    path = folder / str(states[-1].name)
    right = path.read_bytes()
    flipped = bytearray(right)
    flipped[-1] ^= 1
    older = slot.content(State(states[-1].name, (0,)))
    for wrong in (bytes(flipped), right[:-1], b"", older):
        path.write_bytes(wrong)
        assert len(check(folder, {slot: states}).losses) == 1
    path.unlink()
    assert len(check(folder, {slot: states}).losses) == 1


def test_a_name_that_came_back_is_seen(written: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "it"
    slot, states = next((s, a) for s, a in written.allowed.items() if a[-1].name)
    for name in slot.names:
        (folder / name).write_bytes(slot.content(states[-1]))
    assert "both names" in check(folder, {slot: states}).losses[0]

"""A log that another process appends to stays small."""

from __future__ import annotations

from pathlib import Path

from filesfs.commands.logfiles import rotate


def test_long_logs_are_put_aside_and_written_on(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("ab", buffering=0) as writer:
        for turn in range(4):
            writer.write(b"%d" % turn * 100)
            assert not rotate(log, limit=100)
            writer.write(b"\n")
            assert rotate(log, limit=100)
            assert log.stat().st_size == 0
        writer.write(b"now")
    found = {path.name: path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert found == {"server.log": b"n", "server.log.1": b"3", "server.log.2": b"2"}


def test_a_log_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert not rotate(tmp_path / "absent")

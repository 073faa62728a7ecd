"""The journal's disk: torn logs, no room, power cuts, and bytes that it lost.

Whatever it does, what was acknowledged is there, and what is not there is not acknowledged.
"""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesfs.domain import AttributeChange
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal, JournalId
from filesfs.write.log import RecordLog, whole_records
from tests.unit.journal_rig import BASE, TARGET, WHERE, content, crashed, journal, place, written

__all__ = ["journal", "place"]


def test_every_byte_at_which_the_log_may_be_torn(journal: Journal, tmp_path: Path) -> None:
    ends: list[tuple[int, list[JournalId]]] = [(journal._log.length, [])]
    expected: list[JournalId] = []
    for number in range(3):
        expected.append(journal.keep(written(journal, b"x" * number), TARGET))
        ends.append((journal._log.length, list(expected)))
    expected.append(journal.note_attributes(WHERE, AttributeChange(mode=0o600), expected[-1]))
    ends.append((journal._log.length, list(expected)))
    journal.forget(expected[0])
    ends.append((journal._log.length, expected[1:]))
    folder = crashed(journal, tmp_path / "crashed")
    whole, path = (folder / "journal.log").read_bytes(), tmp_path / "torn.log"
    for cut in range(len(whole) + 1):
        values = [value for value, _ in whole_records(whole[:cut])]
        acknowledged = [ids for end, ids in ends if end <= cut]
        assert _alive(values) == (acknowledged[-1] if acknowledged else [])
        if cut % 100 == 0:  # it waits for the disk
            _reopen_torn(path, whole[:cut], values)


def _reopen_torn(path: Path, data: bytes, values: list[dict[str, object]]) -> None:
    """What is appended after a torn record is read back too."""
    path.write_bytes(data)
    for expected in (values, [*values, {"forget": 99}]):
        log = RecordLog(path)
        assert log.read() == expected
        if expected is values:
            log.append({"forget": 99})
        log.close()


def _alive(values: list[dict[str, object]]) -> list[object]:
    alive: list[object] = []
    for value in values[1:]:
        if "forget" in value:
            alive.remove(value["forget"])
        else:
            alive.append(value["id"])
    return alive


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=40))
def test_garbage_after_the_last_record_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "journal.log"
    log = RecordLog(path)
    log.append({"a": 1})
    log.close()
    path.write_bytes(path.read_bytes() + bytes(5) + tail)
    log = RecordLog(path)
    assert log.read() == [{"a": 1}]
    assert log.torn == 5 + len(tail)
    log.close()


def test_spool_files_of_writes_that_nobody_waited_for_are_removed(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, "one")
    kept = written(journal, b"x")
    kept.spill()
    journal.keep(kept, TARGET)
    written(journal, b"y").spill()
    journal.close()
    assert len(list(journal.spool.path.iterdir())) == 2
    again = Journal.open(tmp_path, "one")
    assert [path.read_bytes() for path in again.spool.path.iterdir()] == [b"x"]
    again.close()


def test_after_a_torn_log_nothing_is_removed(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, "one")
    buffer = written(journal, b"x")
    buffer.spill()
    journal.keep(buffer, TARGET)
    journal.close()
    path = tmp_path / "journal.log"
    path.write_bytes(path.read_bytes()[:-1])
    torn = path.read_bytes()
    Journal.open(tmp_path, "one").close()
    assert torn.endswith((tmp_path / "journal.torn").read_bytes())
    assert [path.read_bytes() for path in (tmp_path / "recovered").iterdir()] == [b"x"]


def test_a_full_disk_keeps_the_earlier_record(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    buffer = written(journal, b"one")
    id = journal.keep(buffer, TARGET)
    whole = os.pwrite

    def torn(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if len(data) > 20:  # the disk takes the first bytes and no more
            return whole(descriptor, memoryview(data)[:20], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("filesfs.write.log.os.pwrite", torn)
        with pytest.raises(OSError, match="No space left"):
            journal.note_attributes(WHERE, AttributeChange(mode=0o600), id)
    last = journal.note_attributes(WHERE, AttributeChange(mode=0o600), id)
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    assert [record.id for record in again.pending()] == [id, last]
    again.close()


def test_a_full_disk_does_not_turn_a_stored_file_into_an_error(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    buffer = written(journal, b"one")
    id = journal.keep(buffer, TARGET)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("filesfs.write.log.os.pwrite", full)
        journal.forget(id)
    assert journal.pending() == ()
    buffer.close()
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    assert content(again, again.pending()[0]) == b"one"  # replay finds that it is there
    again.close()


def test_a_log_of_things_done_is_made_short_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesfs.write.journal._COMPACT_AT", 2000)
    last = journal.keep(written(journal, b"x"), TARGET)
    for _ in range(40):
        journal.forget(journal.note_attributes(WHERE, AttributeChange(mode=0o600), last))
    assert journal._log.length < 2500
    assert [record.id for record in journal.pending()] == [last]


def test_a_new_folder_is_on_the_disk_with_all_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may else take a name above the journal, and with it what was acknowledged."""
    synced: set[Path] = set()
    sync = os.fsync

    def noted(descriptor: int) -> None:
        sync(descriptor)
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", noted)
    folder = tmp_path / "var" / "cache" / "mine"
    folder.parent.mkdir(parents=True)  # as `filesfs mount` does, in a process of its own
    Journal.open(folder, "server").close()
    assert synced >= {tmp_path, tmp_path / "var", folder.parent, folder}


def test_small_content_waits_for_the_disk_once(
    journal: Journal, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr("os.fsync", waits.append)
    monkeypatch.setattr("os.fdatasync", waits.append)
    journal.keep(written(journal, b"x"), TARGET)
    assert len(waits) == (1 if place == "in the log" else 3)


@pytest.mark.parametrize("stored", [True, False])
def test_a_spool_file_does_not_go_before_its_record(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """A power cut takes what was written to the log and not waited for, and no unlink before it."""
    buffer = written(journal, b"first")
    first = journal.keep(buffer, TARGET)
    buffer.close()
    journal.keep(written(journal, b"second"), TARGET, after=first)
    durable: list[int] = []  # length of the log that is certain, at each wait for the disk
    unlinked: list[int] = []
    log = journal.folder / "journal.log"
    sync, unlink = os.fdatasync, Path.unlink

    def synced(descriptor: int) -> None:
        sync(descriptor)
        durable.append(log.stat().st_size)

    def gone(path: Path, missing_ok: bool = False) -> None:
        unlinked.append(log.stat().st_size)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(Path, "unlink", gone)
    if stored:
        journal.stored(first, BASE)
    else:
        journal.forget(first)
    assert all(length in durable for length in unlinked)


def test_content_that_the_disk_lost_is_not_acknowledged_at_the_next_try(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux fails the first fsync() after bytes were lost, and no other."""
    buffer = WriteBuffer(journal.spool, 0)
    buffer.write(0, b"lost" * 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fails)
        with pytest.raises(OSError, match="lost"):
            journal.keep(buffer, TARGET)
    with pytest.raises(OSError, match="error"):
        journal.keep(buffer, TARGET)
    assert journal.pending() == ()
    buffer.truncate(0)
    buffer.write(0, b"again" * 100_000)
    journal.keep(buffer, TARGET)
    buffer.close()


def test_a_log_that_the_disk_failed_is_written_anew(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies before the record that failed may be lost with it."""
    first = journal.keep(written(journal, b"first"), TARGET)
    before = (journal.folder / "journal.log").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fails)
        with pytest.raises(OSError, match="lost"):
            journal.note_attributes(WHERE, AttributeChange(mode=0o600), first)
    second = journal.keep(written(journal, b"second"), TARGET)
    assert (journal.folder / "journal.log").stat().st_ino != before
    assert [record.id for record in journal.pending()] == [first, second]


def _fails(_: int) -> None:
    raise OSError(errno.EIO, "lost")

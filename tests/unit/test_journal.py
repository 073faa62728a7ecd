"""The journal: what it acknowledged is there after any crash, and it is refused where it does not
belong.
"""

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from filesfs.domain import AttributeChange, Entry, ETag, Kind, Location, ResourceId
from filesfs.errors import UsageError
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal, JournalId, Record
from filesfs.write.log import RecordLog, whole_records
from filesfs.write.records import FORMAT, Payload, from_json, to_json
from filesfs.write.upload import Target

WHERE = Location("docs", "a/report.txt")
BASE = Entry(
    WHERE, Kind.FILE, 10, "text/plain", 7, "http://localhost/x", ETag('"1"'), ResourceId("r")
)
TARGET = Target(WHERE, "text/plain", AttributeChange(mode=0o600), BASE, ResourceId("r"))


class Zeros:
    async def read(self, offset: int, length: int) -> bytes:
        return b"b" * length


@pytest.fixture(params=["in the log", "in the spool"], autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with small content inside the log's records, and with all of it in spool files."""
    if request.param == "in the spool":
        monkeypatch.setattr("filesfs.write.journal.INLINE", -1)
    return str(request.param)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "cache", "server")
    yield journal
    journal.close()


def crashed(journal: Journal, to: Path) -> Path:
    """The folder as a crash leaves it: what is on disk, and nothing said goodbye."""
    return Path(shutil.copytree(journal.folder, to))


def written(journal: Journal, data: bytes, offset: int = 0, base: int = 0) -> WriteBuffer:
    buffer = WriteBuffer(journal.spool, base)
    buffer.write(offset, data)
    return buffer


def content(journal: Journal, record: Record) -> bytes:
    buffer = journal.restore(record)
    try:
        return trio.run(buffer.read, 0, buffer.size, Zeros())
    finally:
        buffer.close()


_location = st.builds(Location, st.just("docs"), st.text("ab/", max_size=9))
_change = st.builds(
    AttributeChange,
    mode=st.none() | st.integers(0, 0o7777),
    modified_ns=st.none() | st.integers(-(1 << 62), 1 << 62),
    xattrs=st.none() | st.dictionaries(st.text(max_size=5), st.none() | st.binary(max_size=9)),
)
_payload = st.builds(
    Payload,
    spool=st.sampled_from(["00ff", ""]),
    data=st.binary(max_size=9),
    size=st.integers(0, 1 << 60),
    base_size=st.integers(0),
    base_end=st.integers(0),
    extents=st.lists(st.tuples(st.integers(0), st.integers(0)), max_size=3).map(tuple),
    mime_type=st.text(),
    base=st.none() | st.just(BASE),
    resource_id=st.none() | st.just(ResourceId("r")),
    only_new=st.booleans(),
    if_match=st.none() | st.just(ETag('"x"')),
)
_record = st.builds(
    Record,
    id=st.integers(1).map(JournalId),
    location=_location,
    time=st.integers(0),
    change=_change,
    payload=st.none() | _payload,
    after=st.none() | st.integers(1).map(JournalId),
)


@given(_record)
def test_a_record_is_the_same_after_its_json(record: Record) -> None:
    assert from_json(json.loads(json.dumps(to_json(record)))) == record


def test_what_was_kept_is_there_after_a_crash(journal: Journal, tmp_path: Path) -> None:
    buffer = written(journal, b"new", 3, base=10)
    id = journal.keep(buffer, TARGET)
    buffer.write(5, b"later, and not acknowledged")
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    (record,) = again.pending()
    assert (record.id, record.location, record.change.mode) == (id, WHERE, 0o600)
    assert record.payload is not None
    assert record.payload.base == BASE
    assert content(again, record)[:5] == b"bbbne"
    assert len(content(again, record)) == 10
    again.forget(id)
    assert list(again.spool.path.iterdir()) == []
    again.close()


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


def test_keeping_again_replaces_the_record_and_goes_last(journal: Journal, place: str) -> None:
    buffer = written(journal, b"one")
    first = journal.keep(buffer, TARGET)
    other = journal.keep(written(journal, b"other"), TARGET)
    buffer.write(3, b" two")
    assert journal.keep(buffer, TARGET, first) == first
    assert [record.id for record in journal.pending()] == [other, first]
    assert content(journal, journal.pending()[1]) == b"one two"
    assert len(list(journal.spool.path.iterdir())) == 2 * (place == "in the spool")


def test_a_rewrite_from_scratch_does_not_mix_with_what_was_kept(
    journal: Journal, place: str
) -> None:
    buffer = written(journal, b"old content")
    id = journal.keep(buffer, TARGET)
    buffer.truncate(0)
    buffer.write(0, b"NEW")
    (record,) = journal.pending()
    assert content(journal, record) == b"old content"
    journal.keep(buffer, TARGET, id)
    assert content(journal, journal.pending()[0]) == b"NEW"
    buffer.close()
    assert len(list(journal.spool.path.iterdir())) == (place == "in the spool")


def test_a_record_is_a_snapshot(journal: Journal, tmp_path: Path) -> None:
    buffer = written(journal, b"0123456789")
    first = journal.keep(buffer, TARGET)
    buffer.write(10, b" and more")
    buffer.write(2, b"XX")
    second = journal.keep(buffer, TARGET, after=first)
    buffer.truncate(4)
    buffer.write(3, b"torn")
    expected = {first: b"0123456789", second: b"01XX456789 and more"}
    assert {each.id: content(journal, each) for each in journal.pending()} == expected
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    assert {each.id: content(again, each) for each in again.pending()} == expected
    again.stored(first, BASE)
    assert content(again, again.pending()[0]) == expected[second]
    again.forget(second)
    assert list(again.spool.path.iterdir()) == []
    again.close()
    assert trio.run(buffer.read, 0, 9, Zeros()) == b"01Xtorn"


def test_two_records_may_share_a_spool_file(journal: Journal, tmp_path: Path) -> None:
    buffer = written(journal, b"one")
    first = journal.keep(buffer, TARGET)
    buffer.write(3, b" two")
    second = journal.keep(buffer, TARGET, after=first)
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    for there in (journal, again):
        there.forget(first)
        (record,) = there.pending()
        assert (record.id, record.after) == (second, None)
        assert content(there, record) == b"one two"
    again.close()


def test_what_follows_a_stored_record_is_a_change_of_that_version(
    journal: Journal, tmp_path: Path
) -> None:
    new = Target(WHERE, "text/plain", AttributeChange(), None, None, only_new=True)
    buffer = written(journal, b"one")
    first = journal.keep(buffer, new)
    buffer.write(0, b"two")
    journal.keep(buffer, new, after=first)
    journal.stored(first, BASE)
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    for there in (journal, again):
        (record,) = there.pending()
        assert record.payload is not None
        assert record.payload.base == BASE
        assert record.payload.resource_id == BASE.resource_id
        assert not record.payload.only_new
        assert content(there, record) == b"two"
    again.close()


def test_attributes_and_places_change_without_the_content(journal: Journal, tmp_path: Path) -> None:
    buffer = written(journal, b"acknowledged")
    id = journal.keep(buffer, TARGET)
    other = journal.keep(written(journal, b"other"), TARGET)
    buffer.write(0, b"half-written")
    journal.add_attributes(id, AttributeChange(uid=7))
    assert [each.id for each in journal.pending()] == [id, other]  # in its place
    journal.move(id, Location("docs", "b"), "text/csv")
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    for there in (journal, again):
        record = there.pending()[1]  # as a rename that came after the other
        assert (record.id, record.location.key) == (id, "b")
        assert (record.change.mode, record.change.uid) == (0o600, 7)
        assert record.payload is not None
        assert record.payload.mime_type == "text/csv"
        assert content(there, record) == b"acknowledged"
    again.close()


def test_the_journal_of_an_older_filesfs_still_reads(journal: Journal, tmp_path: Path) -> None:
    id = journal.keep(written(journal, b"x"), TARGET)
    value = to_json(journal.pending()[0])
    del value["after"]
    old = {"kind": "upload", "what": "", "destination": None, "overwrite": True, "expected": None}
    journal._log.rewrite([{"format": 1, "server_id": "server"}, {**old, **value}])
    again = Journal.open(crashed(journal, tmp_path / "crashed"), "server")
    assert [each.id for each in again.pending()] == [id]
    assert content(again, again.pending()[0]) == b"x"
    again.close()


def test_forgotten_while_the_buffer_lives_on(journal: Journal) -> None:
    buffer = written(journal, b"x")
    id = journal.keep(buffer, TARGET)
    journal.forget(id)
    journal.forget(id)
    assert journal.pending() == ()
    assert trio.run(buffer.read, 0, 1, Zeros()) == b"x"
    buffer.rebase(1)
    assert list(journal.spool.path.iterdir()) == []


def test_a_second_daemon_is_told_who_has_the_folder(journal: Journal) -> None:
    with pytest.raises(
        UsageError, match=rf"{journal.folder}: .*process {os.getpid()}.*cache folder"
    ):
        Journal.open(journal.folder, "server")


def test_another_servers_journal_is_never_replayed(tmp_path: Path) -> None:
    first = Journal.open(tmp_path, "one")
    id = first.keep(written(first, b"x"), TARGET)
    first.close()
    with pytest.raises(UsageError, match="1 changes for the server 'one', and this is 'two'"):
        Journal.open(tmp_path, "two")
    again = Journal.open(tmp_path, "one")
    again.forget(id)
    again.close()
    Journal.open(tmp_path, "two").close()  # nothing is pending any more


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Journal.open(tmp_path, "one").close()
    log = RecordLog(tmp_path / "journal.log")
    log.rewrite([{"format": FORMAT + 1, "server_id": "one"}, {"what": "ever"}])
    log.close()
    before = (tmp_path / "journal.log").read_bytes()
    with pytest.raises(UsageError, match=f"format {FORMAT + 1}.*up to {FORMAT}"):
        Journal.open(tmp_path, "one")
    assert (tmp_path / "journal.log").read_bytes() == before


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


@pytest.mark.parametrize("theirs", [False, True])
def test_attributes_of_a_registered_file_make_the_version_that_follows_changes(
    journal: Journal, tmp_path: Path, theirs: bool
) -> None:
    base = replace(BASE, resource_id=ResourceId("desk.7"))
    target = dataclasses.replace(TARGET, base=base, resource_id=base.resource_id)
    first = journal.keep(written(journal, b"first"), target)
    chmod = journal.note_attributes(WHERE, AttributeChange(mode=0o600), first)
    journal.stored(first, base)
    last = journal.keep(written(journal, b"last", base=10), target, after=chmod)
    dressed = replace(base, etag=ETag('"2"'))
    journal.stored(chmod, replace(dressed, resource_id=ResourceId("desk.8")) if theirs else dressed)
    for each in (journal, again := Journal.open(crashed(journal, tmp_path / "again"), "server")):
        record = each.get(last)
        assert record is not None
        assert record.payload is not None
        assert record.payload.base is not None
        assert record.payload.base.etag == (base.etag if theirs else '"2"')
    again.close()

"""The journal: what it acknowledged is there again as it was, and it is refused where it does not
belong.
"""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from filesfs.domain import AttributeChange, ETag, Location, ResourceId
from filesfs.errors import UsageError
from filesfs.write.journal import Journal, JournalId, Record
from filesfs.write.log import RecordLog
from filesfs.write.records import FORMAT, Payload, from_json, to_json
from filesfs.write.upload import Target
from tests.unit.journal_rig import (
    BASE,
    TARGET,
    WHERE,
    Zeros,
    content,
    crashed,
    journal,
    place,
    written,
)

__all__ = ["journal", "place"]

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

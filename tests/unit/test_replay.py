"""Replay: in order, onto the version that it was made on, and nothing lost or overwritten."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Entry, Kind, Location
from filesfs.errors import AccessDenied, Stale, Unavailable
from filesfs.wire import Extension
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal
from filesfs.write.replay import Replayer, Tally, conflict_location
from filesfs.write.upload import Target
from tests.unit.upload_server import EVERYTHING, Server

pytestmark = pytest.mark.trio

WHERE = Location("docs", "a/report.txt")
OTHER = Location("docs", "b.txt")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path, "server")
    yield journal
    journal.close()


def keep(
    journal: Journal,
    data: bytes,
    base: Entry | None = None,
    where: Location = WHERE,
    offset: int = 0,
) -> None:
    buffer = WriteBuffer(journal.spool, base.size if base else 0)
    buffer.write(offset, data)
    resource = base.resource_id if base else None
    journal.keep(buffer, Target(where, "text/plain", AttributeChange(mode=0o640), base, resource))
    buffer.close()


async def replay(journal: Journal, server: Server) -> Tally:
    return await Replayer(journal, cast("FilesBackend", server)).run()


def names(server: Server) -> dict[str, bytes]:
    return {str(where): data for where, (_, data) in server.files.items()}


async def test_a_new_file_goes_up_and_leaves_the_journal(journal: Journal) -> None:
    server = Server()
    keep(journal, b"text")
    tally = await replay(journal, server)
    assert names(server) == {str(WHERE): b"text"}
    assert server.files[WHERE][0].attributes.mode == 0o640
    assert (tally.stored, tally.conflicts, tally.failed) == (1, 0, 0)
    assert journal.pending() == ()
    assert list(journal.spool.path.iterdir()) == []


async def test_a_partial_write_lands_on_its_base(journal: Journal) -> None:
    server = Server(extensions=EVERYTHING - {Extension.RANGES_UPLOAD})
    base = server.store(WHERE, b"0123456789")
    keep(journal, b"XY", base, offset=4)
    await replay(journal, server)
    assert names(server) == {str(WHERE): b"0123XY6789"}


async def test_another_clients_version_is_not_overwritten(journal: Journal) -> None:
    server = Server()
    base = server.store(WHERE, b"0123456789")
    keep(journal, b"ours" * 3, base)
    theirs = server.store(WHERE, b"theirs")
    tally = await replay(journal, server)
    assert tally.conflicts == 1
    assert server.files.pop(WHERE) == (theirs, b"theirs")
    ((name, data),) = names(server).items()
    assert data == b"ours" * 3
    assert re.fullmatch(r"docs/a/report\.txt\.conflict-[A-Za-z0-9.-]+-\d{8}T\d{6}Z", name)
    assert journal.pending() == ()


async def test_a_new_file_does_not_replace_one_that_came_meanwhile(journal: Journal) -> None:
    server = Server()
    keep(journal, b"ours")
    server.store(WHERE, b"theirs")
    await replay(journal, server)
    assert sorted(names(server).values()) == [b"ours", b"theirs"]
    assert names(server)[str(WHERE)] == b"theirs"


async def test_a_file_that_another_client_removed_comes_back_beside(journal: Journal) -> None:
    server = Server()
    keep(journal, b"ours" * 3, server.store(WHERE, b"0123456789"))
    del server.files[WHERE]
    await replay(journal, server)
    assert list(names(server).values()) == [b"ours" * 3]
    assert WHERE not in server.files


async def test_two_conflicts_in_one_second_get_two_names(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesfs.write.replay.time.time", lambda: 0.0)
    server = Server()
    server.store(WHERE, b"theirs")
    keep(journal, b"one")
    keep(journal, b"two")
    await replay(journal, server)
    assert sorted(names(server).values()) == [b"one", b"theirs", b"two"]
    assert any(name.endswith("19700101T000000Z-1") for name in names(server))


async def test_an_upload_that_came_through_before_the_crash_is_no_conflict(
    journal: Journal,
) -> None:
    server = Server()
    keep(journal, b"text")
    server.store(WHERE, b"text")
    tally = await replay(journal, server)
    assert names(server) == {str(WHERE): b"text"}
    assert (tally.stored, tally.conflicts) == (1, 0)
    assert journal.pending() == ()


async def test_a_server_that_is_away_ends_the_pass_and_keeps_the_order(journal: Journal) -> None:
    server = Server()
    keep(journal, b"one")
    journal.note_rename(WHERE, OTHER, Kind.FILE)
    before = journal.pending()

    def away(call: str) -> None:
        raise Unavailable("away")

    server.fault = away
    with pytest.raises(Unavailable):
        await replay(journal, server)
    assert server.calls == ["put 3"]
    assert journal.pending() == before
    server.fault = lambda call: None
    await replay(journal, server)
    assert names(server) == {str(OTHER): b"one"}


async def test_a_failure_holds_up_only_what_is_about_its_names(journal: Journal) -> None:
    server = Server()
    keep(journal, b"one")
    journal.note_rename(Location("docs", "a"), Location("docs", "c"), Kind.DIRECTORY)
    keep(journal, b"two", where=OTHER)

    def denied(call: str) -> None:
        if server.calls == ["put 3"]:
            raise AccessDenied("not yours")

    server.fault = denied
    tally = await replay(journal, server)
    assert names(server) == {str(OTHER): b"two"}
    assert tally.failed == 1
    assert [record.location.key for record in journal.pending()] == [WHERE.key, "a"]


async def test_a_failure_that_lasts_is_told_once(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    keep(journal, b"one")

    def denied(call: str) -> None:
        raise AccessDenied("not yours")

    server.fault = denied
    for _ in range(3):
        assert (await replay(journal, server)).failed == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "not yours" in caplog.text


async def test_parts_that_nobody_has_any_more_are_not_made_up(journal: Journal) -> None:
    server = Server(extensions=EVERYTHING - {Extension.RANGES_UPLOAD})
    keep(journal, b"XY", server.store(WHERE, b"0123456789"), offset=4)

    def gone(call: str) -> None:
        if call == "read":
            raise Stale("that version is no more")

    server.fault = gone
    tally = await replay(journal, server)
    assert (tally.failed, len(journal.pending())) == (1, 1)
    assert names(server) == {str(WHERE): b"0123456789"}


async def test_changes_of_names_follow_in_order(journal: Journal) -> None:
    server = Server()
    old = server.store(OTHER, b"old")
    directory = Location("docs", "d")
    journal.note_mkdir(directory, AttributeChange(mode=0o700))
    keep(journal, b"new", where=directory.child("x.tmp"))
    journal.note_rename(directory.child("x.tmp"), directory.child("x"), Kind.FILE)
    journal.note_attributes(directory.child("x"), Kind.FILE, AttributeChange(mode=0o444))
    journal.note_unlink(OTHER, Kind.FILE, old.etag)
    tally = await replay(journal, server)
    assert names(server) == {"docs/d": b"", "docs/d/x": b"new"}
    assert server.files[directory.child("x")][0].attributes.mode == 0o444
    assert (tally.stored, tally.conflicts, tally.failed) == (5, 0, 0)


async def test_a_replay_that_was_cut_short_can_run_again(journal: Journal) -> None:
    server = Server()
    server.store(WHERE, b"text")
    journal.note_mkdir(Location("docs", "d"), AttributeChange())
    journal.note_rename(WHERE, OTHER, Kind.FILE)
    journal.note_unlink(Location("docs", "gone"), Kind.FILE)
    await server.make_directory(Location("docs", "d"), AttributeChange())
    await server.move(WHERE, OTHER, Kind.FILE)
    tally = await replay(journal, server)
    assert (tally.stored, tally.conflicts, tally.failed) == (3, 0, 0)
    assert journal.pending() == ()


async def test_changes_of_names_spare_what_another_client_put_there(journal: Journal) -> None:
    server = Server()
    old = server.store(WHERE, b"old")
    server.store(WHERE, b"theirs")
    server.store(OTHER, b"theirs too")
    journal.note_unlink(WHERE, Kind.FILE, old.etag)
    journal.note_rename(WHERE, OTHER, Kind.FILE, overwrite=False)
    journal.note_rename(WHERE, Location("docs", "c"), Kind.FILE, expected=old.etag)
    journal.note_mkdir(OTHER, AttributeChange())
    journal.note_attributes(Location("docs", "gone"), Kind.FILE, AttributeChange(mode=0o600))
    tally = await replay(journal, server)
    assert names(server) == {str(WHERE): b"theirs", str(OTHER): b"theirs too"}
    assert (tally.stored, tally.conflicts) == (0, 5)
    assert journal.pending() == ()


async def test_what_an_open_file_stands_for_is_left_to_it(journal: Journal) -> None:
    server = Server()
    buffer = WriteBuffer(journal.spool, 0)
    buffer.write(0, b"live")
    journal.keep(buffer, Target(WHERE, "text/plain", AttributeChange(), None, None))
    await replay(journal, server)
    assert not server.calls
    buffer.close()


@pytest.mark.parametrize("name", ["x" * 255, "_-" + "_e2_82_ac" * 113, "a_-b" * 63])
async def test_a_conflict_copys_name_is_one_that_linux_shows(name: str) -> None:
    made = conflict_location(Location("docs", f"d/{name}"), 0.0)
    assert len(made.name) <= 255
    assert made.parent == Location("docs", "d")
    assert made.name.endswith("-19700101T000000Z")
    head = made.name.partition(".conflict-")[0]
    assert name.startswith(head)
    if name.startswith("_-"):
        assert re.fullmatch(r"_-(_[0-9a-f]{2}|[A-Za-z0-9.-])*", head)

"""Replay: in order, onto the version that it was made on, and nothing lost or overwritten."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import trio

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Entry, Location
from filesfs.errors import AccessDenied, Stale, TooLarge, Unavailable
from filesfs.wire import Extension
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal
from filesfs.write.records import JournalId, Record
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


@dataclass
class Told:
    """Implements replay.Owner."""

    stored_as: list[Entry] = field(default_factory=list)
    beside: list[Location | None] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def stored(self, record: Record, entry: Entry) -> None:
        self.stored_as.append(entry)

    def lost(self, record: Record, beside: Location | None) -> None:
        self.beside.append(beside)

    def refused(self, record: Record, error: Exception) -> None:
        self.errors.append(error)


def keep(
    journal: Journal,
    data: bytes,
    base: Entry | None = None,
    where: Location = WHERE,
    offset: int = 0,
    after: JournalId | None = None,
) -> JournalId:
    buffer = WriteBuffer(journal.spool, base.size if base else 0)
    buffer.write(offset, data)
    resource = base.resource_id if base else None
    target = Target(where, "text/plain", AttributeChange(mode=0o640), base, resource)
    id = journal.keep(buffer, target, after=after)
    buffer.close()
    return id


async def replay(journal: Journal, server: Server, told: Told | None = None) -> Tally:
    replayer = Replayer(journal, cast("FilesBackend", server), told or Told())
    await replayer.run()
    return replayer.tally


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
    keep(journal, b"two", where=OTHER)
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
    assert names(server) == {str(WHERE): b"one", str(OTHER): b"two"}
    assert server.calls[-2:] == ["put 3", "put 3"]


async def test_a_failure_holds_up_only_what_is_about_its_name(journal: Journal) -> None:
    server, told = Server(), Told()
    first = keep(journal, b"one")
    second = keep(journal, b"one, later", after=first)
    keep(journal, b"two", where=OTHER)

    def denied(call: str) -> None:
        if server.calls == ["put 3"]:
            raise AccessDenied("not yours")

    server.fault = denied
    tally = await replay(journal, server, told)
    assert names(server) == {str(OTHER): b"two"}
    assert tally.failed == len(told.errors) == 1
    assert [record.id for record in journal.pending()] == [first, second]
    await replay(journal, server)
    assert names(server) == {str(OTHER): b"two", str(WHERE): b"one, later"}


async def test_what_is_refused_for_good_does_not_hold_up_what_came_after_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later content has all that was written: it stands for both."""
    monkeypatch.setattr("filesfs.write.replay._AGAIN_SECONDS", 0)
    server, told = Server(), Told()
    first = keep(journal, b"one")
    keep(journal, b"one, later", after=first)
    refused = refuse(server, "put 3")
    replayer = Replayer(journal, cast("FilesBackend", server), told)
    for _ in range(2):
        await replayer.run()
    assert names(server) == {str(WHERE): b"one, later"}
    assert journal.pending() == ()
    assert refused
    assert not replayer.sent(first)


async def test_what_was_refused_after_it_had_landed_is_what_follows_changes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesfs.write.replay._AGAIN_SECONDS", 0)
    server, told = Server(), Told()
    first = keep(journal, b"one")
    keep(journal, b"one, later", after=first)
    await server.put(WHERE, b"one", "text/plain", AttributeChange())  # the answer was lost
    refuse(server, "put 3")
    replayer = Replayer(journal, cast("FilesBackend", server), told)
    for _ in range(2):
        await replayer.run()
    assert names(server) == {str(WHERE): b"one, later"}
    assert (replayer.tally.stored, replayer.tally.conflicts) == (2, 0)
    assert journal.pending() == ()


async def test_what_is_refused_for_good_does_not_hold_up_another_file_of_its_name(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesfs.write.replay._AGAIN_SECONDS", 0)
    server, told = Server(), Told()
    first = keep(journal, b"one")
    keep(journal, b"one, anew")
    refuse(server, "put 3")
    replayer = Replayer(journal, cast("FilesBackend", server), told)
    for _ in range(2):
        await replayer.run()
    assert names(server) == {str(WHERE): b"one, anew"}
    assert [record.id for record in journal.pending()] == [first]
    server.fault = lambda call: None
    await replayer.run()
    assert sorted(names(server).values()) == [b"one", b"one, anew"]
    assert names(server)[str(WHERE)] == b"one, anew"


async def test_what_the_server_always_fails_at_does_not_hold_up_the_others(
    journal: Journal,
) -> None:
    server = Server()
    first = keep(journal, b"one")
    keep(journal, b"other", where=OTHER)
    refuse(server, "put 3", Unavailable("500"))
    replayer = Replayer(journal, cast("FilesBackend", server), Told())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await replayer.run()
    assert names(server) == {}
    await replayer.run()
    assert names(server) == {str(OTHER): b"other"}
    assert [record.id for record in journal.pending()] == [first]
    server.fault = lambda call: None
    await replayer.run()
    assert names(server)[str(WHERE)] == b"one"


async def test_attributes_wait_for_content_that_is_refused(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesfs.write.replay._AGAIN_SECONDS", 0)
    server, told = Server(), Told()
    first = keep(journal, b"one")
    journal.note_attributes(WHERE, AttributeChange(mode=0o444), first)
    refuse(server, "put 3")
    replayer = Replayer(journal, cast("FilesBackend", server), told)
    for _ in range(3):
        await replayer.run()
    assert len(journal.pending()) == 2
    assert "attributes" not in server.calls
    assert len(told.errors) == replayer.tally.failed == 3
    server.fault = lambda call: None
    await replayer.run()
    assert server.files[WHERE][0].attributes.mode == 0o444
    assert journal.pending() == ()


def refuse(server: Server, what: str, error: Exception | None = None) -> list[str]:
    """Every such call is refused; the list of them."""
    refused: list[str] = []

    def denied(call: str) -> None:
        if call == what:
            refused.append(call)
            raise error or TooLarge("too large")

    server.fault = denied
    return refused


async def test_a_failure_that_lasts_is_told_once(
    journal: Journal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    keep(journal, b"one")

    def denied(call: str) -> None:
        raise AccessDenied("not yours")

    server.fault = denied
    monkeypatch.setattr("filesfs.write.replay._AGAIN_SECONDS", 0)
    replayer = Replayer(journal, cast("FilesBackend", server), Told())
    for number in range(3):
        await replayer.run()
        assert replayer.tally.failed == number + 1
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


async def test_a_record_that_came_after_an_upload_of_its_file_is_no_conflict(
    journal: Journal,
) -> None:
    """The first one landed before a crash, unheard."""
    server, told = Server(), Told()
    base = server.store(WHERE, b"0123456789")
    first = keep(journal, b"first", base)
    keep(journal, b"later", base, offset=2, after=first)
    await server.put(WHERE, b"first56789", "text/plain", AttributeChange())
    tally = await replay(journal, server, told)
    assert names(server) == {str(WHERE): b"filater789"}
    assert (tally.stored, tally.conflicts) == (2, 0)
    assert told.stored_as[-1] == server.files[WHERE][0]


async def test_of_two_versions_that_were_overtaken_the_later_lies_beside(journal: Journal) -> None:
    server, told = Server(), Told()
    first = keep(journal, b"ours")
    keep(journal, b"ours, later", after=first)
    server.store(WHERE, b"theirs")
    tally = await replay(journal, server, told)
    assert sorted(names(server).values()) == [b"ours, later", b"theirs"]
    assert tally.conflicts == 2
    assert told.beside[0] is None
    assert told.beside[1] in server.files


async def test_attributes_follow_their_content(journal: Journal) -> None:
    server = Server()
    first = keep(journal, b"text")
    journal.note_attributes(WHERE, AttributeChange(mode=0o444), first)
    tally = await replay(journal, server)
    assert server.files[WHERE][0].attributes.mode == 0o444
    assert (tally.stored, tally.conflicts) == (2, 0)


async def test_attributes_of_content_that_was_overtaken_are_not_given_to_theirs(
    journal: Journal,
) -> None:
    server = Server()
    first = keep(journal, b"ours")
    journal.note_attributes(WHERE, AttributeChange(mode=0o444), first)
    theirs = server.store(WHERE, b"theirs")
    await replay(journal, server)
    assert server.files[WHERE] == (theirs, b"theirs")
    assert journal.pending() == ()


async def test_attributes_of_what_others_removed_are_dropped(journal: Journal) -> None:
    server = Server()
    first = keep(journal, b"text")
    journal.note_attributes(WHERE, AttributeChange(mode=0o444), first)

    def removed(call: str) -> None:
        if call == "attributes":
            del server.files[WHERE]

    server.fault = removed
    tally = await replay(journal, server)
    assert names(server) == {}
    assert (tally.stored, tally.conflicts, tally.failed) == (1, 1, 0)
    assert journal.pending() == ()


async def test_a_later_record_can_be_sent_first_and_takes_its_file_along(journal: Journal) -> None:
    server = Server()
    keep(journal, b"other", where=OTHER)
    first = keep(journal, b"one")
    second = keep(journal, b"two", after=first)
    replayer = Replayer(journal, cast("FilesBackend", server), Told())
    await replayer.send(second)
    assert names(server) == {str(WHERE): b"two"}
    assert len(journal.pending()) == 1


async def test_who_waits_for_an_attempt_hears_why_it_failed(journal: Journal) -> None:
    server = Server()
    id = keep(journal, b"one")

    def away(call: str) -> None:
        raise Unavailable("away")

    server.fault = away
    replayer = Replayer(journal, cast("FilesBackend", server), Told())

    async def send() -> None:
        with pytest.raises(Unavailable):
            await replayer.send(id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(send)
    assert server.calls == ["put 3"]
    assert replayer.sent(id)


async def test_what_is_kept_during_a_pass_goes_up_in_it(journal: Journal) -> None:
    server = Server()
    keep(journal, b"one")

    def more(call: str) -> None:
        if len(server.calls) == 1:
            keep(journal, b"two", where=OTHER)

    server.fault = more
    await replay(journal, server)
    assert names(server) == {str(WHERE): b"one", str(OTHER): b"two"}


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

"""Replay: in order, onto the version that it was made on, and nothing lost or overwritten."""

import re
from typing import cast

import pytest

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Location
from filesfs.wire import Extension
from filesfs.write.journal import Journal
from filesfs.write.replay import Replayer, conflict_location
from tests.unit.replay_rig import OTHER, WHERE, Told, journal, keep, names, replay
from tests.unit.upload_server import EVERYTHING, Server

__all__ = ["journal"]

pytestmark = pytest.mark.trio


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

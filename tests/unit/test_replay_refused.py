"""Replay to a server that refuses or is away: what cannot go up holds up only what is about its own
file, and goes up later.
"""

from typing import cast

import pytest
import trio

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange
from filesfs.errors import AccessDenied, Stale, TooLarge, Unavailable
from filesfs.wire import Extension
from filesfs.write.journal import Journal
from filesfs.write.replay import Replayer
from tests.unit.replay_rig import OTHER, WHERE, Told, journal, keep, names, replay
from tests.unit.upload_server import EVERYTHING, Server

__all__ = ["journal"]

pytestmark = pytest.mark.trio


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

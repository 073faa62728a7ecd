"""A journal with records, a server that they are replayed to, and an owner who is told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from filesfs.backend.protocol import FilesBackend
from filesfs.domain import AttributeChange, Entry, Location
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal
from filesfs.write.records import JournalId, Record
from filesfs.write.replay import Replayer, Tally
from filesfs.write.upload import Target
from tests.unit.upload_server import Server

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

"""A journal for tests, with small content in its log or all of it in spool files."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from filesfs.domain import AttributeChange, Entry, ETag, Kind, Location, ResourceId
from filesfs.write.buffer import WriteBuffer
from filesfs.write.journal import Journal, Record
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

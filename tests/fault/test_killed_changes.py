"""A change in the middle of a large file, with the server killed ahead of each of its system calls:
the file is the old one or the new one, the session goes on, and no version changes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from files_server import fsck, services
from files_server.blobs.checksums import BLOCK
from files_server.blobs.layout import Layout
from files_server.catalog import tree
from files_server.catalog.commits import Conditions
from files_server.catalog.sessions import COMPLETE, Wish
from files_server.catalog.store import Version
from files_server.errors import ApiError
from files_server.parts import Part
from files_server.services import Services
from files_server.settings import Settings

BASE = random.Random(9).randbytes(8 * BLOCK + 999)
AT = 5 * BLOCK + 1_000
CHANGED = BASE[:AT] + b"changed" + BASE[AT + 7 :]
ANY = Conditions("", "")
CALLS = (
    "copy_file_range", "fdatasync", "fsync", "ftruncate", "link", "pwrite", "rename", "unlink",
)  # fmt: skip
PARTS = ((AT, b""), (0, b"changed"), (len(BASE) - AT - 7, b""))  # bytes to copy, bytes to send


async def _prepared(data_dir: Path) -> str:
    async with services.opened(Settings(data_dir=data_dir)) as opened:
        await opened.catalog.write(lambda tx: tree.make_bucket(tx, "b"))
        whole = Part(_once(BASE), len(BASE))
        return (await opened.uploads.put(Wish("b", "f", "a/b", ANY), whole, "")).node.etag


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _change(opened: Services, session_id: str) -> None:
    """From where the session is to its end."""
    at = 0
    for copied, data in PARTS:
        offset = opened.uploads.find(session_id).offset
        end = at + copied + len(data)
        if offset < end:
            left = copied if offset == at else 0  # a part counts as a whole, or not at all
            part = Part(_once(data), len(data), offset, copy_base=left)
            await opened.uploads.append(session_id, part, "")
        at = end
    if opened.uploads.find(session_id).state != COMPLETE:
        await opened.uploads.append(session_id, Part(_once(b""), 0, at), "")


def _killed(data_dir: Path, etag: str, number: int) -> None:
    """A process that ends ahead of its call of this number, as if it were killed."""
    left = [number]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*given, **named)

        return wrapper

    async def run() -> None:
        async with services.opened(Settings(data_dir=data_dir)) as opened:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            wish = Wish("b", "f", "a/b", Conditions(etag, ""), base=etag)
            session = await opened.uploads.create(wish, len(BASE), "")
            (data_dir / "session").write_text(session.id)
            await _change(opened, session.id)
            (data_dir / "acknowledged").touch()
            os._exit(0)

    asyncio.run(run())


def _content(opened: Services, version: Version) -> bytes:
    return opened.blobs.read(version.blob or "", Layout(version.blocks), 0, version.size)


async def _after(data_dir: Path, base: str) -> None:
    async with services.opened(Settings(data_dir=data_dir)) as opened:
        row = opened.catalog.reader.execute("SELECT etag FROM resources WHERE kind = 0").fetchone()
        now = _content(opened, opened.catalog.version_by_etag(row[0], "b", "f"))
        assert now in (BASE, CHANGED)
        assert now == CHANGED or not (data_dir / "acknowledged").exists()
        assert _content(opened, opened.catalog.version_by_etag(base, "b", "f")) == BASE
        if (data_dir / "session").exists():
            session_id = (data_dir / "session").read_text()
            await _change(opened, session_id)
            node = opened.uploads.find(session_id).outcome.node
            changed = opened.catalog.version_by_etag(node.etag, "b", "f")
            assert _content(opened, changed) == CHANGED
        assert _content(opened, opened.catalog.version_by_etag(base, "b", "f")) == BASE
        wish = Wish("b", "f", "a/b", Conditions(base, ""), base=base)
        with pytest.raises(ApiError) if (data_dir / "session").exists() else _nothing():
            await opened.uploads.create(wish, len(BASE), "")


class _nothing:  # noqa: N801  # reads as a statement
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.timeout(180)
def test_killed_ahead_of_each_call(tmp_path: Path) -> None:
    etag = asyncio.run(_prepared(tmp_path / "data"))
    context = multiprocessing.get_context("fork")
    for number in range(1, 200):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "data", copy)
        process = context.Process(target=_killed, args=(copy, etag, number))
        process.start()
        process.join(30)
        asyncio.run(_after(copy, etag))
        for note in ("session", "acknowledged"):
            (copy / note).unlink(missing_ok=True)
        assert fsck.check(copy, True, False) == [], number
        shutil.rmtree(copy)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert number > 10
    print(f"killed {number} times")

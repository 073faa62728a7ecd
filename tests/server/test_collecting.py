"""What expired is collected time and again, also after a time when it could not be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from files_server import services
from files_server.catalog import commits, keeping, moves
from files_server.catalog.commits import NO_CONDITIONS, Commit, Content
from files_server.catalog.database import Transaction
from files_server.catalog.keeping import Keep
from files_server.catalog.store import Catalog
from files_server.errors import ApiError
from files_server.settings import Settings


def test_collecting_goes_on_after_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    again = asyncio.Event()

    async def full(self: Catalog) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ApiError(507, "The server's disk is full: nothing was changed.")
        again.set()

    async def run() -> None:
        async with services.opened(Settings(data_dir=tmp_path / "data")):
            await asyncio.wait_for(again.wait(), 10)

    monkeypatch.setattr(Catalog, "prune", full)
    monkeypatch.setattr(services, "_SWEEP_SECONDS", 0.01)
    asyncio.run(run())
    assert tries > 1


def test_many_versions_expire_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others write in between."""
    writes = 0
    write = Catalog.write

    async def counted(self: Catalog, mutation: Any, origin: str = "", **how: Any) -> Any:
        nonlocal writes
        writes += 1
        return await write(self, mutation, origin, **how)

    def delete_ten(tx: Transaction) -> None:
        keep = Keep(superseded=1)
        for number in range(10):
            content = Content(1, b"\0\0\0\0", data=b"x")
            commits.commit(tx, Commit("b", f"k{number}", "text/plain", content, keep=keep))
            moves.delete(
                tx, ("b", f"k{number}"), keep_parent=False, keep=keep, conditions=NO_CONDITIONS
            )
        tx.run("UPDATE versions SET expires_at = 1")

    async def run() -> int:
        async with services.opened(Settings(data_dir=tmp_path / "data")) as opened:
            await asyncio.sleep(0.2)  # the first sweep is through
            await opened.catalog.write(delete_ten)
            monkeypatch.setattr(Catalog, "write", counted)
            await opened.catalog.prune()
            return int(opened.catalog.reader.execute("SELECT count(*) FROM versions").fetchone()[0])

    monkeypatch.setattr(keeping, "_STEP", 3)
    assert asyncio.run(run()) == 0
    assert writes >= 4

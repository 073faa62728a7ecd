"""What expired is collected time and again, also after a time when it could not be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from files_server import services
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

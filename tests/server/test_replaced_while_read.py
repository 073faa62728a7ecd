"""A file that is replaced just as it is read is there all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from files_server.app import RawPaths, create_app
from files_server.catalog.store import Catalog, Version
from files_server.settings import Settings
from tests.security import asgi


def test_a_version_that_goes_while_it_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `superseded_seconds = 0` the replaced version is gone at once."""
    looks = 0
    version = Catalog.version

    def overtaken(self: Catalog, version_id: int) -> Version | None:
        nonlocal looks
        looks += 1
        return None if looks == 1 else version(self, version_id)

    async def run() -> asgi.Answer:
        app = create_app(Settings(data_dir=tmp_path / "data", superseded_seconds=0))
        async with app.router.lifespan_context(app):
            served = RawPaths(app)
            put = asgi.scope("PUT", "/v1/files/b/k?alt=media", {"Content-Length": "3"})
            assert (await asgi.answer_to(served, put, [b"new"])).status == 200
            get = asgi.scope("GET", "/v1/files/b/k?alt=media")
            return await asgi.answer_to(served, get, [b""])

    monkeypatch.setattr(Catalog, "version", overtaken)
    answer = asyncio.run(run())
    assert (answer.status, answer.body) == (200, b"new")

"""A file that is replaced just as it is read is there all the same, with either content."""

from __future__ import annotations

import asyncio
from pathlib import Path

from files_server.app import RawPaths, create_app
from files_server.settings import Settings
from tests.security import asgi


def test_name_entry_and_content_are_of_one_moment(tmp_path: Path) -> None:
    """With `superseded_seconds = 0` a replaced version is gone at once: so it is one statement that
    looks for all of it.
    """
    statements: list[str] = []

    async def run() -> asgi.Answer:
        app = create_app(Settings(data_dir=tmp_path / "data", superseded_seconds=0))
        async with app.router.lifespan_context(app):
            served = RawPaths(app)
            put = asgi.scope("PUT", "/v1/files/b/d/k?alt=media", {"Content-Length": "3"})
            assert (await asgi.answer_to(served, put, [b"new"])).status == 200
            connection = app.state.services.catalog.at_hand
            connection.set_trace_callback(statements.append)
            get = asgi.scope("GET", "/v1/files/b/d/k?alt=media&view=full")
            answer = await asgi.answer_to(served, get, [b""])
            connection.set_trace_callback(None)
            return answer

    answer = asyncio.run(run())
    assert (answer.status, answer.body) == (200, b"new")
    assert len(statements) == 1

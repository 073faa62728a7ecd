"""A listing that takes long does not hold up other requests: it is made in a thread."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from files_server.app import RawPaths, create_app
from files_server.catalog import nodes, tree
from files_server.routes import buckets
from files_server.services import Services
from files_server.settings import Settings
from tests.security import asgi


@pytest.mark.parametrize("query", ["", "?limit=1", "?delimiter=/", "?view=full"])
def test_directories_that_do_not_show_count_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """One file behind many directories."""
    in_threads = 0
    to_thread = asyncio.to_thread

    async def noted(function: Any, *args: Any) -> Any:
        nonlocal in_threads
        if args and isinstance(args[0], Services):
            in_threads += 1
            catalog = args[0].catalog
            await catalog.write(lambda tx: tree.make_bucket(tx, "later"))
            assert nodes.find(catalog.reader, "later"), "others would read what was"
        return await to_thread(function, *args)

    async def run() -> asgi.Answer:
        app = create_app(Settings(data_dir=tmp_path / "data"))
        async with app.router.lifespan_context(app):
            served = RawPaths(app)
            for key in ("a/", "b/", "c/", "d/", "e"):
                path = f"/v1/files/b/{key}?alt=media"
                put = asgi.scope("PUT", path, {"Content-Length": "0"})
                assert (await asgi.answer_to(served, put, [b""])).status == 200
            get = asgi.scope("GET", f"/v1/files/b{query}")
            return await asgi.answer_to(served, get, [b""])

    monkeypatch.setattr(buckets, "_ON_LOOP", 3)
    monkeypatch.setattr(asyncio, "to_thread", noted)
    answer = json.loads(asyncio.run(run()).body)
    assert [entry["key"] for entry in answer["data"]][-1] == "e"
    assert in_threads == 1

"""The control socket takes connections once it says that it is started."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from filesfs import control


async def _status() -> Mapping[str, int]:
    return {"inodes": 3}


@pytest.mark.trio
async def test_started_means_that_it_answers_whatever_a_killed_daemon_left(tmp_path: Path) -> None:
    (tmp_path / control.SOCKET_NAME).touch()
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, tmp_path, {"status": _status})
        ask = partial(control.ask, tmp_path, timeout=5)
        assert await trio.to_thread.run_sync(ask, "status") == {"inodes": 3}
        assert await trio.to_thread.run_sync(ask, "nonsense") == {"error": "unknown command"}
        nursery.cancel_scope.cancel()
    assert not (tmp_path / control.SOCKET_NAME).exists()

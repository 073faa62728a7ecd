"""A server behind a proxy, whose URLs lead through the proxy too: those of upload sessions do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.proxy import FaultProxy
from tests.server.running import RunningServer, running_server


@contextmanager
def server_behind_proxy(
    data_dir: Path, **options: object
) -> Iterator[tuple[RunningServer, FaultProxy]]:
    """The two, running."""
    with (
        FaultProxy("", 0) as proxy,
        running_server(data_dir, public_url=proxy.url, **options) as server,
    ):
        proxy.forward(server.url)
        yield server, proxy

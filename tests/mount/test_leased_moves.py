"""What this mount renames, and names back, is not what it had leased: the feed is slow to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.fakes.proxy import FaultProxy, Rule, Stall
from tests.mount.mounting import mounted

if TYPE_CHECKING:
    from tests.server.running import RunningServer

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(server: RunningServer) -> Iterator[Ask]:
    """A request of another client, in the bucket "moved"."""
    base = "/v1/files/moved"
    with httpx.Client(base_url=f"{server.url}{base}", trust_env=False) as client:

        def ask(method: str, key: str, data: bytes | None = None, to: str = "") -> httpx.Response:
            headers = {"Destination": f"{base}{to}"} if to else {}
            answer = client.request(method, key, content=data, headers=headers)
            return answer.raise_for_status()

        yield ask


@pytest.fixture
def deaf(server: RunningServer, ask: Ask, tmp_path: Path) -> Iterator[Path]:
    """The bucket in a mount whose change feed connects and then tells nothing for a while."""
    ask("PUT", "/d/f?alt=media", b"old")
    ask("PUT", "/f?alt=media", b"old")
    with FaultProxy.to(server.url) as proxy:
        proxy.add(Rule(Stall(after=450), path="changes=1"))
        with mounted(proxy.url, tmp_path, name="deaf") as mount:
            yield mount.path / "moved"
        proxy.release()


def test_a_file_that_was_moved_away_and_back(deaf: Path, ask: Ask) -> None:
    assert (deaf / "f").read_bytes() == b"old"
    (deaf / "f").rename(deaf / "g")
    ask("PUT", "/new?alt=media", b"new")
    ask("MOVE", "/new", to="/g")
    (deaf / "g").rename(deaf / "f")
    assert (deaf / "f").read_bytes() == b"new"


def test_a_directory_that_was_moved_away_and_back(deaf: Path, ask: Ask) -> None:
    assert (deaf / "d" / "f").read_bytes() == b"old"
    (deaf / "d").rename(deaf / "e")
    ask("PUT", "/new?alt=media", b"new")
    ask("MOVE", "/new", to="/e/f")
    (deaf / "e").rename(deaf / "d")
    assert (deaf / "d" / "f").read_bytes() == b"new"

"""A change waits for who has a lease, and its connection breaks meanwhile: what then finds that it
was made waits as well.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.proxy import FaultProxy
from tests.mount.mounting import mounted
from tests.server.leasing import LeaseHolder, wait_until
from tests.server.running import running_server

EXCHANGE = 2
SECONDS = 1.5


class Held:
    """A mount behind a proxy, and a client that hears of nothing before its lease is over."""

    def __init__(self, url: str, folder: Path, proxy: FaultProxy, holder: LeaseHolder) -> None:
        self.url, self.folder, self.proxy, self.holder = url, folder, proxy, holder

    def lease(self, name: str) -> None:
        self.holder.delay = SECONDS * 2
        wait_until(lambda: "files-lease" in self.holder.ask(f"b/{name}")[1].headers)

    def while_cut_off(self, name: str, act: Callable[[], object]) -> None:
        """The proxy cuts all connections once the change is made and waits."""
        before = self._etag(name)
        thread = threading.Thread(target=act)
        thread.start()
        wait_until(lambda: self._etag(name) != before)
        self.proxy.cut()
        thread.join(20)

    def _etag(self, name: str) -> str | None:
        answer = httpx.head(f"{self.url}/v1/files/b/{name}?view=full", trust_env=False)
        return answer.headers.get("etag") if answer.status_code == 200 else None


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    with running_server(tmp_path / "data", lease_seconds=SECONDS) as server:
        for name in "fgh":
            url = f"{server.url}/v1/files/b/{name}?alt=media"
            httpx.put(url, content=b"old", trust_env=False).raise_for_status()
        with (
            FaultProxy.to(server.url) as proxy,
            mounted(proxy.url, tmp_path, "conflict=fail") as mount,
            LeaseHolder(server.url, "holder") as holder,
        ):
            yield Held(server.url, mount.path / "b", proxy, holder)


def test_a_conditional_put(held: Held) -> None:
    path = held.folder / "f"
    leased = []

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            file.write(b"new")
        leased.append(held.holder.leased("b/f"))

    assert path.read_bytes() == b"old"
    held.lease("f")
    held.while_cut_off("f", write)
    assert leased == [False]
    assert held.holder.ask("b/f")[0].content == b"new"


def test_an_exchange(held: Held) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    one, other = (os.fsencode(held.folder / name) for name in "gh")
    leased = []

    def exchange() -> None:
        answer = libc.renameat2(-100, one, -100, other, EXCHANGE)
        leased.append((answer, held.holder.leased("b/g")))

    assert (held.folder / "g").stat().st_ino != (held.folder / "h").stat().st_ino
    held.lease("g")
    held.while_cut_off("g", exchange)
    assert leased == [(0, False)]


def test_an_unlink(held: Held) -> None:
    held.lease("f")
    leased = []

    def unlink() -> None:
        (held.folder / "f").unlink()
        leased.append(held.holder.leased("b/f"))

    held.while_cut_off("f", unlink)
    assert leased == [False]

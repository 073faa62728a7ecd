"""Leases with tokens on: the right to read is enough, and nobody confirms for another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from files_server.auth import new_token
from tests.server.leasing import LeaseHolder, wait_until
from tests.server.running import RunningServer, running_server

TOKENS = {"ann": ("read", "a*"), "bob": ("read,write", "*"), "wil": ("write", "*")}
SECONDS = 1.0


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    """A server, and the tokens by their names."""
    folder: Path = tmp_path_factory.mktemp("tokens")
    made = {name: new_token(name, *given) for name, given in TOKENS.items()}
    (folder / "tokens").write_text("".join(line + "\n" for _, line in made.values()))
    given = {"tokens_file": folder / "tokens", "lease_seconds": SECONDS}
    with running_server(folder / "data", **given) as server:
        yield server, {name: secret for name, (secret, _) in made.items()}


def client(server: RunningServer, token: str, **headers: str) -> httpx.Client:
    named = {"Authorization": f"Bearer {token}", **headers}
    return httpx.Client(base_url=f"{server.url}/v1/files", headers=named, timeout=20)


def test_the_right_to_read_is_enough(place: tuple[RunningServer, dict[str, str]]) -> None:
    server, tokens = place
    with client(server, tokens["bob"]) as bob:
        bob.put("/a/f?alt=media", content=b"0").raise_for_status()
        with LeaseHolder(server.url, "ann", token=tokens["ann"]) as ann:
            wait_until(lambda: "files-lease" in ann.ask("a/f")[1].headers)
            bob.put("/a/f?alt=media", content=b"1").raise_for_status()
            assert not ann.leased("a/f")
            assert ann.release().status_code == 200
    with client(server, tokens["wil"], **{"Files-Origin": "w", "Files-Lease": "0"}) as wil:
        assert wil.post("?leases=1").status_code == 403
        assert wil.delete("?leases=1").status_code == 403
        assert wil.post("?leases=", json={}).status_code == 400  # an upload session, of nothing
    nobody = httpx.post(f"{server.url}/v1/files?leases=1")
    assert nobody.status_code == 401


def test_nobody_confirms_or_gives_back_for_another(
    place: tuple[RunningServer, dict[str, str]],
) -> None:
    server, tokens = place
    origin = "ann-again"
    with client(server, tokens["bob"]) as bob, ThreadPoolExecutor(1) as pool:
        bob.put("/a/g?alt=media", content=b"0").raise_for_status()
        with LeaseHolder(server.url, origin, token=tokens["ann"], silent=True) as ann:
            wait_until(lambda: "files-lease" in ann.ask("a/g")[1].headers)
            change = pool.submit(bob.put, "/a/g?alt=media", content=b"1")
            wait_until(lambda: ann.recalled)
            cursor = str(ann.events[-1][2]["cursor"])
            as_ann = {"Files-Origin": origin, "Files-Lease": ann.term, "Last-Event-ID": cursor}
            with client(server, tokens["bob"], **as_ann) as evil:  # he guessed all of it
                evil.post("?leases=1").raise_for_status()
                evil.delete("?leases=1").raise_for_status()
            unknown = {"Files-Lease": "0", "Last-Event-ID": cursor}
            ann.client.post(f"{ann.files}?leases=1", headers=unknown).raise_for_status()
            assert not change.done()
            assert change.result(5).status_code == 200
            assert time.monotonic() >= ann.until


def test_a_feed_tells_no_origin_but_ones_own(place: tuple[RunningServer, dict[str, str]]) -> None:
    server, tokens = place
    with (
        client(server, tokens["ann"], **{"Files-Origin": "one"}) as ann,
        client(server, tokens["bob"]) as bob,
        ann.stream("GET", "?changes=1") as feed,
    ):
        lines = feed.iter_lines()
        next(lines)
        for origin in ("one", "other", "on"):
            headers = {"Files-Origin": origin}
            bob.put("/a/h?alt=media", content=b"x", headers=headers).raise_for_status()
        told = (line for line in lines if line.startswith("data:"))
        events = [json.loads(next(told).removeprefix("data:")) for _ in range(3)]
    assert [event["origin"] for event in events] == ["one", "", ""]
    assert {event["operation"] for event in events} == {"commit"}

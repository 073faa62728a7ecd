"""The index of leases, against the plain rule of who is concerned, and its bounds."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from files_server import leases as module
from files_server.grace import Marker
from files_server.leases import Client, Leases

KEYS = [f"{a}/{b}/{c}" for a in "ab" for b in "cd" for c in "ef"] + ["a", "b/g", "top"]
FOLDERS = ["", "a/", "b/", "a/c/", "b/d/"]


def event(number: int, operation: str, keys: list[str], rid: str, origin: str) -> tuple[int, str]:
    given = {"operation": operation, "keys": [["k", key] for key in keys]}
    return number, json.dumps(given | {"resource_id": rid, "etag": "", "origin": origin})


def with_leases(folder: Path, act: Callable[[Leases], None], seconds: float = 60.0) -> None:
    """Run `act` on an event loop, where the marker is made already."""

    async def run(pool: ThreadPoolExecutor) -> None:
        marker = Marker(folder / "leases", seconds, pool)
        leases = Leases(seconds, marker)
        while not marker.is_made():  # noqa: ASYNC110 - as the server asks, now and then
            await asyncio.sleep(0.001)
        act(leases)
        while leases.held:  # noqa: ASYNC110 - what has ended goes bit by bit
            await asyncio.sleep(0)

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(run(pool))


def _concerns(name: str, rid: str, operation: str, keys: list[str], changed: str) -> bool:
    above = operation != "commit" and any(
        key in ("", *FOLDERS) and name.startswith(key) for key in keys
    )
    return name in keys or rid == changed or above


@pytest.mark.parametrize("seed", range(20))
def test_a_change_finds_all_who_hold_it_and_nobody_else(seed: int, tmp_path: Path) -> None:
    chosen = random.Random(seed)
    clients: list[Client] = [("", "one"), ("", "two"), ("", "three")]

    def act(leases: Leases) -> None:
        terms: dict[Client, str] = {}
        held: dict[Client, dict[str, str]] = {client: {} for client in clients}
        for client in clients:
            leases.connected(client)
        for number in range(1, 400):
            client = chosen.choice(clients)
            if chosen.random() < 0.6:
                name = chosen.choice(KEYS)
                rid = f"r{KEYS.index(name) % 7}"  # some are names of one file
                granted = leases.grant(client, "k", name, rid)
                assert granted.endswith(" 60000")
                terms[client] = granted.split()[0]
                held[client][name] = rid
                continue
            operation = chosen.choice(["commit", "move", "delete"])
            keys = chosen.sample(KEYS + FOLDERS, chosen.choice([1, 2]))
            if operation == "commit":
                keys = [key for key in keys if key not in FOLDERS] or ["none"]
            rid, origin = f"r{chosen.randrange(9)}", chosen.choice(["one", "else", ""])
            leases.recall([event(number, operation, keys, rid, origin)])
            for one in clients:
                names = {
                    name
                    for name, leased in held[one].items()
                    if one[1] != origin and _concerns(name, leased, operation, keys, rid)
                }
                assert (number in leases.unconfirmed(one)) == bool(names)
                above = [key for key in keys if key in FOLDERS and operation != "commit"]
                whole = any(name.startswith(key) for name in names for key in above)
                for name in names:
                    del held[one][name]
                if names:
                    answer = leases.renew(one, terms[one], number).split()[0]
                    assert (answer != terms[one]) == whole
                    if answer != terms[one]:
                        held[one].clear()
                    terms[one] = answer
            assert not leases.pending
        for client in clients:
            leases.release(client, terms[client])

    with_leases(tmp_path, act)


def test_nothing_is_left_of_what_has_ended(tmp_path: Path) -> None:
    kept: list[Leases] = []

    def act(leases: Leases) -> None:
        kept.append(leases)
        for client in [("", f"c{number}") for number in range(3)]:
            leases.connected(client)
            for number in range(2000):
                granted = leases.grant(client, "k", f"d{number % 50}/e/{number}", f"r{number}")
            leases.release(client, granted.split()[0])
            leases.disconnected(client)

    with_leases(tmp_path, act)
    indexes: dict[str, Any] = vars(kept[0])
    for name in ("_names", "_rids", "_folders", "_terms", "_feeds"):
        assert not indexes[name], name
    assert indexes["_places"] == 0


def test_places_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    monkeypatch.setattr(module, "_MOST_IN_ALL", 250)

    def act(leases: Leases) -> None:
        granted = {}
        clients = [("", f"c{number}") for number in range(4)]
        for client in clients:
            leases.connected(client)
            answers = [leases.grant(client, "k", f"{n}/f", f"{n}") for n in range(200)]
            granted[client] = sum(map(bool, answers))
            assert leases.grant(client, "k", "0/f", "0") or client == clients[3]
        assert list(granted.values()) == [49, 49, 25, 0]  # a name, its directory, and the bucket
        leases.release(clients[0], leases.renew(clients[0], "0", 0).split()[0])

    def run(leases: Leases) -> None:
        act(leases)
        for client in [("", f"c{number}") for number in range(1, 4)]:
            leases.release(client, leases.renew(client, "0", 0).split()[0])

    with_leases(tmp_path, run)


def test_a_place_takes_half_a_kilobyte(tmp_path: Path) -> None:
    def act(leases: Leases) -> None:
        client = ("", "c")
        leases.connected(client)
        granted = ""
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            rid = f"{number:022}"
            granted = leases.grant(client, "k", f"project/d{number // 100}/f{number:06}", rid)
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert taken / 20_000 < 700
        leases.release(client, granted.split()[0])

    with_leases(tmp_path, act)

"""Who trusts a lease sees no version older than one whose change was answered before he looked.

Readers by leases, writers of contents, names and whole directories, all at once. In the end the
changes are played again in their order, which says what each name led to, and when.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.server.leasing import LeaseHolder, wait_until
from tests.server.running import running_server

RUN_SECONDS = 6.0
LEASE_SECONDS = 0.5
FOLDERS = ("d1", "d2")
NAMES = [f"b/{folder}/{name}" for folder in FOLDERS for name in "fgh"]
Tree = dict[str, str]
Act = Callable[[Tree], None]


@dataclass
class History:
    """What was done and answered, and what was seen. `floor`: by name, the last change of it that
    had been answered."""

    acts: list[tuple[int, Act]] = field(default_factory=list)
    seen: list[tuple[str, int, str | None]] = field(default_factory=list)
    floor: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, answer: httpx.Response, names: list[str], act: Act) -> None:
        number = int(answer.headers["files-cursor"].rpartition("-")[2])
        with self.lock:
            self.acts.append((number, act))
            for name in names:
                self.floor[name] = max(self.floor[name], number)

    def check(self) -> None:
        """Each look saw what its name led to after the change that it had to know, or later."""
        states: dict[str, list[tuple[int, str | None]]] = {name: [(0, None)] for name in NAMES}
        tree: Tree = {}
        for number, act in sorted(self.acts, key=lambda one: one[0]):
            act(tree)
            for name, known in states.items():
                if known[-1][1] != tree.get(name):
                    known.append((number, tree.get(name)))
        for name, floor, etag in self.seen:
            known = states[name]
            ends = [number for number, _ in known[1:]] + [1 << 60]
            allowed = [state for (_, state), end in zip(known, ends, strict=True) if end > floor]
            assert etag in allowed, f"{name} after change {floor}: {etag}, stale"


def _put(client: httpx.Client, history: History, chosen: random.Random) -> None:
    name = chosen.choice(NAMES)
    answer = client.put(f"/{name}?alt=media", content=chosen.randbytes(8))
    etag = answer.headers["etag"]

    def act(tree: Tree) -> None:
        tree[name] = etag

    assert answer.status_code == 200
    history.answered(answer, [name], act)


def _delete(client: httpx.Client, history: History, chosen: random.Random) -> None:
    name = chosen.choice(NAMES)
    answer = client.delete(f"/{name}", headers={"Files-Keep-Parent": "1"})
    if answer.status_code == 200:
        history.answered(answer, [name], lambda tree: tree.__delitem__(name))
    assert answer.status_code in (200, 404)


def _move(client: httpx.Client, history: History, chosen: random.Random) -> None:
    source, target = chosen.sample(NAMES, 2)
    exchange = chosen.random() < 0.5
    headers = {"Destination": f"/v1/files/{target}", "Files-Keep-Parent": "1"}
    given = {"Exchange": "T"} if exchange else {}
    answer = client.request("MOVE", f"/{source}", headers=headers | given)

    def act(tree: Tree) -> None:
        if exchange:
            tree[source], tree[target] = tree[target], tree[source]
        else:
            tree[target] = tree.pop(source)

    if answer.status_code == 200:
        history.answered(answer, [source, target], act)
    assert answer.status_code in (200, 404)


def _swap(client: httpx.Client, history: History, chosen: random.Random) -> None:
    headers = {"Destination": "/v1/files/b/d2/", "Exchange": "T"}
    answer = client.request("MOVE", "/b/d1/", headers=headers)

    def act(tree: Tree) -> None:
        before = dict(tree)
        tree.clear()
        other = {"d1": "d2", "d2": "d1"}
        for name, etag in before.items():
            bucket, folder, last = name.split("/")
            tree[f"{bucket}/{other[folder]}/{last}"] = etag

    assert answer.status_code == 200
    history.answered(answer, NAMES, act)
    time.sleep(chosen.random() * 0.1)


WRITERS = [_put, _put, _put, _delete, _move, _swap]


def _write(url: str, history: History, number: int, until: float) -> None:
    chosen = random.Random(number)
    headers = {"Files-Origin": f"w{number}"}
    with httpx.Client(base_url=f"{url}/v1/files", headers=headers, timeout=20) as client:
        while time.monotonic() < until:
            WRITERS[number](client, history, chosen)
            time.sleep(chosen.random() * 0.02)


def _look(holder: LeaseHolder, history: History, number: int, until: float) -> int:
    chosen, looks = random.Random(100 + number), 0
    while time.monotonic() < until:
        name = chosen.choice(NAMES)
        with history.lock:
            floor = history.floor[name]
        etag = holder.read(name).etag
        with history.lock:
            history.seen.append((name, floor, etag))
        looks += 1
        time.sleep(0.0005)
    return looks


def _doze(holder: LeaseHolder, until: float) -> None:
    """Now and then it does not hear for a while, or for longer than its time: what it trusts in
    meanwhile has to be true."""
    for delay in itertools.cycle((0.0, 0.15, 0.0, LEASE_SECONDS * 1.4)):
        holder.delay = delay
        time.sleep(0.4)
        if time.monotonic() > until:
            break
    holder.delay = 0.0


def _first(name: str, etag: str) -> Act:
    def act(tree: Tree) -> None:
        tree[name] = etag

    return act


def test_no_lease_shows_what_an_answered_change_has_replaced(data_dir: Path) -> None:
    history = History()
    with running_server(data_dir, lease_seconds=LEASE_SECONDS) as server:
        with httpx.Client(base_url=f"{server.url}/v1/files", timeout=20) as client:
            for name in NAMES:
                etag = client.put(f"/{name}?alt=media", content=b"0").headers["etag"]
                history.acts.append((len(history.acts) + 1, _first(name, etag)))
        holders = [LeaseHolder(server.url, f"h{number}") for number in range(3)]
        for holder in holders:
            wait_until(lambda h=holder: "files-lease" in h.ask(NAMES[0])[1].headers)
        until = time.monotonic() + RUN_SECONDS
        with ThreadPoolExecutor(len(WRITERS) + 7) as pool:
            writing = [
                pool.submit(_write, server.url, history, number, until)
                for number in range(len(WRITERS))
            ]
            looking = [
                pool.submit(_look, holders[number % 3], history, number, until)
                for number in range(6)
            ]
            dozing = pool.submit(_doze, holders[2], until)
            for each in (*writing, dozing):
                each.result(40)
            looks = sum(each.result(40) for each in looking)
        asked, recalled = (sum(getattr(h, n) for h in holders) for n in ("asked", "recalled"))
        for holder in holders:
            holder.close()
    history.check()
    print(f"{len(history.acts)} changes, {looks} looks, {asked} asked, {recalled} recalls")
    assert len(history.acts) > 50
    assert recalled > 50
    assert looks > asked * 1.2  # leases there were

"""A client that has leases, as small as it can be and right, for tests of what the server promises.

It must not know the server's inside: it speaks HTTP on sockets of its own.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Known:
    """What a name led to, and as of which change."""

    etag: str | None
    content: bytes
    rid: str


class LeaseHolder:
    """Listens in a thread, and confirms there unless `silent`. `read` asks the server only for what
    is not leased."""

    def __init__(self, url: str, origin: str, *, silent: bool = False, token: str = "") -> None:
        headers = {"Files-Origin": origin}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.client = httpx.Client(headers=headers, timeout=20, trust_env=False)
        self.files = f"{url}/v1/files"
        self.silent = silent
        self.delay = 0.0  # seconds until it takes note of what the feed brings
        self.term = ""
        self.until = 0.0
        self.asked = self.recalled = 0  # requests for files; recalls that came
        self.events: list[tuple[str, int, dict[str, object]]] = []
        self._leased: dict[str, Known] = {}
        self._latest = 0  # the last change heard of
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._closed = False
        self._feed_client = httpx.Client(headers=headers, timeout=20, trust_env=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._listening.wait(10), "no change feed"

    def __enter__(self) -> LeaseHolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._feed_client.close()
        self.client.close()

    def lose_feed(self) -> None:
        """The change feed's connection breaks."""
        self._feed_client.close()

    def leased(self, name: str) -> bool:
        """Whether `read` would ask nobody."""
        with self._lock:
            return name in self._leased and time.monotonic() < self.until

    def read(self, name: str) -> Known:
        """What the name leads to, from a lease if there is one."""
        with self._lock:
            if name in self._leased and time.monotonic() < self.until:
                return self._leased[name]
        return self.ask(name)[0]

    def ask(self, name: str) -> tuple[Known, httpx.Response]:
        """Read at the server, and lease what it grants."""
        begun = time.monotonic()
        target = f"{self.files}/{name}?alt=media&view=full"
        answer = self.client.get(target, headers={"Files-Lease": "1"})
        self.asked += 1
        assert answer.status_code in (200, 404), answer.text
        number = int(answer.headers.get("files-cursor", "-0").rpartition("-")[2])
        there = answer.status_code == 200
        entry = json.loads(answer.headers["files-entry"]) if there else {"resource_id": ""}
        etag = answer.headers["etag"] if there else None
        known = Known(etag, answer.content if there else b"", entry["resource_id"])
        with self._lock:
            granted = self._take(answer, begun)
            if granted and self._latest <= number:  # no event has overtaken it
                self._leased[name] = known
        return known, answer

    def confirm(self, cursor: str, term: str = "") -> None:
        """Take note of all changes up to a cursor. Under a term that has ended nothing counts."""
        self.renew(term or self.term, {"Last-Event-ID": cursor})

    def renew(self, term: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """POST, which extends what is leased."""
        begun = time.monotonic()
        given = {"Files-Lease": term, **(headers or {})}
        answer = self.client.post(f"{self.files}?leases=1", headers=given)
        with self._lock:
            self._take(answer, begun)
        return answer

    def release(self) -> httpx.Response:
        """Give everything back."""
        with self._lock:
            self._leased.clear()
        return self.client.delete(f"{self.files}?leases=1", headers={"Files-Lease": self.term})

    def _take(self, answer: httpx.Response, begun: float) -> bool:
        header = answer.headers.get("files-lease")
        if header is None:
            return False
        term, milliseconds = header.split(" ")
        if term != self.term:
            self._leased.clear()
            self.term, self.until = term, 0.0
        self.until = max(self.until, begun + int(milliseconds) / 1000)
        return True

    def _listen(self) -> None:
        with contextlib.suppress(httpx.HTTPError, RuntimeError):
            url = f"{self.files}?changes=1&own=0"
            with self._feed_client.stream("GET", url) as feed:
                kind = number = ""
                for line in feed.iter_lines():
                    if line.startswith(": connected"):
                        self._listening.set()
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "id":
                        number = value
                    elif name == "data":
                        self._heard(kind, number, value)
        with self._lock:
            self._leased.clear()  # the feed is lost

    def _heard(self, kind: str, cursor: str, data: str) -> None:
        number = int(cursor.rpartition("-")[2])
        if self.delay:
            time.sleep(self.delay)
        if kind == "confirm":
            self.events.append((kind, number, {"data": data, "cursor": cursor}))
            self.recalled += 1
            if not self.silent:
                self.confirm(cursor, data)
            return
        event = json.loads(data)
        with self._lock:
            self._latest = number
            places = ["/".join(pair) for pair in event["keys"]]
            if any(place.endswith("/") for place in places):
                self._leased.clear()
            for name, known in list(self._leased.items()):
                if name in places or known.rid == event["resource_id"]:
                    del self._leased[name]
        self.events.append((kind, number, event))


def wait_until(condition: object, seconds: float = 10) -> None:
    """Until a function is true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.002)

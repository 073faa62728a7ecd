"""What this process has done so far, counted: plain numbers, cheap to add to. A leaf.

It must not know how they are shown (`routes/measuring.py` does). The event loop adds to all but the
commits, which whoever makes them counts, one at a time; so that nothing is locked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from files_server.names import Kind

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MUTATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # in one commit; the last is the most
CHANGES = "change_feed"  # it lasts for hours, which says nothing of how fast it is
LEASES = "leases"
OTHER = "other"  # what is not the API's, or was refused before anybody looked what it is
_OPERATIONS = {
    Kind.ROOT: {"GET": "list_buckets", "HEAD": "list_buckets", "POST": "create_session"},
    Kind.SESSION: {
        "POST": "upload",
        "GET": "session_info",
        "HEAD": "session_info",
        "DELETE": "cancel_session",
    },
    Kind.BUCKET: {
        "GET": "list_files",
        "HEAD": "list_files",
        "PUT": "register_bucket",
        "PATCH": "set_attributes",
        "DELETE": "delete_bucket",
    },
    Kind.KEY: {
        "GET": "get_file",
        "HEAD": "get_file",
        "PUT": "register_file",
        "DELETE": "delete_file",
        "PATCH": "set_attributes",
        "MOVE": "move",
        "BIND": "bind",
        "POST": "undelete",
    },
}
_WITH_CONTENT = {"get_file": "read_content", "register_file": "put_content"}


class Histogram:
    """How many values there were up to each of the bounds, how many in all, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Meters:
    """All of them. `requests` by (operation, status), `seconds` by operation."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.seconds: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self.received = 0  # bytes of content
        self.sent = 0  # bytes of answers
        self.commit_seconds = Histogram(SECONDS)
        self.commit_mutations = Histogram(MUTATIONS)

    def answered(self, operation: str, status: int, sent: int, seconds: float) -> None:
        """A request has ended; `status` 0: it never was answered."""
        self.requests[operation, status] += 1
        self.sent += sent
        if operation != CHANGES:
            self.seconds[operation].add(seconds)

    def committed(self, mutations: int, seconds: float) -> None:
        """The catalog's writer has made a transaction durable, or failed to."""
        self.commit_mutations.add(mutations)
        self.commit_seconds.add(seconds)


def operation(kind: Kind | None, method: str, query: bytes) -> str:
    """The name of what is asked for; one of a few, whatever a client sends."""
    if kind is None:
        return OTHER
    name = _OPERATIONS[kind].get(method, OTHER)
    if query and name in _WITH_CONTENT and b"alt=media" in query:
        return _WITH_CONTENT[name]
    if query and kind is Kind.ROOT and b"changes=" in query:
        return CHANGES
    if query and kind is Kind.ROOT and b"leases=" in query:
        return LEASES
    return name


meters = Meters()  # one process runs one server

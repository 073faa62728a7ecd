"""Leases on names: who was promised that no change of a name is answered before he knows of it.

It must not read the catalog, and decides nothing about a change, only when it is answered. Event
loop only; all is sync but `heard`, so a change and a grant never meet half way.

A client's leases are one term: they are extended and run out together. What another client changes
is recalled from those who hold it; until they confirm, or their time is over, the change has no
answer. A term with a recall that is not confirmed is not extended, so that nobody waits for longer
than one term lasts.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import takewhile
from types import MappingProxyType

from files_server.grace import Marker
from filesfs.wire import Operation

MOST = 100_000  # places of one client: its leased names, and the directories above them
_MOST_IN_ALL = 500_000  # places, of half a kilobyte each
_LONGEST = 1024  # bytes of a key: a place has that much for each level
_SLACK = 0.02  # seconds that a term lasts longer here: no two clocks go quite alike
_AT_ONCE = 200  # leases that are taken out of the index in one turn of the event loop: 0.6 ms
_GRACE = 0  # the number that stands for the leases of a server that was killed
_RENAMES = frozenset({Operation.MOVE, Operation.EXCHANGE, Operation.DELETE, Operation.BUCKET})
_NOTHING: Mapping[int, object] = MappingProxyType({})

Client = tuple[str, str]  # the token's name and the Files-Origin: one alone could be another's
Event = tuple[int, str]
_log = logging.getLogger(__name__)


class _Lease:
    """One name that a client may open unasked. `recalled`: the change it is recalled by, or 0."""

    __slots__ = ("name", "recalled", "rid", "term")

    def __init__(self, term: _Term, name: str, rid: str) -> None:
        self.term, self.name, self.rid, self.recalled = term, name, rid, 0


class _Term:
    """A client's leases. `until` moves on only while `recalls` is empty: who waits for a recall
    relies on it."""

    def __init__(self, client: Client, until: float) -> None:
        self.id = secrets.token_hex(16)  # whoever knows it may confirm
        self.client, self.until = client, until
        self.leases: dict[str, _Lease] = {}
        self.places = 0
        self.recalls: dict[int, list[_Lease]] = {}  # by change, in order, until it is confirmed
        self.recalled = 0  # the change that all of its leases are recalled by
        self.ended = False
        self.timer: asyncio.TimerHandle | None = None


class _Recall:
    """A change that some have yet to confirm."""

    __slots__ = ("done", "terms")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.terms: set[_Term] = set()
        self.done = done


class Leases:
    """Owns terms, leases, and the changes that wait. `seconds` 0: there are none.

    Invariant: a lease is in `_names` and `_rids`, and its directories are in `_folders`, from its
    grant until it is confirmed as recalled or its term has ended.
    """

    def __init__(self, seconds: float, marker: Marker) -> None:
        self._seconds = seconds
        self._marker = marker
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[Client, int] = {}
        self._terms: dict[Client, _Term] = {}
        self._names: dict[str, tuple[_Lease, ...]] = {}  # by "bucket/key"
        self._rids: dict[str, tuple[_Lease, ...]] = {}
        # By "bucket/a/": how many leased names and directories of such are right in it.
        self._folders: dict[str, dict[_Term, int]] = {}
        self._ended: deque[_Term] = deque()  # whose leases are still in the index
        self._places = 0
        self.pending: dict[int, _Recall] = {}
        self.held = self.recalls = self.overdue = 0  # for the metrics

    # -- the server's life ------------------------------------------------------------------------
    def begin(self) -> None:
        """What a killed server had granted may still be trusted: no change is answered until that
        is over."""
        seconds = self._marker.left_behind()
        if seconds:
            _log.warning(
                "the server was killed with leases out: for %g s no change is answered", seconds
            )
            self.pending[_GRACE] = _Recall(self._loop.create_future())
            self._loop.call_later(seconds + _SLACK, self._grace_is_over)

    def close(self) -> None:
        """Where a lease is still out, the next start waits for it."""
        if not self._terms and _GRACE not in self.pending:
            self._marker.remove()

    def _grace_is_over(self) -> None:
        self.pending.pop(_GRACE).done.set_result(None)

    # -- who listens ------------------------------------------------------------------------------
    def connected(self, client: Client) -> None:
        """A change feed of this client begins. Of one without an origin all changes without one
        would be its own: it has no leases."""
        if client[1]:
            self._feeds[client] = self._feeds.get(client, 0) + 1

    def disconnected(self, client: Client) -> None:
        """It has ended. What is leased runs out: the client may not have noticed."""
        left = self._feeds.pop(client, 0) - 1
        if left > 0:
            self._feeds[client] = left

    # -- granting ---------------------------------------------------------------------------------
    def grant(self, client: Client, bucket: str, key: str, rid: str) -> str:
        """Lease a name to a client: "TERM MS", "" where that is refused. To be called without an
        `await` since the catalog was read: then what changed later is published later, too."""
        if client not in self._feeds or not self._may_grant():
            return ""
        term = self._term_of(client)
        if term.recalled or not self._add(term, f"{bucket}/{key}", rid):
            return ""
        return self._extended(term)

    def renew(self, client: Client, term_id: str, number: int) -> str:
        """Extend what is leased, after the client took note of all changes up to `number`. "TERM
        MS", of a new term where the client's is another; "" where nothing is granted."""
        term = self._terms.get(client)
        if term is not None and number and hmac.compare_digest(term.id, term_id):
            self._confirm(term, number)
        if client not in self._feeds or not self._may_grant():
            return ""
        return self._extended(self._term_of(client))

    def release(self, client: Client, term_id: str) -> None:
        """The client gives all its leases back."""
        term = self._terms.get(client)
        if term is not None and hmac.compare_digest(term.id, term_id):
            self._end(term)

    def _may_grant(self) -> bool:
        """Not before it is on disk that there are leases, nor while those of an earlier server may
        be out, for which the marker stands."""
        return self._seconds > 0 and _GRACE not in self.pending and self._marker.is_made()

    def _term_of(self, client: Client) -> _Term:
        term, now = self._terms.get(client), time.monotonic()
        if term is not None and now >= term.until:
            self._run_out(term)
            term = None
        if term is None:
            term = self._terms[client] = _Term(client, now + self._seconds + _SLACK)
            self._look_later(term)
        return term

    def _extended(self, term: _Term) -> str:
        now = time.monotonic()
        if not term.recalls:
            term.until = now + self._seconds + _SLACK
        left = round((term.until - _SLACK - now) * 1000)
        return f"{term.id} {left}" if left > 0 else ""

    # -- recalling --------------------------------------------------------------------------------
    def recall(self, events: Iterable[Event]) -> None:
        """Changes that were committed, before anybody is told of them."""
        if not self._terms:
            return
        for number, data in events:
            event = json.loads(data)
            leases, whole = self._concerned(event)
            for lease in leases:
                if self._is_recalled(lease.term, event["origin"], number):
                    lease.recalled = number
                    lease.term.recalls[number].append(lease)
            for term in whole:
                if self._is_recalled(term, event["origin"], number):
                    term.recalled = number

    def unconfirmed(self, client: Client) -> Mapping[int, object]:
        """The numbers of changes that this client has to confirm."""
        term = self._terms.get(client)
        return term.recalls if term is not None else _NOTHING

    def term_id(self, client: Client) -> str:
        """What this client confirms by; it may not have heard of its own term yet."""
        term = self._terms.get(client)
        return term.id if term is not None else ""

    async def heard(self, first: int, last: int) -> None:
        """Until all who hold what the changes `first` to `last` are about have confirmed them, or
        their time is over."""
        waited = [
            recall.done
            for number, recall in self.pending.items()
            if number == _GRACE or first <= number <= last
        ]
        if waited:
            await asyncio.wait(waited)

    def _concerned(self, event: dict[str, object]) -> tuple[list[_Lease], list[_Term]]:
        """Whose leases a change is about: single ones, and all of a client's where it is about a
        directory above one of them; the client drops them all, too."""
        leases, whole = list(self._rids.get(str(event["resource_id"]), ())), list[_Term]()
        keys = event["keys"]
        assert isinstance(keys, list)
        for bucket, key in keys:
            name = f"{bucket}/{key}"
            if name[-1] != "/":
                leases += self._names.get(name, ())
            elif event["operation"] in _RENAMES:
                whole += self._folders.get(name, ())
        return leases, whole

    def _is_recalled(self, term: _Term, origin: object, number: int) -> bool:
        """Have the change wait for this term, unless it is over or the change is the client's."""
        if term.ended or term.client[1] == origin or term.until <= time.monotonic():
            return False
        if number not in term.recalls:
            term.recalls[number] = []
            recall = self.pending.get(number)
            if recall is None:
                recall = self.pending[number] = _Recall(self._loop.create_future())
            recall.terms.add(term)
            self.recalls += 1
        return True

    def _confirm(self, term: _Term, cursor: int) -> None:
        for number in [number for number in term.recalls if number <= cursor]:
            for lease in term.recalls.pop(number):
                if lease.recalled == number:  # not granted again, nor recalled once more
                    self._drop(lease)
            self._settle(term, number)
        if 0 < term.recalled <= cursor:
            self._end(term)

    def _settle(self, term: _Term, number: int) -> None:
        recall = self.pending[number]
        recall.terms.discard(term)
        if not recall.terms:
            del self.pending[number]
            recall.done.set_result(None)

    # -- ending -----------------------------------------------------------------------------------
    def _look(self, term: _Term) -> None:
        """At the time when the term was over before it was extended."""
        if time.monotonic() >= term.until:
            self._run_out(term)
        else:
            self._look_later(term)

    def _look_later(self, term: _Term) -> None:
        # The event loop's own clock stands still during a turn: a request of now would be of then.
        left = max(term.until - time.monotonic(), 0.001)
        term.timer = self._loop.call_later(left, self._look, term)

    def _run_out(self, term: _Term) -> None:
        self.overdue += len(term.recalls)
        self._end(term)

    def _end(self, term: _Term) -> None:
        term.ended = True
        del self._terms[term.client]
        if term.timer is not None:
            term.timer.cancel()
        for number in list(term.recalls):
            del term.recalls[number]
            self._settle(term, number)
        if not self._ended:
            self._loop.call_soon(self._sweep)
        self._ended.append(term)

    def _sweep(self) -> None:
        """Take what has ended out of the index, a little at a time."""
        left = _AT_ONCE
        while self._ended and left:
            leases = self._ended[0].leases
            if not leases:
                self._ended.popleft()
                continue
            self._drop(next(reversed(leases.values())))
            left -= 1
        if self._ended:
            self._loop.call_later(0, self._sweep)

    # -- the index --------------------------------------------------------------------------------
    def _add(self, term: _Term, name: str, rid: str) -> bool:
        """Whether the name is leased now."""
        known = term.leases.get(name)
        if known is not None and known.rid == rid:
            known.recalled = 0
            return True
        if known is not None:
            if known.recalled:  # its recall is of use until it is confirmed
                return False
            self._drop(known)
        above = self._folders_of(name)
        fresh = list(takewhile(lambda folder: term not in self._folders.get(folder, ()), above))
        new = 1 + len(fresh)
        full = term.places + new > MOST or self._places + new > _MOST_IN_ALL
        if full or len(name) > _LONGEST:
            return False
        lease = term.leases[name] = _Lease(term, name, rid)
        self._names[name] = (*self._names.get(name, ()), lease)
        self._rids[rid] = (*self._rids.get(rid, ()), lease)
        for folder in fresh:
            self._folders.setdefault(folder, {})[term] = 1
        if len(fresh) < len(above):
            self._folders[above[len(fresh)]][term] += 1
        self._count(term, new)
        self.held += 1
        return True

    def _drop(self, lease: _Lease) -> None:
        term, name = lease.term, lease.name
        if term.leases.get(name) is not lease:
            return
        del term.leases[name]
        _take_out(self._names, name, lease)
        _take_out(self._rids, lease.rid, lease)
        gone = 1
        for folder in self._folders_of(name):
            terms = self._folders[folder]
            terms[term] -= 1
            if terms[term]:
                break
            gone += 1
            del terms[term]
            if not terms:
                del self._folders[folder]
        self._count(term, -gone)
        self.held -= 1

    @staticmethod
    def _folders_of(name: str) -> list[str]:
        """The directory of a name, "bucket/a/b/", and those above it."""
        found = []
        end = name.rfind("/")
        while end >= 0:
            found.append(name[: end + 1])
            end = name.rfind("/", 0, end)
        return found

    def _count(self, term: _Term, step: int) -> None:
        term.places += step
        self._places += step


def _take_out(index: dict[str, tuple[_Lease, ...]], key: str, lease: _Lease) -> None:
    left = tuple(other for other in index[key] if other is not lease)
    if left:
        index[key] = left
    else:
        del index[key]

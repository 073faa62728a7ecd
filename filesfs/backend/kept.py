"""What the server keeps of deleted and replaced files: listed, brought back, given up.

It must not decide which version is meant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from filesfs.backend.paths import Targets, quoted
from filesfs.backend.requester import Request, Requester
from filesfs.backend.settings import BackendSettings
from filesfs.domain import Location
from filesfs.errors import Unavailable, Unsupported
from filesfs.wire import DeletedBucket, DeletedFile, Extension

M = TypeVar("M", bound=BaseModel)


@asynccontextmanager
async def connected(settings: BackendSettings) -> AsyncIterator[KeptFiles]:
    """Raises Unsupported for a server that cannot undelete, or what stands against asking it."""
    requester, targets = Requester(settings), Targets(settings.prefix)
    try:
        answer = await requester.ask(Request("OPTIONS", targets.files()))
        tokens = answer.headers.get("files-extensions", "").replace(",", " ").split()
        if Extension.UNDELETE not in tokens:
            raise Unsupported("This server cannot undelete: it is another one, or an older one.")
        yield KeptFiles(requester, targets)
    finally:
        await requester.aclose()


class KeptFiles:
    """Asks the server. Raises the exceptions of `filesfs.errors`."""

    def __init__(self, requester: Requester, targets: Targets) -> None:
        self._requester = requester
        self._targets = targets

    async def buckets(self) -> list[DeletedBucket]:
        """Those of which something is kept, and of which this token may know."""
        body = await self._ask(Request("GET", self._targets.files("deleted=1")))
        return [_model(DeletedBucket, entry) for entry in _data(body)]

    async def files(self, bucket: str, prefix: str) -> AsyncIterator[DeletedFile]:
        """Every kept version whose key begins so, by key."""
        query = f"deleted=1&prefix={quoted(prefix)}"
        following = ""
        while True:
            after = f"&after={quoted(following)}" if following else ""
            body = await self._ask(
                Request("GET", self._targets.of(Location(bucket), query + after))
            )
            for entry in _data(body):
                yield _model(DeletedFile, entry)
            following = str(body.get("next") or "") if isinstance(body, dict) else ""
            if not following:
                return

    async def restore(self, kept: DeletedFile, place: Location, *, overwrite: bool) -> None:
        """Bring it back as `place`. PreconditionFailed where that exists and may not go."""
        target = self._targets.of(place, f"undelete={quoted(kept.etag)}")
        headers = {"Overwrite": "T"} if overwrite else {}
        await self._requester.ask(Request("POST", target, headers))

    async def purge(self, kept: DeletedFile) -> None:
        """Give it up: its space is free."""
        place = Location(kept.bucket, kept.key)
        target = self._targets.of(place, f"purge={quoted(kept.etag)}")
        await self._requester.ask(Request("POST", target))

    async def _ask(self, request: Request) -> object:
        return (await self._requester.ask(request)).json()


def _data(body: object) -> list[object]:
    if isinstance(body, dict) and isinstance(body.get("data"), list):
        return list(body["data"])
    raise Unavailable(f"The server's answer is no listing: {str(body)[:200]}")


def _model(model: Callable[..., M], entry: object) -> M:
    try:
        return model(**entry) if isinstance(entry, dict) else model()
    except ValidationError as error:
        raise Unavailable(f"The server's answer is malformed: {error}") from error

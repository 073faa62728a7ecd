"""Sends requests to the configured server, and to other origins that its URLs name.

Owner of the connections. It must not know operations: it adds what every request carries
(credentials for the own origin alone), maps errors, and retries what `retry` says.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import msgspec
import trio
from msgspec.structs import replace

from filesfs.backend.address import address_of
from filesfs.backend.answers import Answer, check
from filesfs.backend.bulk import WORTH_IT, BulkPool, Outgoing
from filesfs.backend.connection import Buffer, Headers, RawAnswer
from filesfs.backend.landing import Landing
from filesfs.backend.lone import Lone
from filesfs.backend.paths import target_of
from filesfs.backend.pool import IDEMPOTENT, Pool
from filesfs.backend.retry import RetryPolicy, Tries, repeat
from filesfs.backend.settings import BackendSettings
from filesfs.errors import AccessDenied, Corrupted, FilesfsError, Unavailable

# Done again, these would meet what others have put under the name since.
_ONCE = frozenset({"DELETE", "MOVE"})
_CURSOR_DIGITS = 18
_URGENT_CONNECTIONS = 2
_READ_TRIES = 3  # a GET that stalls is given up early enough for as many tries before the deadline


class Request(msgspec.Struct, frozen=True):
    """What is asked. `target` goes on the wire as it stands; `bulk`: content, not metadata."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: Buffer | Sequence[Buffer] = b""
    bulk: bool = False
    expected: int = 0  # bytes of content asked for; large ones have a way of their own
    landing: Landing | None = None  # where a large one goes, if the server tells its checksums
    urgent: bool = False  # others' requests may wait for it: it never waits for ours

    @property
    def gets_content(self) -> bool:
        """The answer's body is a file's, whatever its type: checksums stand for it."""
        return self.method == "GET" and "alt=media" in self.target


class Requester:
    """The server's address with two pools, so that bulk content never holds up metadata."""

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.policy = RetryPolicy(timeout=settings.timeout)
        self.is_extended = False  # then a bare 404 is not the server's word
        self._seen = ("", -1)  # epoch and number of the latest change that an answer told of
        address = address_of(settings)
        self.lone = Lone()
        self._metadata = Pool(address, settings.metadata_connections, self.lone)
        self._data = Pool(address, settings.data_connections, self.lone)
        self._urgent = Pool(address, _URGENT_CONNECTIONS, self.lone)
        self._large = None if address.tls else BulkPool(address, settings.data_connections)
        self._common = _common_headers(settings)
        self._elsewhere: httpx.AsyncClient | None = None

    async def ask(
        self,
        request: Request,
        tries: Tries | None = None,
        progress: Callable[[], float] | None = None,
    ) -> Answer:
        """The successful answer (2xx, 304), after as many tries as the deadline allows.

        Where an earlier try may have removed or moved a name unheard, the server is told since when
        to look for that change, which it then does not make again.
        """
        tries = tries if tries is not None else Tries()
        again = self.repeated if request.method in _ONCE else {}

        async def attempt() -> Answer:
            asked = request
            if again and tries.lost:
                asked = replace(request, headers={**request.headers, **again})
            answer = await self.once(asked)
            if answer.says_json and not request.gets_content:
                answer.require_json()  # what was garbled on the way is asked for again
            return answer

        return await repeat(self.policy, attempt, tries, progress)

    async def once(self, request: Request) -> Answer:
        """One try. Raises the exceptions of `filesfs.errors`."""
        stall = self.settings.timeout
        if request.method in IDEMPOTENT:
            stall /= _READ_TRIES
        head = self._head(request)
        self.lone.under_way += 1
        try:
            if request.expected >= WORTH_IT and self._large and request.method == "GET":
                raw = await self._large.get(head, stall, request.landing)
            else:
                raw = await self._pool(request).request(request.method, head, request.body, stall)
        except httpx.HTTPError as error:
            raise _connection_error(error) from error
        finally:
            self.lone.under_way -= 1
        answer = _answer(raw)
        self._see(answer.cursor)
        return check(answer, only_error_objects=self.is_extended)

    @property
    def repeated(self) -> dict[str, str]:
        """Headers that tell the server since when an earlier try may have been done."""
        epoch, number = self._seen
        return {"Files-Repeat": f"{epoch}-{number}"} if epoch else {}

    def _pool(self, request: Request) -> Pool:
        if request.urgent:
            return self._urgent
        return self._data if request.bulk else self._metadata

    def _see(self, cursor: str) -> None:
        epoch, _, number = cursor.rpartition("-")
        if not (number.isdecimal() and len(number) <= _CURSOR_DIGITS):
            return
        if epoch != self._seen[0] or int(number) > self._seen[1]:
            self._seen = (epoch, int(number))

    def sends_in_chunks(self, url: str) -> bool:
        """Whether `begin` can send there."""
        return self._large is not None and self.is_ours(url)

    async def begin(self, request: Request) -> Outgoing:
        """A request to a URL that is ours, whose body follows in chunks; see `sending`."""
        assert self._large is not None
        request = replace(request, target=target_of(request.target))
        with connection_errors():
            return await self._large.begin(self._head(request, chunked=True), self.settings.timeout)

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Iterator[None]:
        """Around each step of an outgoing request: raises as `once` does."""
        try:
            with connection_errors():
                yield
        except Unavailable:
            if outgoing.answer is not None:  # the server has said why
                check(_answer(outgoing.answer), only_error_objects=self.is_extended)
            raise

    async def finish(self, outgoing: Outgoing) -> Answer:
        """End an outgoing request; its successful answer."""
        with self.sending(outgoing):
            raw = await outgoing.finish()
        return check(_answer(raw), only_error_objects=self.is_extended)

    @asynccontextmanager
    async def stream(
        self, request: Request, stall: float
    ) -> AsyncIterator[tuple[Headers, AsyncIterator[bytes]]]:
        """An answer as it comes, on a connection of its own. Raises as `once` does."""
        context = self._metadata.stream(self._head(request), stall)
        with connection_errors():
            status, headers, pieces = await context.__aenter__()
        try:
            if status != 200:
                body = b""
                with trio.move_on_after(stall), suppress(httpx.HTTPError):  # the status says enough
                    body = b"".join([piece async for piece in pieces])
                raw = RawAnswer(status, headers, body)
                check(_answer(raw), only_error_objects=self.is_extended)
            yield headers, pieces
        finally:
            await context.__aexit__(None, None, None)

    def is_ours(self, url: str) -> bool:
        """Whether a URL that the server handed out is on the configured origin. Corrupted."""
        try:
            return self._is_ours(url)
        except ValueError as error:
            raise Corrupted(f"The server handed out a URL that is none: {error}") from error

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        if self.settings.unix_socket is not None:
            return parts.hostname in (None, "localhost", self.settings.host)
        if not parts.scheme and not parts.netloc:
            return True
        port = parts.port or (443 if parts.scheme == "https" else 80)
        ours = (self.settings.is_tls, self.settings.host, self.settings.port)
        return (parts.scheme == "https", parts.hostname, port) == ours

    async def ask_url(self, request: Request, tries: Tries | None = None) -> Answer:
        """As `ask`, with a whole URL as target: other origins get no credentials."""
        return await repeat(self.policy, lambda: self.once_url(request), tries)

    async def once_url(self, request: Request) -> Answer:
        """As `once`, with a whole URL as target."""
        if self.is_ours(request.target):
            return await self.once(replace(request, target=target_of(request.target)))
        with connection_errors():
            response = await self._foreign_client().request(
                request.method,
                request.target,
                headers=dict(request.headers),
                content=_joined(request.body),
            )
        answer = Answer(response.status_code, dict(response.headers), response.content)
        return check(answer, only_error_objects=False)

    async def aclose(self) -> None:
        await self._metadata.aclose()
        await self._data.aclose()
        await self._urgent.aclose()
        if self._large is not None:
            self._large.close()
        if self._elsewhere is not None:
            await self._elsewhere.aclose()

    def _foreign_client(self) -> httpx.AsyncClient:
        if self._elsewhere is None:
            self._elsewhere = httpx.AsyncClient(
                follow_redirects=True,
                timeout=self.settings.timeout,
                trust_env=self.settings.trust_env,
            )
        return self._elsewhere

    def _head(self, request: Request, *, chunked: bool = False) -> bytes:
        lines = [f"{request.method} {_sendable(request.target)} HTTP/1.1\r\n", self._common]
        for name, value in request.headers.items():
            lines.append(f"{name}: {_sendable(value)}\r\n")
        length = _length(request.body)
        if chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        elif length or request.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {length}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")


def _sendable(text: str) -> str:
    """What the server has handed out goes back to it as it is, if it can. Corrupted."""
    if not text.isprintable() or (not text.isascii() and max(text) > "\xff"):
        raise Corrupted("The server handed out a URL or an ETag that no request can hold.")
    return text


@contextmanager
def connection_errors() -> Iterator[None]:
    """Maps httpx's exceptions to Unavailable."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise Corrupted(f"The server handed out a URL that is none: {error}") from error
    except httpx.HTTPError as error:
        raise _connection_error(error) from error


def _connection_error(error: httpx.HTTPError) -> FilesfsError:
    if isinstance(error, httpx.ConnectError):
        cause = error.__cause__
        while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__cause__
        if cause is not None:  # trying again would change nothing
            return AccessDenied(f"{error}. Give the server's CA as ca_file.")
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Unavailable(str(error) or repr(error), sent=not unsent)


def _common_headers(settings: BackendSettings) -> str:
    lines = [f"Host: {settings.host_header}", "User-Agent: filesfs", "Accept: */*"]
    if settings.token is not None:
        lines.append(f"Authorization: Bearer {settings.token}")
    if settings.origin:
        lines.append(f"Files-Origin: {settings.origin}")
    return "".join(f"{line}\r\n" for line in lines)


def _answer(raw: RawAnswer) -> Answer:
    return Answer(raw.status, raw.headers, raw.body, raw.landed)


def _length(body: Buffer | Sequence[Buffer]) -> int:
    if isinstance(body, bytes | bytearray | memoryview):
        return len(body)
    return sum(map(len, body))


def _joined(body: Buffer | Sequence[Buffer]) -> bytes:
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b"".join(body)

"""Decides whether a request may come in at all: its token or signed URL, its method, its bucket.

It must not look at bodies or the catalog. What only those tell is asked of `auth.current()` where
it is known: the bucket of op 1, the owner of a session, which buckets a listing may show.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from files_server import auth, logs
from files_server.asgi import App, Receive, Scope, Send, header, refuse
from files_server.auth import Grant, Right
from files_server.errors import ApiError, shown
from files_server.names import Kind, Target, parse_destination, parse_path

OPEN_PATHS = frozenset({b"/healthz", b"/v1/health", b"/health"})  # tell nothing but "alive"
_SIGNED = frozenset({"alt", "expires", "by", "signature"})  # all that a signed URL may carry
_CHALLENGE = [(b"www-authenticate", b'Bearer realm="files"')]
_METHODS = {
    "GET": Right.READ,
    "HEAD": Right.READ,
    "OPTIONS": Right.READ,
    "POST": Right.WRITE,
    "PUT": Right.WRITE,
    "PATCH": Right.WRITE,
    "MOVE": Right.WRITE,
    "BIND": Right.WRITE,
    "DELETE": Right.DELETE,
}


class Access:
    """Middleware. Without tokens it lets everybody in."""

    def __init__(self, app: App, tokens: auth.Tokens, signer: auth.Signer, base_url: str) -> None:
        self._app = app
        self._tokens = tokens
        self._signer = signer
        self._base_url = base_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._tokens.asked_for:
            try:
                self._admit(scope)
            except ApiError as error:
                challenge = _CHALLENGE if error.status == 401 else []
                await refuse(send, error.status, error.detail, challenge)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        raw_path: bytes = scope["raw_path"]
        if raw_path in OPEN_PATHS:
            return
        target = parse_path(raw_path)
        given = header(scope, b"authorization")
        query = _query(scope)
        if given is None and "signature" in query:
            grant = self._by_url(scope["method"], target, query)
        else:
            grant = self._by_token(given)
            self._check(grant, scope, target)
        scope[logs.TOKEN_NAME] = grant.name
        auth.enter(grant, self._signer)

    def _by_token(self, given: bytes | None) -> Grant:
        if given is None:
            raise ApiError(401, "This server asks for a token: send Authorization: Bearer TOKEN.")
        scheme, _, token = given.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise ApiError(401, f"The scheme {shown(scheme)} is not known here; use Bearer.")
        grant = self._tokens.find(token.strip())
        if grant is None:
            raise ApiError(401, "The token is not known here, or is no longer.")
        return grant

    def _by_url(self, method: str, target: Target | None, query: dict[str, str]) -> Grant:
        if method not in ("GET", "HEAD") or query.get("alt") != "media" or set(query) - _SIGNED:
            raise ApiError(
                403, "A signed URL is for GET and HEAD with ?alt=media and nothing else."
            )
        if target is None or target.kind is not Kind.KEY or target.problem:
            raise ApiError(403, "A signed URL is for the content of one file.")
        problem = self._signer.problem(target.bucket, target.key, query)
        if problem:
            raise ApiError(403, problem)
        signed_by = self._tokens.named(query["by"])
        if signed_by is None or not signed_by.allows(Right.READ, target.bucket):
            raise ApiError(403, "The token in whose name this URL was made may not read this now.")
        return Grant(signed_by.name, frozenset({Right.READ}), (target.bucket,))

    def _check(self, grant: Grant, scope: Scope, target: Target | None) -> None:
        if target is None:
            if scope["raw_path"].partition(b"?")[0].endswith(b"/metrics"):
                _need(grant, Right.ADMIN, "")
            return
        right = _right(scope, target)
        if target.kind in (Kind.BUCKET, Kind.KEY) and right is not Right.REGISTER:
            _need(grant, right, target.bucket)
        else:
            _need_any(grant, right)
        if scope["method"] in ("MOVE", "BIND"):
            self._check_destination(grant, scope, target)

    def _check_destination(self, grant: Grant, scope: Scope, target: Target) -> None:
        given = header(scope, b"destination")
        if given is None:
            return  # the handler says so
        bucket, _ = parse_destination(given.decode("latin-1"), self._base_url)
        _need(grant, Right.WRITE, bucket)
        if bucket == target.bucket:
            return
        # Content leaves its bucket: what may be read in one may not be readable in the other.
        _need(grant, Right.READ, target.bucket)
        if scope["method"] == "MOVE":
            _need(grant, Right.DELETE, target.bucket)
            if header(scope, b"exchange") is not None:
                _need(grant, Right.READ, bucket)
                _need(grant, Right.DELETE, bucket)


def require(right: Right, bucket: str) -> None:
    """For handlers: ApiError 403 unless the running request's token may do `right` to `bucket`."""
    _need(auth.current(), right, bucket)


def require_owner(owner: str, bucket: str) -> None:
    """For handlers: ApiError 403 unless the running request's token is the session's `owner`, and
    may still write to its bucket."""
    grant = auth.current()
    _need(grant, Right.WRITE, bucket)
    if grant.name != owner and not grant.has(Right.ADMIN):
        raise ApiError(403, f"This upload session does not belong to the token {grant.name!r}.")


def _query(scope: Scope) -> dict[str, str]:
    """The query as the handlers see it: of a parameter that comes twice, the last."""
    raw: bytes = scope["query_string"]
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}


def _right(scope: Scope, target: Target) -> Right:
    method: str = scope["method"]
    if target.kind is Kind.SESSION:
        return Right.WRITE
    if target.kind is Kind.ROOT and _query(scope).get("leases"):
        return Right.READ  # what is leased was read
    if method == "POST" and target.kind is Kind.BUCKET and "contents" in _query(scope):
        return Right.READ
    if method == "PUT":
        if target.is_uri:
            return Right.REGISTER
        if target.kind is Kind.KEY and _query(scope).get("alt") != "media":
            return Right.REGISTER
    return _METHODS.get(method, Right.READ)


def _need(grant: Grant, right: Right, bucket: str) -> None:
    if not grant.allows(right, bucket):
        where = f" in the bucket {shown(bucket)}" if bucket else ""
        raise ApiError(403, f"The token {grant.name!r} has no {right} right{where}.")


def _need_any(grant: Grant, right: Right) -> None:
    if not grant.has(right):
        raise ApiError(403, f"The token {grant.name!r} has no {right} right.")

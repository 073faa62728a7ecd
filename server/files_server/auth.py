"""Bearer tokens: who may do what to which buckets, from a file that is read again when it changes.

It must not parse requests or touch the catalog; `access.py` asks it. A line of the file is

    NAME sha256:HEX RIGHTS BUCKETS

RIGHTS and BUCKETS are comma-separated; rights are read, write, delete, register, admin (which has
all of them), buckets are fnmatch patterns. "#" begins a comment line. The file holds hashes, so it
is no secret, but whoever can write it can let himself in: others may not. Plain SHA-256 is enough
because tokens are 256 random bits, which no dictionary holds.

FILES_SERVER_TOKENS in the environment holds such lines too, separated by newlines or ";".
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

VARIABLE = "FILES_SERVER_TOKENS"
_RELOAD_SECONDS = 1.0  # the file is looked at no more often than this
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}\Z")
_HASH = re.compile(r"sha256:[0-9a-f]{64}\Z")
_BUCKETS = re.compile(r"[A-Za-z0-9_*?\[\]!-]+\Z")


class Right(StrEnum):
    """What a token can be good for."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    REGISTER = "register"
    ADMIN = "admin"


class TokensError(Exception):
    """The tokens cannot be used; one line with the file, the line and what is allowed."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token allows."""

    name: str
    rights: frozenset[Right]
    buckets: tuple[str, ...]

    def allows(self, right: Right, bucket: str) -> bool:
        """Whether this token may do `right` to `bucket`."""
        return self.has(right) and any(fnmatchcase(bucket, p) for p in self.buckets)

    def has(self, right: Right) -> bool:
        """Whether it may do so to any bucket at all."""
        return right in self.rights or Right.ADMIN in self.rights


EVERYBODY = Grant("", frozenset({Right.ADMIN}), ("*",))  # without tokens nobody is asked


@dataclass(frozen=True, slots=True)
class _Pass:
    grant: Grant
    signer: Signer | None


_NOBODY_ASKED = _Pass(EVERYBODY, None)
_current: ContextVar[_Pass] = ContextVar("pass", default=_NOBODY_ASKED)


def current() -> Grant:
    """The grant of the request that this code runs for."""
    return _current.get().grant


def signature(bucket: str, key: str) -> str:
    """What a URL of content needs to work without a token: "&expires=...", or "" without tokens."""
    now = _current.get()
    return "&" + now.signer.sign(bucket, key, now.grant.name) if now.signer else ""


def enter(grant: Grant, signer: Signer | None) -> None:
    """Make `grant` the running request's. For access.py: one task serves one request."""
    _current.set(_Pass(grant, signer))


def new_token(name: str, rights: str = "read", buckets: str = "*") -> tuple[str, str]:
    """A fresh token and its line for the tokens file. Raises TokensError for a bad argument."""
    token = secrets.token_urlsafe(32)
    line = f"{name} sha256:{_digest(token)} {rights} {buckets}"
    _parse_line(line, "the new token")
    return token, line


class Tokens:
    """Owns the table of tokens. A change for the worse (unreadable, malformed) is reported and
    the last good table stays in force; to shut everybody out, empty the file."""

    def __init__(
        self,
        path: Path | None,
        environment: Mapping[str, str] | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        variables = os.environ if environment is None else environment
        fixed = variables.get(VARIABLE, "").replace(";", "\n")
        self._fixed = _parse(fixed, VARIABLE)
        self._path = path
        self._warn = warn
        self._seen: tuple[int, ...] = ()
        self._next_look = 0.0
        self._table = dict(self._fixed)
        if path is not None:
            self._seen = _version(path)
            self._table |= _read(path)

    @property
    def asked_for(self) -> bool:
        """Whether requests need a token at all."""
        return self._path is not None or bool(self._fixed)

    def find(self, token: str) -> Grant | None:
        """The grant of `token`, None for an unknown one."""
        self._look()
        # Looked up by hash: how long a dictionary takes tells nothing about a hash's preimage.
        return self._table.get(_digest(token))

    def named(self, name: str) -> Grant | None:
        """The grant of that name: a URL that it signed is good only while it exists."""
        self._look()
        return next((grant for grant in self._table.values() if grant.name == name), None)

    def _look(self) -> None:
        now = time.monotonic()
        if self._path is None or now < self._next_look:
            return
        self._next_look = now + _RELOAD_SECONDS
        version: tuple[int, ...] = ()
        try:
            version = _version(self._path)
            if version == self._seen:
                return
            self._table = self._fixed | _read(self._path)
        except TokensError as error:
            if version != self._seen:
                self._warn(f"{error}; the tokens read before stay in force")
        self._seen = version


class Signer:
    """Signs URLs that let one file be read for a while, by whoever holds them."""

    def __init__(self, key: bytes, seconds: int) -> None:
        self._key = key
        self._seconds = seconds

    def sign(self, bucket: str, key: str, name: str) -> str:
        """Query parameters that let `key` be read in the name of the token `name`."""
        expires = int(time.time()) + self._seconds
        return (
            f"expires={expires}&by={name}&signature={self._signature(bucket, key, expires, name)}"
        )

    def problem(self, bucket: str, key: str, given: Mapping[str, str]) -> str:
        """Why this URL lets nobody in; "" if it does."""
        text, name = given.get("expires", ""), given.get("by", "")
        if not (text.isascii() and text.isdigit() and len(text) < 15):
            return f"The URL's expires {text[:40]!r} is no number of seconds."
        expected = self._signature(bucket, key, int(text), name)
        if not hmac.compare_digest(expected.encode(), given.get("signature", "").encode()):
            return "The URL's signature is not good for this file."
        if int(text) < time.time():
            return "The URL has expired. Read the file's metadata again for a fresh one."
        return ""

    def _signature(self, bucket: str, key: str, expires: int, name: str) -> str:
        message = f"read\n{bucket}\n{key}\n{expires}\n{name}".encode()
        return hmac.digest(self._key, message, "sha256").hex()


def signing_key(path: Path) -> bytes:
    """The key in `path`, made (0600) when there is none. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) >= 32:
            return key
        path.unlink()  # a crash cut it short; URLs signed with it were never handed out
        return signing_key(path)
    with os.fdopen(descriptor, "wb") as file:
        key = secrets.token_bytes(32)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _version(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise TokensError(f"cannot read the tokens file {path}: {error.strerror}") from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TokensError(f"the tokens file {path} can be written by others: chmod go-w it")
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path) -> dict[str, Grant]:
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise TokensError(f"the tokens file {path} is not UTF-8") from None
    except OSError as error:
        raise TokensError(f"cannot read the tokens file {path}: {error.strerror}") from None


def _parse(text: str, source: str) -> dict[str, Grant]:
    table: dict[str, Grant] = {}
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        digest, grant = _parse_line(line, f"{source}, line {number}")
        if grant.name in names:
            raise TokensError(f"{source}, line {number}: the name {grant.name!r} is taken already")
        names.add(grant.name)
        table[digest] = grant
    return table


def _parse_line(line: str, where: str) -> tuple[str, Grant]:
    fields = line.split()
    if len(fields) != 4:
        raise TokensError(f"{where}: needs 4 fields: NAME sha256:HEX RIGHTS BUCKETS")
    name, digest, rights, buckets = fields
    if not _NAME.match(name):
        raise TokensError(f"{where}: the name {name!r} is not 1 to 64 of A-Z a-z 0-9 _ . @ -")
    if not _HASH.match(digest):
        raise TokensError(f"{where}: the second field must be sha256: and 64 lower-case hex digits")
    unknown = set(rights.split(",")) - set(Right)
    if unknown:
        raise TokensError(f"{where}: no such right: {', '.join(sorted(unknown))}; {_rights()}")
    patterns = tuple(buckets.split(","))
    if not all(_BUCKETS.match(pattern) for pattern in patterns):
        raise TokensError(f"{where}: {buckets!r} are no patterns of bucket names, with commas")
    grant = Grant(name, frozenset(Right(right) for right in rights.split(",")), patterns)
    return digest.removeprefix("sha256:"), grant


def _rights() -> str:
    return f"there are {', '.join(Right)}"

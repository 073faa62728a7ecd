"""What a backend needs to know to reach its server. Values only: no I/O, no defaults from files."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from filesfs.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """Where the server is and how it is spoken to.

    `base_url` is `http://HOST[:PORT][/PATH]`, `https://...`, or with `unix_socket` whatever names
    the server there. `timeout` is in seconds: a request that makes no progress for so long, retries
    included, fails. `origin` marks this client's changes in the change feed.
    """

    base_url: str = "http://localhost"
    unix_socket: Path | None = None
    token: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    data_connections: int = 8
    metadata_connections: int = 16
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    trust_env: bool = False  # proxies from the environment, for URLs on other origins
    origin: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    own_changes: bool = True  # whether the change feed tells of this client's own, too

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"The server's address {self.base_url!r} is no URL such as http://HOST:PORT or"
                f" https://HOST; for a Unix socket give its path as unix_socket."
            )
        if parts.username or parts.password:
            raise UsageError("The server's address holds credentials; give them as the token.")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise UsageError("The token has characters that no HTTP header can hold.")
        if self.timeout <= 0:
            raise UsageError(f"The timeout is {self.timeout} s; it must be more than 0.")

    @property
    def is_tls(self) -> bool:
        return urlsplit(self.base_url).scheme == "https"

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.base_url).port or (443 if self.is_tls else 80)

    @property
    def host_header(self) -> str:
        """The Host header: brackets around IPv6, the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.is_tls else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def prefix(self) -> str:
        """The path in front of `/files`, ending in `/v1`."""
        path = urlsplit(self.base_url).path.rstrip("/")
        return path if path.endswith("/v1") else f"{path}/v1"

    @property
    def server_id(self) -> str:
        """Names the server, so that a cache of another one is told apart."""
        scheme = "https" if self.is_tls else "http"
        where = f"unix:{self.unix_socket}" if self.unix_socket else self.host_header
        return f"{scheme}://{where}{self.prefix.removesuffix('/v1')}"

"""The server's settings: a frozen value, read once from arguments, environment and a TOML file.

It must not open the data folder, bind anything or read a secret: it says what was asked for, not
whether it works.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from files_server.grace import MOST_SECONDS

_DURATION = re.compile(r"(?:off|(\d{1,9})([smhd])?)\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PREFIX = "FILES_SERVER_"
_LISTS = frozenset({"file_roots"})  # written with ":" between paths in an environment variable


class SettingsError(ValueError):
    """A setting is wrong; the message is one line that names it, its value and what is allowed."""


class Settings(BaseModel):
    """Everything that an operator can choose. Durations are seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(description="Holds catalog and content; one server owns it.")
    listen: str = Field(
        default="127.0.0.1:8321",
        description="HOST:PORT, [HOST]:PORT or unix:/PATH. Port 0 takes a free one.",
    )
    public_url: str = Field(
        default="",
        description="What URLs handed out begin with, without /v1. Default: from `listen`.",
    )
    file_roots: tuple[Path, ...] = Field(
        default=(),
        description="Folders below which file:// locations may be registered; none: none may.",
    )
    inline_limit: int = Field(
        default=65536,
        ge=0,
        description="Content up to this many bytes is kept in the catalog.",
    )
    session_idle_seconds: int = Field(
        default=86400,
        ge=1,
        description="An upload session without a request for so long is collected.",
    )
    completed_session_seconds: int = Field(
        default=3600, ge=0, description="How long a completed session still answers."
    )
    superseded_seconds: int = Field(
        default=3600,
        ge=0,
        description="How long a replaced version can still be read by `version=`.",
    )
    keep_deleted: int = Field(
        default=0,
        ge=0,
        description="How long deleted and replaced files can be undeleted, such as 7d or 12h.",
    )
    lease_seconds: float = Field(
        default=1.0,
        ge=0,
        le=MOST_SECONDS,
        description="How long a client may open a file without asking, which a change waits for"
        " unless the client confirms it; 0: not at all.",
    )
    url_seconds: int = Field(
        default=900,
        ge=1,
        description="How long the signed `url` of a FileResponse works, with tokens on.",
    )
    max_json_bytes: int = Field(
        default=1 << 20, ge=1024, description="A longer JSON body is refused, 413."
    )
    max_file_bytes: int = Field(default=1 << 50, ge=1, description="A larger file is refused, 413.")
    max_sessions: int = Field(
        default=10000, ge=1, description="More open upload sessions than this are refused, 429."
    )
    max_connections: int = Field(
        default=1024,
        ge=1,
        description="Connections served at a time; further ones wait to be accepted.",
    )
    header_seconds: int = Field(
        default=15, ge=1, description="A request's header that takes longer ends its connection."
    )
    body_idle_seconds: int = Field(
        default=60, ge=1, description="A body of which nothing arrives for so long is given up."
    )
    send_idle_seconds: int = Field(
        default=60,
        ge=1,
        description="A client that takes nothing of its answer for so long is cut off.",
    )
    tokens_file: Path | None = Field(
        default=None,
        description="Bearer tokens, one a line (see auth.py). Without it nobody is asked.",
    )
    tls_cert: Path | None = Field(
        default=None, description="Certificate chain, PEM. Needs tls_key."
    )
    tls_key: Path | None = Field(default=None, description="Private key, PEM. Needs tls_cert.")
    insecure: bool = Field(
        default=False, description="Listen beyond this machine although tokens or TLS are missing."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Requests are logged at info, refused ones too."
    )

    @field_validator("keep_deleted", mode="before")
    @classmethod
    def _parse_duration(cls, value: object) -> object:
        match = _DURATION.match(value) if isinstance(value, str) else None
        if match is None and isinstance(value, str):
            raise ValueError("must be seconds, or a number with s, m, h or d; 0 or off: not at all")
        return int(match[1] or 0) * _UNITS[match[2] or "s"] if match else value

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        if value.startswith("unix:"):
            if not value.removeprefix("unix:").startswith("/"):
                raise ValueError("a Unix socket needs an absolute path: unix:/PATH")
            return value
        host, port = _split_address(value)
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be HOST:PORT, [HOST]:PORT or unix:/PATH, port 0 to 65535")
        return value

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or none")
        return self

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket to listen on, or None for TCP."""
        return Path(self.listen.removeprefix("unix:")) if self.listen.startswith("unix:") else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on. Only meaningful without `socket_path`."""
        host, port = _split_address(self.listen)
        return host, int(port)

    @property
    def base_url(self) -> str:
        """What URLs that the server hands out begin with: no trailing slash, without /v1."""
        if self.public_url:
            return self.public_url
        if self.socket_path is not None:
            return "http://localhost"
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{self.listen}"


def load(
    given: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Settings from `given` (arguments; None: not given), then FILES_SERVER_*, a file, defaults.

    The TOML file is `file`, or FILES_SERVER_CONFIG. Raises SettingsError.
    """
    variables = os.environ if environment is None else environment
    named = variables.get(PREFIX + "CONFIG")
    path = file or (Path(named) if named else None)
    values: dict[str, Any] = _from_file(path) if path else {}
    values.update(_from_environment(variables))
    values.update({name: value for name, value in given.items() if value is not None})
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _split_address(value: str) -> tuple[str, str]:
    host, _, port = value.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None


def _from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = variables.get(PREFIX + name.upper())
        if text is not None:
            values[name] = [p for p in text.split(":") if p] if name in _LISTS else text
    return values


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{name} is needed: give --{name.replace('_', '-')} or {PREFIX}{name.upper()}"
    if first["type"] == "extra_forbidden":
        return f"{name} is no setting; there are: {', '.join(Settings.model_fields)}"
    return f"{name} {first['input']!r}: {message}" if name else message

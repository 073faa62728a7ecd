"""The settings of one mount: frozen values, from -o options, environment and a TOML file.

It must not connect, mount or make folders: it says what was asked for, not whether it works.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import urlsplit

from filesfs import options
from filesfs.backend.settings import BackendSettings
from filesfs.domain import Location
from filesfs.errors import UsageError

TOKEN_VARIABLE = "FILESFS_TOKEN"
OPTIONS_VARIABLE = "FILESFS_OPTIONS"
CONFIG_VARIABLE = "FILESFS_CONFIG"
_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,1024}")
_FORMS = "http://HOST:PORT[/BUCKET[/PREFIX]], https://... or unix:PATH[:/BUCKET[/PREFIX]]"


@dataclass(frozen=True, slots=True)
class Source:
    """What is mounted: a server, and where on it. `socket` when it listens on a Unix socket."""

    url: str  # "http://host:port", without a path; for a socket "http://localhost"
    socket: Path | None = None
    root: Location = field(default_factory=lambda: Location(""))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises UsageError for anything but the two forms."""
        if text.startswith("unix:"):
            path, _, below = text.removeprefix("unix:").partition(":/")
            if not path:
                raise UsageError(f"{text!r} names no socket; write unix:/PATH/OF/THE/SOCKET")
            return cls("http://localhost", Path(os.path.abspath(path)), _root(text, below))
        return cls._parse_url(text)

    @classmethod
    def _parse_url(cls, text: str) -> Self:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{text!r} is no URL: {error}; write {_FORMS}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{text!r} names no server; write {_FORMS}{_guess(text)}")
        if parts.username is not None:
            raise UsageError("a password in the URL can be read by everybody; use -o token_file=")
        if parts.query or parts.fragment:
            raise UsageError(f"{text!r}: a source has no '?' and no '#'; write {_FORMS}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        address = host if port is None else f"{host}:{port}"
        return cls(f"{parts.scheme}://{address}", None, _root(text, parts.path))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port. Only meaningful without `socket`."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def __str__(self) -> str:
        below = f"/{self.root}" if self.root.bucket else ""
        if self.socket is None:
            return self.url + below
        return f"unix:{self.socket}" + (f":{below}" if below else "")


@dataclass(frozen=True, slots=True)
class MountSettings:
    """Everything that a mount's user can choose. Times are seconds, sizes bytes."""

    source: Source
    mountpoint: Path
    cache_dir: Path
    read_only: bool = False
    allow_other: bool = False
    default_permissions: bool = True
    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    umask: int = 0o022
    names: Literal["escape", "strict"] = "escape"
    cache_size: int = 256 << 20
    disk_cache: int = 0  # 0: content is cached in memory alone
    timeout: float = 30.0
    attr_timeout: float = 1.0
    entry_timeout: float = 1.0
    xattr: bool = False
    writeback: bool = False
    exclusive: bool = False
    conflict: Literal["last", "fail"] = "last"
    low_latency: Literal["auto", "on", "off"] = "auto"
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    log_level: str = "info"
    kernel_flags: tuple[str, ...] = ()

    @property
    def conflict_fail(self) -> bool:
        return self.conflict == "fail"

    @property
    def acl(self) -> bool:
        """Whether the kernel is asked to enforce access control lists. Only root can ask, and only
        where the kernel checks permissions at all.
        """
        return self.xattr and self.default_permissions and os.geteuid() == 0

    def fuse_options(self) -> tuple[str, ...]:
        """What libfuse and the kernel are told."""
        source = str(self.source).replace("\\", "\\\\").replace(",", "\\,")
        given = {
            "allow_other": self.allow_other,
            "default_permissions": self.default_permissions,
            "ro": self.read_only,
        }
        flags = [name for name, on in given.items() if on]
        return (f"fsname={source}", "subtype=filesfs", *flags, *self.kernel_flags)

    def backend_settings(self) -> BackendSettings:
        """The part that the backend needs."""
        return BackendSettings(
            base_url=self.source.url,
            unix_socket=self.source.socket,
            token=self.token,
            timeout=self.timeout,
            ca_file=self.ca_file,
            client_cert=self.cert_file,
            client_key=self.key_file,
        )


def load(
    source: str,
    mountpoint: Path,
    given: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> MountSettings:
    """Settings from `-o` texts, then FILESFS_OPTIONS, then the TOML file. Raises UsageError."""
    variables = os.environ if environment is None else environment
    values = _from_file(_config_file(variables))
    values.update(options.parse([variables.get(OPTIONS_VARIABLE, "")]))
    values.update(options.parse(given))
    options.check(values)
    parsed, folder = Source.parse(source), Path(os.path.abspath(mountpoint))
    token = _token(values.pop("token_file", None), variables)
    flags = tuple(sorted(name for name in values if name in options.KERNEL_FLAGS))
    fields = {
        name: Path(str(value)) if name.endswith(("_file", "_dir")) else value
        for name, value in values.items()
        if name not in options.KERNEL_FLAGS
    }
    read_only = bool(fields.pop("ro", False))
    fields.setdefault("cache_dir", default_cache_dir(parsed, folder, variables))
    # `options` has checked each value's type against its name.
    return MountSettings(
        source=parsed,
        mountpoint=folder,
        read_only=read_only,
        token=token,
        kernel_flags=flags,
        **cast("dict[str, Any]", fields),
    )


def default_cache_dir(source: Source, mountpoint: Path, variables: Mapping[str, str]) -> Path:
    """One folder for each pair of source and mount point: a folder has one daemon."""
    name = hashlib.sha256(f"{source}\n{mountpoint}".encode()).hexdigest()[:16]
    return base_cache_dir(variables) / name


def base_cache_dir(variables: Mapping[str, str]) -> Path:
    """Where the mounts of this user keep what is not yet sent."""
    if systemd := variables.get("CACHE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    if os.getuid() == 0:
        return Path("/var/cache/filesfs")
    home = variables.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "filesfs"


def _root(text: str, path: str) -> Location:
    segments = [segment for segment in path.split("/") if segment]
    if not segments:
        return Location("")
    bucket, *below = segments
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            f"{text!r}: the bucket {bucket!r} has other characters than A-Z a-z 0-9 _ -,"
            " or more than 255; write it as the API lists it"
        )
    wrong = [s for s in below if not _SEGMENT.fullmatch(s) or s in (".", "..")]
    if wrong:
        raise UsageError(
            f"{text!r}: {wrong[0]!r} has other characters than A-Z a-z 0-9 _ . -;"
            " write it as the API lists it"
        )
    return Location(bucket, "/".join(below))


def _guess(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?(/.*)?", text):
        return f" (did you mean http://{text}?)"
    return f" (did you mean unix:{text}?)" if text.startswith("/") else ""


def _config_file(variables: Mapping[str, str]) -> Path | None:
    """The file that the environment names, else the user's own, else the machine's; else None."""
    if named := variables.get(CONFIG_VARIABLE):
        return Path(named)
    home = variables.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    usual = (Path(home) / "filesfs/config.toml", Path("/etc/filesfs/mount.toml"))
    return next((path for path in usual if path.exists()), None)


def _from_file(path: Path | None) -> dict[str, options.Value]:
    if path is None:
        return {}
    values: dict[str, options.Value] = {}
    for name, value in _toml(path).items():
        try:
            values.update(_from_toml(name, value))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    return values


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the settings file {path} is not TOML: {error}") from None


def _from_toml(name: str, value: object) -> dict[str, options.Value]:
    """The same names and values as in -o; a flag is true or false."""
    if isinstance(value, bool):
        on = options.read(name, None)
        return {key: bool(state) is value for key, state in on.items()}
    if isinstance(value, str | int | float):
        return options.read(name, str(value))
    raise UsageError(f"the option {name} has a value that is neither text, number nor true/false")


def _token(file: object, variables: Mapping[str, str]) -> str | None:
    """The bearer token: -o token_file, else FILESFS_TOKEN. It is never an argument."""
    if file is None:
        return variables.get(TOKEN_VARIABLE) or None
    path = Path(str(file))
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"cannot read token_file={path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"token_file={path} is no token: it is not ASCII") from None
    if mode & stat.S_IROTH:
        raise UsageError(f"token_file={path} can be read by everybody: chmod 600 {path}")
    if not re.fullmatch(r"[!-~]+", text):
        raise UsageError(f"token_file={path} must hold the token, alone, on one line")
    return text

"""The options of `-o`: which there are, and their values read from text. Pure, a leaf.

It must not know what an option does, read files or look at the machine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from filesfs.errors import UsageError

Value = str | int | float | bool
Parser = Callable[[str], Value]


def size(text: str) -> int:
    """Bytes: digits and perhaps K, M, G or T, powers of 1024 ("256M"). Raises ValueError."""
    match = re.fullmatch(r"([0-9]+)([kKmMgGtT]?)(?:i?[bB])?", text)
    if not match:
        raise ValueError("a size is digits and perhaps K, M, G or T, as in 256M")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]


def seconds(text: str) -> float:
    """Seconds: a number and perhaps ms, s, m or h ("1.5", "500ms", "2m"). Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?", text)
    if not match:
        raise ValueError("a time is a number of seconds, or one with ms, s, m or h, as in 500ms")
    return float(match[1]) * {"ms": 0.001, None: 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def octal(text: str) -> int:
    """A umask: octal digits, 0 to 0777. Raises ValueError."""
    if not re.fullmatch(r"0?[0-7]{1,3}", text):
        raise ValueError("a umask is one to three octal digits, as in 022")
    return int(text, 8)


def number(text: str) -> int:
    """A user or group id. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > 0xFFFFFFFE:
        raise ValueError("an id is a number from 0 to 4294967294; `id -u NAME` tells it")
    return int(text)


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("the path must be absolute, from / on")
    return text


def _one_of(*choices: str) -> Parser:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"choose {' or '.join(choices)}")
        return text

    return parse


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `parse` None means a flag, which has no value."""

    parse: Parser | None
    placeholder: str
    help: str


def _flag(text: str) -> Option:
    return Option(None, "", text)


OPTIONS: Mapping[str, Option] = {
    "ro": _flag("read-only"),
    "rw": _flag("for reading and writing (default)"),
    "allow_other": _flag("other users may use the mount too"),
    "default_permissions": _flag("the kernel checks modes and owners (default)"),
    "no_default_permissions": _flag("nobody checks modes and owners"),
    "uid": Option(number, "N", "owner of what has none on the server (default: who mounts)"),
    "gid": Option(number, "N", "group of what has none on the server (default: who mounts)"),
    "umask": Option(octal, "OCTAL", "permissions taken off where none are set (default 022)"),
    "names": Option(
        _one_of("escape", "strict"),
        "escape|strict",
        "names with other characters than the API's: escape them (default), or EINVAL",
    ),
    "cache_dir": Option(_path, "DIR", "unsent data, the journal and cached blocks"),
    "cache_size": Option(size, "SIZE", "cached content in memory (default 256M)"),
    "disk_cache": Option(size, "SIZE", "cached content in cache_dir too (default 0: none)"),
    "timeout": Option(seconds, "TIME", "how long a call tries to reach the server (default 30)"),
    "attr_timeout": Option(seconds, "TIME", "attributes kept without the change feed (default 1)"),
    "entry_timeout": Option(seconds, "TIME", "names kept without the change feed (default 1)"),
    "xattr": _flag("extended attributes and, mounted by root, ACLs; makes small writes slower"),
    "writeback": _flag(
        "close() and fsync() return once the data is in cache_dir; it is sent in the background"
    ),
    "exclusive": _flag(
        "the kernel gathers small writes; what others change gets a new inode number"
    ),
    "low_latency": Option(
        _one_of("auto", "on", "off"),
        "auto|on|off",
        "processors stay awake while requests follow each other (default auto: in small "
        "virtual machines)",
    ),
    "conflict": Option(
        _one_of("last", "fail"),
        "last|fail",
        "a file that another client changed meanwhile: the last close wins (default), or fails",
    ),
    "token_file": Option(_path, "FILE", "file that holds the bearer token, mode 0600"),
    "ca_file": Option(_path, "FILE", "certificate authorities to trust, PEM"),
    "cert_file": Option(_path, "FILE", "client certificate, PEM; needs key_file"),
    "key_file": Option(_path, "FILE", "key of the client certificate, PEM"),
    "log_level": Option(
        _one_of("debug", "info", "warning", "error"), "LEVEL", "what is logged (default info)"
    ),
}

# The kernel's own flags, handed on to it.
KERNEL_FLAGS = frozenset(
    {"dev", "nodev", "suid", "nosuid", "exec", "noexec", "sync", "async", "dirsync"}
    | {"atime", "noatime", "nodiratime"}
)
# What mount(8) and fstab(5) need for themselves, and pass on all the same.
_IGNORED = frozenset(
    {"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner"}
    | {"group", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime"}
    | {"lazytime", "nolazytime", "silent", "loud"}
)
_NEEDS_ITS_PAIR = {"cert_file": "key_file", "key_file": "cert_file"}


def parse(groups: Iterable[str]) -> dict[str, Value]:
    """Options from the texts of each `-o`; a later one wins. Raises UsageError.

    "ro"/"rw" and "default_permissions"/"no_default_permissions" each become one key.
    """
    values: dict[str, Value] = {}
    for group in groups:
        for item in filter(None, group.split(",")):
            name, equals, text = item.partition("=")
            values.update(read(name, text if equals else None))
    return values


def read(name: str, text: str | None) -> dict[str, Value]:
    """One option; empty for those that are not ours to act on. Raises UsageError."""
    if name in _IGNORED or name.startswith(("x-", "X-", "comment")):
        return {}
    if name in KERNEL_FLAGS and text is None:
        return {name: True}
    option = OPTIONS.get(name)
    if option is None:
        raise UsageError(_unknown(name))
    if option.parse is None:
        return _read_flag(name, text)
    if not text:
        raise UsageError(f"the option {name} needs a value: {name}={option.placeholder}")
    try:
        return {name: option.parse(text)}
    except ValueError as error:
        raise UsageError(f"the option {name}={text} is wrong: {error}") from None


def check(values: Mapping[str, Value]) -> None:
    """Options that need another one. Raises UsageError."""
    for name, pair in _NEEDS_ITS_PAIR.items():
        if values.get(name) and not values.get(pair):
            raise UsageError(f"the option {name} needs {pair} too")


def _read_flag(name: str, text: str | None) -> dict[str, Value]:
    if text is not None:
        raise UsageError(f"the option {name} takes no value, and {name}={text} gives it one")
    if name in ("ro", "rw"):
        return {"ro": name == "ro"}
    if name == "no_default_permissions":
        return {"default_permissions": False}
    return {name: True}


def _unknown(name: str) -> str:
    if name == "remount":
        return "remount is not supported: filesfs umount, then mount with the new options"
    near = difflib.get_close_matches(name, OPTIONS, 1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown option {name!r}{guess}; there are: {', '.join(known())}"


def known() -> list[str]:
    """Every option as it is written, in the order of the table."""
    ours = [
        f"{name}={option.placeholder}" if option.parse else name for name, option in OPTIONS.items()
    ]
    return ours + sorted(KERNEL_FLAGS)

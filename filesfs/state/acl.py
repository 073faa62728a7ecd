"""Access control lists in the form that extended attributes have them: what chmod and creation make
of them. Pure; Linux's own rules (acl(5)), which a FUSE file system has to keep itself.

It must not decide who may do what: the kernel does, by the lists that it reads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"
NAMES = frozenset({ACCESS, DEFAULT})

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, user or group
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_Entries = list[tuple[int, int, int]]


def _parse(value: bytes) -> _Entries:
    """ValueError when it is no list: another client of the server may have stored anything."""
    if len(value) < _HEADER.size or _HEADER.unpack_from(value)[0] != _VERSION:
        raise ValueError("not an access control list of version 2")
    try:
        entries = list(_ENTRY.iter_unpack(value[_HEADER.size :]))
    except struct.error as error:
        raise ValueError("an access control list ends within an entry") from error
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= {tag for tag, _, _ in entries}:
        raise ValueError("an access control list lacks owner, group or others")
    return entries


def _packed(entries: _Entries) -> bytes:
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def _shifts(entries: _Entries) -> dict[int, int]:
    """Which entries are the mode's bits, and where. The mask, if there is one, is the group's."""
    masked = any(tag == _MASK for tag, _, _ in entries)
    return {_USER_OBJ: 6, _MASK if masked else _GROUP_OBJ: 3, _OTHER: 0}


def _is_a_mode(entries: _Entries) -> bool:
    """Whether nine bits say the same."""
    return all(tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for tag, _, _ in entries)


def applied(value: bytes, mode: int) -> tuple[int, bytes | None]:
    """An access list that is set on an entry with `mode`: the new mode, and what there is to store
    beside it (None: the mode says it all). ValueError.
    """
    entries = _parse(value)
    shifts = _shifts(entries)
    for tag, permissions, _ in entries:
        if tag in shifts:
            mode = mode & ~(0o7 << shifts[tag]) | (permissions & 0o7) << shifts[tag]
    return mode, None if _is_a_mode(entries) else value


def after_chmod(value: bytes, mode: int) -> bytes:
    """The access list of an entry that gets `mode`. ValueError."""
    entries = _parse(value)
    shifts = _shifts(entries)
    return _packed(
        [
            (tag, mode >> shifts[tag] & 0o7 if tag in shifts else permissions, who)
            for tag, permissions, who in entries
        ]
    )


def inherited(default: bytes, mode: int) -> tuple[int, bytes | None]:
    """What is created with `mode` below a directory with this default list: its mode (the umask has
    no say), and its access list, None where the mode says it all. ValueError.
    """
    entries = _parse(default)
    shifts = _shifts(entries)
    born: _Entries = []
    for tag, permissions, who in entries:
        if tag in shifts:
            permissions &= mode >> shifts[tag] & 0o7
            mode = mode & ~(0o7 << shifts[tag]) | permissions << shifts[tag]
        born.append((tag, permissions, who))
    return mode, None if _is_a_mode(entries) else _packed(born)


def shown(xattrs: Mapping[str, bytes], *, enforced: bool) -> dict[str, bytes]:
    """Without the lists where nobody enforces them: they would lie."""
    return {name: value for name, value in xattrs.items() if enforced or name not in NAMES}

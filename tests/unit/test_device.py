"""mount(2)'s flags from options, and a mount that the kernel refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from filesfs.fuse.device import flags_of, premount

RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, POSIXACL = 1, 2, 4, 8, 1024, 1 << 16
USUAL = NOSUID | NODEV


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ((), USUAL),
        (("fsname=x", "default_permissions", "rw"), USUAL),
        (("ro", "noexec"), USUAL | RDONLY | NOEXEC),
        (("suid", "dev", "noatime"), NOATIME),
        (("noatime", "atime"), USUAL),
    ],
)
def test_flags(options: tuple[str, ...], flags: int) -> None:
    assert flags_of(options, acl=False) == flags
    assert flags_of(options, acl=True) == flags | POSIXACL


def test_where_the_kernel_refuses_libfuse_is_asked(tmp_path: Path) -> None:
    assert premount(tmp_path / "missing", "source", (), acl=False) is None

"""link, rename, unlink, rmdir and symlink with files of each kind, beside tmpfs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest

from tests.posix.beside import Twins
from tests.posix.calls import EXCHANGE, NOREPLACE, link, renameat2
from tests.posix.kinds import KINDS, NO_DIRECTORIES, make, remove
from tests.posix.users import NOBODY, SOMEBODY

each_kind = pytest.mark.parametrize("kind", KINDS)
each_other_kind = pytest.mark.parametrize("kind", NO_DIRECTORIES)


@each_other_kind
def test_links_are_one_file(twins: Twins, kind: str) -> None:
    """Mode, owner, count and ctime are the file's, whichever name they came by."""
    twins("ok", make, kind, "one")
    twins("ok", link, "one", "two")
    twins("ok", link, "two", "three")
    if kind != "symlink":
        twins("ok", os.chmod, "two", 0o201)
    twins("ok", os.lchown, "two", NOBODY, SOMEBODY)
    twins("ok", os.unlink, "one")
    twins("ENOENT", os.lstat, "one")
    twins("ok", link, "three", "one")
    for name in ("three", "two", "one"):
        twins("ok", os.unlink, name)
        twins("ENOENT", os.unlink, name)
    twins("ENOENT", link, "one", "two")


@each_kind
def test_a_refused_call_changes_nothing(twins: Twins, kind: str) -> None:
    """Not even ctime; the user owns what is in a directory that is not his."""
    twins("ok", make, kind, "one", NOBODY)
    for uid in (NOBODY, SOMEBODY):
        twins("EACCES", os.rename, "one", "two", who=uid)
        twins("EACCES", os.symlink, "one", "two", who=uid)
        twins("EACCES", os.rmdir if kind == "directory" else os.unlink, "one", who=uid)
        twins("EACCES", make, kind, "two", who=uid)
    twins("EACCES", link, "one", "two", who=NOBODY)
    twins("EPERM" if kind == "directory" else "ok", link, "one", "two")


@each_kind
def test_rename_keeps_the_file(twins: Twins, kind: str) -> None:
    twins("ok", make, kind, "one")
    twins("ok", os.rename, "one", "two")
    twins("ENOENT", os.lstat, "one")
    twins("ok", os.mkdir, "d")
    twins("ok", os.rename, "two", "d/one")
    twins("ok", os.rename, "d/one", "one")
    twins("ok", os.rename, "one", "one")
    if kind != "directory":
        twins("ok", link, "one", "two")
        twins("ok", os.rename, "two", "three")
        twins("ok", os.rename, "one", "three")  # one file: nothing happens
    twins("ok", remove, "one")


@pytest.mark.parametrize(
    ("kind", "other"),
    [pair for pair in itertools.product(NO_DIRECTORIES, NO_DIRECTORIES) if "file" in pair]
    + [(kind, kind) for kind in NO_DIRECTORIES[1:]],
)
def test_rename_over_a_file_with_another_name(twins: Twins, kind: str, other: str) -> None:
    """The one that is replaced loses a link, which its ctime tells."""
    twins.only("ok", make, kind, "new")
    twins.only("ok", make, other, "old")
    twins.only("ok", link, "old", "kept")
    twins("ok", os.rename, "new", "old")
    twins("EEXIST", renameat2, "old", "kept", NOREPLACE)
    twins("ok", renameat2, "old", "kept", EXCHANGE)
    twins("ok", os.rename, "old", "kept")


@each_other_kind
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_files_and_directories_do_not_replace_each_other(twins: Twins, kind: str, uid: int) -> None:
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, kind, "f", uid)
    twins("ok", os.mkdir, "d", who=uid)
    twins("EISDIR", os.rename, "f", "d", who=uid)
    twins("ENOTDIR", os.rename, "d", "f", who=uid)
    twins("ENOTDIR", os.rmdir, "f", who=uid)
    twins("EISDIR", os.unlink, "d", who=uid)
    twins("ok", renameat2, "d", "f", EXCHANGE, who=uid)
    twins("ok", os.rmdir, "f", who=uid)
    twins("ok", os.unlink, "d", who=uid)


@each_kind
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_what_exists_is_not_made_again(twins: Twins, kind: str, uid: int) -> None:
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, kind, "there", uid)
    twins("ok", make, "file", "f", uid)
    twins("EEXIST", link, "f", "there", who=uid)
    twins("EEXIST", os.symlink, "target", "there", who=uid)
    twins("EEXIST", renameat2, "f", "there", NOREPLACE, who=uid)
    for new in KINDS:
        answer = "EADDRINUSE" if new == "socket" else "EEXIST"
        twins.briefly(answer, make, new, "there", names=("there", "f"), who=uid)


@each_kind
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_a_directory_with_something_in_it_stays(twins: Twins, kind: str, uid: int) -> None:
    twins("ok", os.chmod, ".", 0o777)
    for name in ("full", "empty"):
        twins("ok", os.mkdir, name, who=uid)
    twins("ok", make, kind, "full/x", uid)
    twins("ENOTEMPTY", os.rmdir, "full", who=uid)
    twins("ENOTEMPTY", os.rename, "empty", "full", who=uid)
    twins("ENOTEMPTY", os.rename, "full/x", "full", who=uid)
    twins("ok", os.rename, "full", "empty", who=uid)
    twins("ok", remove, "empty/x", who=uid)
    twins("ok", os.rmdir, "empty", who=uid)
    twins("ENOENT", os.rmdir, "empty", who=uid)


@each_other_kind
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_nothing_is_below_a_file(twins: Twins, kind: str, uid: int) -> None:
    """A link leads to nowhere here."""
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, kind, "f", uid)
    twins("ok", make, "file", "g", uid)
    answer = "ENOENT" if kind == "symlink" else "ENOTDIR"
    calls: list[tuple[Callable[..., object], tuple[str, ...]]] = [
        (call, pair)
        for call in (os.rename, link)
        for pair in (("f/x", "new"), ("g", "f/x"), ("f/x", "f/y"))
    ]
    calls += [(os.unlink, ("f/x",)), (os.rmdir, ("f/x",)), (os.symlink, ("target", "f/x"))]
    for call, arguments in calls:
        twins.briefly(answer, call, *arguments, names=("f", "g", "new"), who=uid)
    twins("ENOTDIR", os.unlink, "f/", who=uid)


@each_kind
def test_what_goes_stamps_its_directory_alone(twins: Twins, kind: str) -> None:
    twins("ok", os.mkdir, "d")
    twins("ok", make, kind, "d/x")
    twins("ok", remove, "d/x")
    twins("ok", os.rmdir, "d")


@each_other_kind
def test_an_unlinked_open_file_works_on(twins: Twins, kind: str) -> None:
    def use() -> object:
        descriptor = os.open("f", os.O_PATH | os.O_NOFOLLOW if kind != "file" else os.O_RDWR)
        try:
            os.unlink("f")
            gone = os.fstat(descriptor).st_nlink
            if kind != "file":
                return gone
            os.pwrite(descriptor, b"written after", 0)
            return gone, os.pread(descriptor, 100, 0), os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    twins("ok", make, kind, "f")
    twins("ok", use)
    twins("ok", make, kind, "f")


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_a_link_is_not_what_it_leads_to(twins: Twins, uid: int) -> None:
    twins("ok", os.chmod, ".", 0o777)
    twins("ok", make, "file", "f", uid)
    twins("ok", os.symlink, "f", "link", who=uid)
    twins("ok", lambda: os.stat("link").st_mode, who=uid)
    twins("ok", os.rename, "link", "moved", who=uid)
    twins("ok", link, "moved", "second", who=uid)
    twins("ok", os.unlink, "f", who=uid)
    twins("ENOENT", os.stat, "moved", who=uid)
    twins("ok", os.unlink, "second", who=uid)

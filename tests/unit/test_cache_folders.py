"""Cache folders of mounts that are long gone: what goes, and what stays whatever its age."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from filesfs.commands.cache_folders import UNUSED_SECONDS, remove_unused
from filesfs.domain import AttributeChange, Entry, Kind, Location
from filesfs.write.journal import Journal, JournalId

_NAMES = [f"{number:016x}" for number in range(16)]


def used(folder: Path) -> Journal:
    """A folder as a mount has it."""
    journal = Journal.open(folder, "server")
    (folder / "blocks").mkdir(exist_ok=True)
    (folder / "blocks" / "block").write_bytes(b"cached")
    (folder / "filesfs.log").write_text("log")
    return journal


def changed(journal: Journal) -> JournalId:
    """Something that the server does not have."""
    return journal.note_attributes(Location("b", "k"), AttributeChange(mode=0o600), JournalId(0))


def make_old(folder: Path, seconds: float = UNUSED_SECONDS + 60) -> None:
    then = time.time() - seconds
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def test_a_folder_of_which_all_is_sent_goes_after_its_time(tmp_path: Path) -> None:
    old, young, own = (tmp_path / name for name in _NAMES[:3])
    for folder in (old, young, own):
        journal = used(folder)
        journal.forget(changed(journal))
        journal.stored(changed(journal), Entry(Location("b", "k"), Kind.FILE, 0, "text/plain", 0))
        journal.close()
    make_old(old)
    make_old(young, UNUSED_SECONDS - 3600)
    make_old(own)
    assert remove_unused(tmp_path, own) == [old]
    assert sorted(path.name for path in tmp_path.iterdir()) == _NAMES[1:3]


def _pending(folder: Path) -> None:
    journal = used(folder)
    changed(journal)
    journal.close()


def _spooled(folder: Path) -> None:
    used(folder).close()
    (folder / "spool" / "bytes").write_bytes(b"of a file")


def _torn(folder: Path) -> None:
    used(folder).close()
    with (folder / "journal.log").open("ab") as log:
        log.write(b"half a record")


def _recovered(folder: Path) -> None:
    used(folder).close()
    (folder / "recovered").mkdir()


def _newer(folder: Path) -> None:
    _pending(folder)
    data = (folder / "journal.log").read_bytes()
    (folder / "journal.log").write_bytes(data.replace(b'"format":', b'"fromat":'))


def _not_a_mounts(folder: Path) -> None:
    folder.mkdir()
    (folder / "spool").mkdir()


@pytest.mark.parametrize("prepare", [_pending, _spooled, _torn, _recovered, _newer, _not_a_mounts])
def test_what_may_hold_unsent_data_stays(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    folder = tmp_path / _NAMES[0]
    prepare(folder)
    make_old(folder)
    before = sorted(tmp_path.rglob("*"))
    assert remove_unused(tmp_path, tmp_path / "own") == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_and_what_is_no_folder_of_ours_stay(tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    base.mkdir()
    journal = used(base / _NAMES[0])
    used(elsewhere).close()
    used(base / "named-by-hand").close()
    (base / _NAMES[1]).symlink_to(elsewhere)
    (base / _NAMES[2]).write_text("a file")
    for path in (base / _NAMES[0], elsewhere, base / "named-by-hand"):
        make_old(path)
    assert remove_unused(base, base / "own") == []
    assert len(list(base.iterdir())) == 4
    assert (elsewhere / "journal.log").exists()
    journal.close()
    make_old(base / _NAMES[0])
    assert remove_unused(base, base / "own") == [base / _NAMES[0]]
    assert remove_unused(tmp_path / "absent", base) == []


def test_what_an_earlier_mount_did_not_finish_removing_goes(tmp_path: Path) -> None:
    rest = tmp_path / f"{_NAMES[0]}.removed"
    (rest / "blocks").mkdir(parents=True)
    other = tmp_path / "mine.removed"
    other.mkdir()
    remove_unused(tmp_path, tmp_path / "own")
    assert (rest.exists(), other.exists()) == (False, True)

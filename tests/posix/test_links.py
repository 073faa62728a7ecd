"""Names: hard links, link counts, symbolic links, rename in all its forms."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.posix.calls import EXCHANGE, NOREPLACE, renameat2


def _nlink(path: Path) -> int:
    return path.lstat().st_nlink


# -- link counts ----------------------------------------------------------------------------------
def test_link_count_of_files(place: Path) -> None:
    one, two, three = (place / name for name in ("one", "two", "three"))
    one.write_text("content")
    os.link(one, two)
    os.link(two, three)
    assert [_nlink(path) for path in (one, two, three)] == [3, 3, 3]
    assert len({path.stat().st_ino for path in (one, two, three)}) == 1
    one.unlink()
    assert [_nlink(path) for path in (two, three)] == [2, 2]
    two.rename(place / "moved")
    assert _nlink(place / "moved") == 2
    three.unlink()
    assert _nlink(place / "moved") == 1
    assert (place / "moved").read_text() == "content"


def test_link_count_of_directories(place: Path) -> None:
    folder = place / "d"
    folder.mkdir()
    assert _nlink(folder) == 2
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    (folder / "f").touch()
    assert _nlink(folder) == 4
    (folder / "a").rename(place / "a")
    assert _nlink(folder) == 3
    (folder / "b").rmdir()
    assert _nlink(folder) == 2
    (place / "a").rename(folder / "a")
    (folder / "c").mkdir()
    (folder / "a").rename(folder / "c")  # over an empty one
    assert _nlink(folder) == 3


def test_link_count_of_the_open_unlinked_file(place: Path) -> None:
    path = place / "f"
    path.write_text("content")
    with path.open() as stream:
        path.unlink()
        assert os.fstat(stream.fileno()).st_nlink == 0


def test_a_write_through_one_name_shows_under_the_other(place: Path) -> None:
    (place / "one").write_text("first")
    os.link(place / "one", place / "two")
    (place / "two").write_text("second")
    assert (place / "one").read_text() == "second"
    assert (place / "one").stat().st_size == 6
    assert _nlink(place / "one") == 2


def test_link_of_a_file_that_is_being_written(place: Path) -> None:
    with (place / "one").open("w") as stream:
        stream.write("begun ")
        stream.flush()
        os.link(place / "one", place / "two")
        stream.write("done")
    assert (place / "two").read_text() == "begun done"


def test_link_of_every_kind(place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "symlink").symlink_to("target")
    for name in ("fifo", "symlink"):
        os.link(place / name, place / f"{name}-2", follow_symlinks=False)
        assert _nlink(place / name) == 2
        assert stat.S_IFMT((place / f"{name}-2").lstat().st_mode) == stat.S_IFMT(
            (place / name).lstat().st_mode
        )


# -- symlinks -------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["x", "a b/ä", "/absolute", "..", "t" * 4095, "dangling/../x"])
def test_symlink_keeps_its_target(place: Path, target: str) -> None:
    link = place / "link"
    link.symlink_to(target)
    os.rename(link, place / "moved")
    assert os.readlink(place / "moved") == target
    assert (place / "moved").lstat().st_size == len(os.fsencode(target))


def test_symlinks_are_followed(place: Path) -> None:
    (place / "d").mkdir()
    (place / "to-d").symlink_to("d")
    (place / "to-d" / "f").write_text("content")
    (place / "to-f").symlink_to("to-d/f")
    assert (place / "to-f").read_text() == "content"
    (place / "to-f").write_text("other")
    assert (place / "d/f").read_text() == "other"
    assert (place / "to-f").is_symlink()


def test_creating_through_a_dangling_link(place: Path) -> None:
    (place / "link").symlink_to("made")
    (place / "link").write_text("content")
    assert (place / "made").read_text() == "content"


def test_40_links_in_a_row(place: Path) -> None:
    (place / "l0").write_text("content")
    for index in range(1, 42):
        (place / f"l{index}").symlink_to(f"l{index - 1}")
    assert (place / "l40").read_text() == "content"
    with pytest.raises(OSError, match=r".*") as error:
        (place / "l41").read_text()
    assert error.value.errno == errno.ELOOP


# -- rename ---------------------------------------------------------------------------------------
def test_rename_over_a_file(place: Path) -> None:
    (place / "one").write_text("1")
    (place / "two").write_text("22")
    inode = (place / "one").stat().st_ino
    (place / "one").rename(place / "two")
    assert (place / "two").read_text() == "1"
    assert (place / "two").stat().st_ino == inode
    assert os.listdir(place) == ["two"]


def test_rename_between_two_names_of_one_file_does_nothing(place: Path) -> None:
    (place / "one").touch()
    os.link(place / "one", place / "two")
    (place / "one").rename(place / "two")
    assert sorted(os.listdir(place)) == ["one", "two"]


def test_rename_of_a_tree(place: Path) -> None:
    (place / "a/b/c").mkdir(parents=True)
    (place / "a/b/c/f").write_text("content")
    (place / "a/b/g").symlink_to("c/f")
    (place / "a").rename(place / "z")
    assert (place / "z/b/g").read_text() == "content"
    assert not (place / "a").exists()
    (place / "z/b").rename(place / "b")
    assert (place / "b/c/f").read_text() == "content"
    assert os.listdir(place / "z") == []


def test_rename_of_a_directory_over_an_empty_one(place: Path) -> None:
    (place / "a").mkdir()
    (place / "a/f").write_text("content")
    (place / "b").mkdir()
    (place / "a").rename(place / "b")
    assert (place / "b/f").read_text() == "content"
    assert os.listdir(place) == ["b"]


def test_a_name_is_free_after_rename(place: Path) -> None:
    (place / "a").mkdir()
    (place / "a/f").write_text("1")
    (place / "a").rename(place / "b")
    (place / "a").mkdir()
    assert os.listdir(place / "a") == []
    (place / "a/f").write_text("2")
    assert (place / "b/f").read_text() == "1"


def test_rename_of_an_open_file(place: Path) -> None:
    (place / "one").write_text("first")
    with (place / "one").open("r+") as stream:
        (place / "one").rename(place / "two")
        assert stream.read() == "first"
        stream.write(" second")
    assert (place / "two").read_text() == "first second"
    assert os.listdir(place) == ["two"]


def test_rename_of_a_new_file_before_its_close(place: Path) -> None:
    with (place / "new").open("w") as stream:
        stream.write("content")
        (place / "new").rename(place / "old")
        stream.write(" and more")
    assert os.listdir(place) == ["old"]
    assert (place / "old").read_text() == "content and more"


def test_rename_of_a_directory_with_files_being_written(place: Path) -> None:
    (place / "a").mkdir()
    with (place / "a/new").open("w") as new:
        new.write("before ")
        new.flush()
        (place / "a").rename(place / "b")
        new.write("after")
    assert (place / "b/new").read_text() == "before after"
    assert os.listdir(place) == ["b"]


def test_rename_over_an_open_file(place: Path) -> None:
    (place / "one").write_text("new")
    (place / "two").write_text("old")
    with (place / "two").open() as stream:
        (place / "one").rename(place / "two")
        assert stream.read() == "old"
        assert os.fstat(stream.fileno()).st_nlink == 0
    assert (place / "two").read_text() == "new"


def test_rename_over_a_file_that_is_being_written(place: Path) -> None:
    (place / "one").write_text("new")
    with (place / "two").open("w") as stream:
        stream.write("goes nowhere")
        stream.flush()
        (place / "one").rename(place / "two")
        stream.write(" at all")
    assert (place / "two").read_text() == "new"


def test_noreplace(place: Path) -> None:
    (place / "one").write_text("1")
    (place / "two").write_text("2")
    with pytest.raises(FileExistsError):
        renameat2(str(place / "one"), str(place / "two"), NOREPLACE)
    renameat2(str(place / "one"), str(place / "three"), NOREPLACE)
    assert sorted(os.listdir(place)) == ["three", "two"]


def test_exchange_of_files(place: Path) -> None:
    (place / "one").write_text("1")
    (place / "two").write_text("22")
    inodes = [(place / name).stat().st_ino for name in ("one", "two")]
    renameat2(str(place / "one"), str(place / "two"), EXCHANGE)
    assert ((place / "one").read_text(), (place / "two").read_text()) == ("22", "1")
    assert [(place / name).stat().st_ino for name in ("two", "one")] == inodes


def test_exchange_of_a_file_and_a_tree(place: Path) -> None:
    (place / "d/sub").mkdir(parents=True)
    (place / "d/sub/f").write_text("deep")
    (place / "e").mkdir()
    (place / "e/f").write_text("file")
    renameat2(str(place / "d"), str(place / "e/f"), EXCHANGE)
    assert (place / "d").read_text() == "file"
    assert (place / "e/f/sub/f").read_text() == "deep"
    assert (_nlink(place), _nlink(place / "e")) == (3, 3)


def test_a_replaced_file_is_always_there(place: Path) -> None:
    """No reader ever sees neither or both halves of a rename."""
    target, stop = place / "target", threading.Event()
    target.write_text("0" * 100)
    seen: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(target.read_text())
            except OSError as error:
                seen.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for index in range(1, 60):
            (place / "temporary").write_text(str(index % 10) * 100)
            (place / "temporary").rename(target)
    finally:
        stop.set()
        reader.join(30)
    assert [text for text in seen if len(text) != 100 or len(set(text)) != 1] == []
    assert len(seen) > 20


def test_an_exchange_is_never_half_done(place: Path) -> None:
    """Both names are always there, and are never one file."""
    for name in ("one", "two"):
        (place / name).write_text(name)
    stop, wrong = threading.Event(), list[object]()

    def look() -> None:
        while not stop.is_set():
            found = sorted(os.listdir(place))
            inodes = {entry.name: entry.inode() for entry in os.scandir(place)}
            if found != ["one", "two"] or len(set(inodes.values())) != 2:
                wrong.append((found, inodes))
            for name in found:
                if (text := (place / name).read_text()) not in ("one", "two"):
                    wrong.append(text)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(40):
            renameat2(str(place / "one"), str(place / "two"), EXCHANGE)
    finally:
        stop.set()
        reader.join(30)
    assert wrong == []


def test_noreplace_has_one_winner(place: Path) -> None:
    """Of several at the same moment."""
    won: list[int] = []
    start = threading.Barrier(6)

    def take(number: int) -> None:
        (place / f"mine-{number}").write_text(str(number))
        start.wait(30)
        with contextlib.suppress(FileExistsError):
            renameat2(str(place / f"mine-{number}"), str(place / "taken"), NOREPLACE)
            won.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 1
    assert (place / "taken").read_text() == str(won[0])
    assert len(os.listdir(place)) == 6

"""Uploads that share a version's file, against plain bytes: whatever they do, each version keeps
its content, and a session that comes back has what was recorded of it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from files_server.blobs.checksums import BLOCK, checksums
from files_server.blobs.layout import Layout, in_order, stored_form
from files_server.blobs.local import LocalBlobs
from files_server.blobs.pieces import DamagedError, Stored, piece
from files_server.blobs.upload import UploadFile

NOISE = random.Random(5).randbytes(8 * BLOCK)


class Disk:
    """Blobs, and what each version has to be."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.blobs = LocalBlobs(folder)
        self.blobs.prepare()
        self.random = random.Random(seed)
        self.versions: dict[str, tuple[Stored, bytes]] = {}
        self.numbers = iter(range(1_000_000))

    def noise(self, most: int) -> bytes:
        length = self.random.choice([1, 4096, self.random.randrange(1, most), BLOCK])
        start = self.random.randrange(len(NOISE) - length)
        return NOISE[start : start + length]

    def publish(self, file: UploadFile, data: bytes) -> None:
        name = f"version{next(self.numbers)}"
        self.blobs.publish(file, name)
        file.close()
        stored = Stored(len(data), file.sums.value(), Layout(stored_form(file.blocks)))
        assert stored.sums == checksums(data)
        self.versions[name] = (stored, data)

    def check(self) -> None:
        for name, (stored, data) in self.versions.items():
            with self.blobs.path(name).open("rb") as file:
                assert piece(file.fileno(), stored, 0, len(data)) == data, name

    def new(self) -> None:
        with self.blobs.path("x").parent.parent.joinpath("new").open("wb"):
            file = self.blobs.open_upload("new")
        data = NOISE[: self.random.randrange(3 * BLOCK, 5 * BLOCK)]
        file.append([data])
        self.publish(file, data)

    def expire(self) -> None:
        name = self.random.choice(list(self.versions))
        self.blobs.remove([name])
        del self.versions[name]


class Session:
    """An upload that begins with a version, and what it has to hold."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.disk, self.base = disk, name
        self.stored, self.old = disk.versions[name]
        self.upload = f"upload{next(disk.numbers)}"
        begin = disk.random.choice([0, 0, len(self.old)])
        blobs = disk.blobs
        file = blobs.borrow(self.upload, name, self.stored, begin, len(self.old))
        self.file = file or blobs.open_upload(self.upload)
        self.data = self.old[:begin] if file else b""
        self.closed = False
        self.record()

    def record(self) -> None:
        """As the catalog does, once it is on the disk."""
        self.file.sync()
        self.recorded = (len(self.data), *self.file.shared)

    def copy(self) -> None:
        left = len(self.old) - len(self.data)
        if left > 0 and self.base in self.disk.versions:
            length = self.disk.random.choice([left, self.disk.random.randrange(left) + 1])
            at = len(self.data)
            self.file.take(self.disk.blobs.path(self.base), self.stored, length)
            self.data += self.old[at : at + length]

    def write(self) -> None:
        data = self.disk.noise(2 * BLOCK)
        self.file.append([data])
        self.data += data

    def take_back(self) -> None:
        mark, data = self.file.mark(), self.data
        self.write()
        self.copy()
        self.file.back(mark)
        self.data = data

    def close(self) -> None:
        """Killed, or there were many. What was not recorded is lost, and others may come in."""
        self.file.close()
        self.data = self.data[: self.recorded[0]]
        self.closed = True

    def open(self) -> None:
        if self.closed:
            self.file = self.disk.blobs.resume_upload(self.upload, *self.recorded)
            self.closed = False


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_uploads(tmp_path: Path, seed: int) -> None:
    disk = Disk(tmp_path, seed)
    disk.new()
    sessions: list[Session] = []
    for _ in range(60):
        if not disk.versions:
            disk.new()
        if len(sessions) < 3 and disk.random.random() < 0.3:
            sessions.append(Session(disk, disk.random.choice(list(disk.versions)[-3:])))
        if len(disk.versions) > 5:
            disk.expire()
        if sessions:
            session = disk.random.choice(sessions)
            session.open()
            acts = [session.copy, session.copy, session.write, session.record, session.take_back]
            disk.random.choice([*acts, session.close])()
            if disk.random.random() < 0.2:
                sessions.remove(session)
                session.open()
                if session.data and disk.random.random() < 0.8:
                    disk.publish(session.file, session.data)
                else:
                    disk.blobs.remove_upload(session.upload, session.file)
        disk.check()
    for session in sessions:
        session.close()
        session.open()
        if session.data:
            disk.publish(session.file, session.data)
    disk.check()


def version(disk: Disk, length: int) -> str:
    file = disk.blobs.open_upload("one")
    file.append([NOISE[:length]])
    disk.publish(file, NOISE[:length])
    return list(disk.versions)[-1]


def changed(disk: Disk, name: str, at: int, data: bytes) -> tuple[str, UploadFile]:
    """A version with these bytes at another place, and its file."""
    stored, old = disk.versions[name]
    file = disk.blobs.borrow("two", name, stored, 0, len(old))
    assert file is not None
    path, behind = disk.blobs.path(name), at + len(data)
    file.take(path, stored, at)
    file.append([data])
    if behind < len(old):
        file.take(path, stored, len(old) - behind)
    disk.publish(file, old[:at] + data + old[behind:])
    return list(disk.versions)[-1], file


def test_a_change_in_the_middle_writes_one_block(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0)
    name = version(disk, 6 * BLOCK + 100)
    second, file = changed(disk, name, 3 * BLOCK + 500, b"changed")
    assert file.blocks == in_order(0, 3) + in_order(7, 1) + in_order(4, 3)
    assert disk.blobs.path(second).stat().st_size == 8 * BLOCK
    assert disk.blobs.path(second).samefile(disk.blobs.path(name))
    disk.check()


def test_many_changes_take_no_more_than_twice_the_length(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0)
    name = version(disk, 6 * BLOCK)
    for number in range(40):
        stored, old = disk.versions[name]
        file = disk.blobs.borrow("two", name, stored, 0, len(old))
        if file is None:  # now a copy is due
            file = disk.blobs.open_upload("two")
        at = disk.random.randrange(len(old) - 4)
        path = disk.blobs.path(name)
        file.take(path, stored, at)
        file.append([b"%04d" % number])
        file.take(path, stored, len(old) - at - 4)
        disk.publish(file, old[:at] + b"%04d" % number + old[at + 4 :])
        disk.blobs.remove([name])
        del disk.versions[name]
        name = list(disk.versions)[-1]
        assert disk.blobs.path(name).stat().st_blocks * 512 <= 14 * BLOCK
    disk.check()


def test_what_was_damaged_is_not_given_new_sums(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0)
    name = version(disk, 6 * BLOCK)
    stored, _ = disk.versions[name]
    path = disk.blobs.path(name)
    with path.open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(b"rotten")
    shared = disk.blobs.borrow("two", name, stored, 0, 6 * BLOCK)
    assert shared is not None
    with pytest.raises(DamagedError):
        shared.take(path, stored, 3 * BLOCK + 500)
    disk.blobs.remove_upload("two", shared)
    own = disk.blobs.open_upload("two")
    with pytest.raises(DamagedError):
        own.take(path, stored, 4 * BLOCK)
    own.close()


def test_a_full_disk_leaves_what_is_there_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path, 0)
    name = version(disk, 6 * BLOCK)
    stored, old = disk.versions[name]
    file = disk.blobs.borrow("two", name, stored, 0, len(old))
    assert file is not None
    path, write = disk.blobs.path(name), os.pwrite
    file.take(path, stored, 2 * BLOCK)
    mark = file.mark()

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > 6 * BLOCK:
            raise OSError(28, "full")
        return write(descriptor, data[:1000], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        file.take(path, stored, 500_000)
    file.back(mark)
    monkeypatch.undo()
    assert path.stat().st_size == 6 * BLOCK
    file.append([b"there"])
    file.take(path, stored, len(old) - 2 * BLOCK - 5)
    disk.publish(file, old[: 2 * BLOCK] + b"there" + old[2 * BLOCK + 5 :])
    disk.check()

"""FIFOs, sockets, device nodes: that they are there, and that the kernel's side of them works."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest


def test_fifo(place: Path) -> None:
    path = place / "fifo"
    os.mkfifo(path, 0o640)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    writer = threading.Thread(target=path.write_text, args=("through",))
    writer.start()
    assert path.read_text() == "through"
    writer.join(10)


def test_socket(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)  # a socket's path has 107 bytes
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("socket")
        assert stat.S_ISSOCK(os.stat("socket").st_mode)
        listener.listen()
        client.connect("socket")
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"through")
            assert accepted.recv(7) == b"through"
    with pytest.raises(OSError, match="in use"), socket.socket(socket.AF_UNIX) as second:
        second.bind("socket")
    os.unlink("socket")


@pytest.mark.parametrize(
    ("type_", "device"),
    [
        (stat.S_IFCHR, (1, 3)),
        (stat.S_IFCHR, (0, 0)),
        (stat.S_IFBLK, (8, 1)),
        (stat.S_IFBLK, (259, 70000)),
        (stat.S_IFCHR, (4095, 1048575)),
    ],
)
def test_device_nodes(place: Path, type_: int, device: tuple[int, int]) -> None:
    path = place / "device"
    os.mknod(path, type_ | 0o640, os.makedev(*device))
    os.rename(path, place / "moved")
    status = (place / "moved").stat()
    assert stat.S_IFMT(status.st_mode) == type_
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == device
    assert status.st_size == 0


def test_mknod_of_a_regular_file(place: Path) -> None:
    os.mknod(place / "f", 0o604)
    assert stat.S_IMODE((place / "f").stat().st_mode) == 0o604
    (place / "f").write_text("content")
    assert (place / "f").read_text() == "content"


def test_special_files_take_changes_of_attributes(place: Path) -> None:
    os.mkfifo(place / "p")
    os.chown(place / "p", 3, 4)
    os.chmod(place / "p", 0o601)
    os.utime(place / "p", ns=(1, 2))
    status = (place / "p").stat()
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (3, 4, 2)
    assert status.st_mode == stat.S_IFIFO | 0o601


def test_types_in_a_listing(place: Path) -> None:
    (place / "file").touch()
    (place / "folder").mkdir()
    (place / "link").symlink_to("file")
    os.mkfifo(place / "fifo")
    with os.scandir(place) as entries:
        kinds = {
            entry.name: (
                entry.is_file(follow_symlinks=False),
                entry.is_dir(follow_symlinks=False),
                entry.is_symlink(),
            )
            for entry in entries
        }
    assert kinds == {
        "file": (True, False, False),
        "folder": (False, True, False),
        "link": (False, False, True),
        "fifo": (False, False, False),
    }

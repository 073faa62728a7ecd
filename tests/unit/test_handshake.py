"""What the kernel and libfuse agree on passes through, with a flag of ours; then libfuse has the
device itself.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from filesfs.fuse.device import premount
from filesfs.fuse.handshake import Handshake

AUTO, EXPLICIT, OTHER = 1 << 12, 1 << 25, 1 << 5


def asked(flags: int) -> bytes:
    return struct.pack("=IIQQIIII5I", 60, 26, 1, 0, 0, 0, 0, 0, 7, 45, 1 << 20, flags, 0)


def answered(flags: int, error: int = 0) -> bytes:
    return struct.pack("=IiQ4I", 32, error, 1, 7, 38, 1 << 20, flags)


class Parties:
    """The kernel, and libfuse on the number that it was given."""

    def __init__(self) -> None:
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handshake = Handshake(device.detach())

    def agree(self, offered: int, wanted: int, error: int = 0) -> int:
        """The flags that the kernel hears of."""
        number = self.handshake.number
        self.kernel.send(asked(offered))
        assert not self.handshake.step()
        assert os.read(number, 1 << 16) == asked(offered)
        os.write(number, answered(wanted, error))
        assert self.handshake.step()
        heard = self.kernel.recv(1 << 16)
        assert len(heard) == len(answered(wanted))
        return int(struct.unpack_from("=I", heard, 28)[0])

    def close(self) -> None:
        self.kernel.close()
        self.handshake.close()
        with suppress(OSError):
            os.close(self.handshake.number)


@pytest.fixture
def parties() -> Iterator[Parties]:
    parties = Parties()
    yield parties
    parties.close()


@pytest.mark.parametrize(
    ("offered", "wanted", "agreed"),
    [
        (AUTO | EXPLICIT | OTHER, AUTO | OTHER, EXPLICIT | OTHER),
        (AUTO | EXPLICIT, AUTO, EXPLICIT),
        (AUTO | OTHER, AUTO | OTHER, AUTO | OTHER),  # a kernel that has it not
    ],
)
def test_flags(parties: Parties, offered: int, wanted: int, agreed: int) -> None:
    assert parties.agree(offered, wanted) == agreed


def test_then_libfuse_has_the_device(parties: Parties) -> None:
    parties.agree(AUTO | EXPLICIT, AUTO)
    parties.kernel.send(b"request")
    assert os.read(parties.handshake.number, 100) == b"request"
    with pytest.raises(BlockingIOError):
        os.read(parties.handshake.number, 100)
    assert not os.get_inheritable(parties.handshake.number)


def test_a_refusal_passes_as_it_is(parties: Parties) -> None:
    assert parties.agree(AUTO | EXPLICIT, AUTO, error=-71) == AUTO


def test_a_handshake_that_nobody_ends_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    Parties().close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unmount_before_it_began_is_for_libfuse_to_hear(tmp_path: Path) -> None:
    mounted = premount(tmp_path, "nothing", (), acl=False)
    if mounted is None:
        pytest.skip("mount(2) is root's")
    number = mounted.handshake.number
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert mounted.handshake.step()
    with pytest.raises(OSError, match="No such device") as refused:
        os.read(number, 1 << 16)
    assert refused.value.errno == errno.ENODEV
    mounted.unmount()
    os.close(number)

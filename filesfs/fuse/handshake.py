"""What the kernel and libfuse agree on, and the one flag of it that pyfuse3 cannot ask for: that
pages go when we say so, and not whenever an mtime moves.

Else all that was written would be read from the server again, since each write moves the mtime.
What an inode holds changes elsewhere only while nobody has it open, and the next open() drops its
pages (Files.open).

The two agree with one request and one answer, before anything else. So libfuse begins on one end of
a socket; what the kernel asks is put into the other one, the answer gets its flags, and the device
takes the socket's place under the number that libfuse reads from. It must not know what is mounted.

Layouts and flags are those of <linux/fuse.h>.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

_AUTO_INVAL_DATA = 1 << 12
_EXPLICIT_INVAL_DATA = 1 << 25

_IN_HEADER, _OUT_HEADER = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
_FLAGS = struct.Struct("=I")
_FLAGS_AT = 12  # in both bodies: behind major, minor, max_readahead
_LARGEST = 1 << 16  # more than any first message; the kernel refuses to write into too little
_SECONDS = 10.0


class Handshake:
    """Between a mounted `device` and libfuse, which is given `number`.

    `step` is called before each wait for a request until it says that it is over: the request goes
    in before the first, and libfuse has answered it before the second.
    """

    def __init__(self, device: int) -> None:
        """Takes the device over. OSError."""
        self._device = device
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.number = theirs.detach()
        self._offered: int | None = None

    def step(self) -> bool:
        """Whether it is over. OSError: the kernel or libfuse does not do its part."""
        try:
            if self._offered is None:
                self._ask()
                return False
            self._answer(self._offered)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        self._hand_over()  # also when it was unmounted by now: libfuse hears it from the device
        return True

    def _ask(self) -> None:
        if not select.select([self._device], [], [], _SECONDS)[0]:
            raise TimeoutError("the kernel does not begin")
        request = os.read(self._device, _LARGEST)
        self._offered = _flags(request, _IN_HEADER.size)
        self._ours.send(request)

    def _answer(self, offered: int) -> None:
        self._ours.settimeout(_SECONDS)
        answer = bytearray(self._ours.recv(_LARGEST))
        _, error, _ = _OUT_HEADER.unpack_from(answer)
        if not error and offered & _EXPLICIT_INVAL_DATA:
            agreed = _flags(answer, _OUT_HEADER.size) & ~_AUTO_INVAL_DATA | _EXPLICIT_INVAL_DATA
            _FLAGS.pack_into(answer, _OUT_HEADER.size + _FLAGS_AT, agreed)
        os.write(self._device, answer)

    def _hand_over(self) -> None:
        os.set_blocking(self._device, False)  # as pyfuse3 has made what it was given
        os.dup2(self._device, self.number, inheritable=False)
        self.close()

    def close(self) -> None:
        """Leaves `number` alone."""
        if self._ours.fileno() >= 0:
            self._ours.close()
            os.close(self._device)


def _flags(message: bytes | bytearray, header: int) -> int:
    """The flags of FUSE_INIT's request or answer."""
    (flags,) = _FLAGS.unpack_from(message, header + _FLAGS_AT)
    return int(flags)

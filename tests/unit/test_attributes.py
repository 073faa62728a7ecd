"""Attributes that the server, or the kernel's interface, would stumble over."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from filesfs.errors import FileSystemError
from filesfs.filesystem.attributes import MIME_XATTR
from tests.unit.filesystem_rig import ROOT_USER, rig

pytestmark = pytest.mark.trio


@pytest.mark.parametrize(
    "value",
    [b"a/b\r\nX: y", "ü/b".encode(), b"a/" + b"b" * 254, b"inode/symlink", b"inode/directory"],
)
async def test_a_type_that_no_close_could_send_is_refused_at_once(
    tmp_path: Path, value: bytes
) -> None:
    async with rig(tmp_path) as mine:
        node, handle = await mine.create(b"new")
        await mine.fs.files.write(handle, 0, b"content")
        with pytest.raises(FileSystemError) as raised:
            await mine.fs.attributes.set_xattr(node, MIME_XATTR, value)
        assert raised.value.code == errno.EINVAL
        await mine.close(handle)
        assert await mine.content(b"new") == b"content"


async def test_a_link_is_bytes_for_the_kernel_however_its_answer_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as mine:
        node = await mine.fs.namespace.symlink(mine.bucket, b"link", b"target", ROOT_USER)
        node.target = None

        async def read(*_: object) -> bytes:
            return bytearray(b"target")  # type: ignore[return-value]  # as from a split answer

        monkeypatch.setattr(mine.backend, "read", read)
        assert type(await mine.fs.attributes.readlink(node)) is bytes

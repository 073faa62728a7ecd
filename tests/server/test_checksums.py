"""Block sums of a growing file, and the crc32c of what came since a block's beginning."""

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from files_server.blobs.checksums import BLOCK, BlockSums, checksums, followed

CONTENT = bytes(range(251)) * (3 * BLOCK // 251 + 1)


@given(st.binary(), st.binary())
def test_a_crc_follows_another(first: bytes, second: bytes) -> None:
    assert followed(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_what_came_since_a_block_began(size: int) -> None:
    data = CONTENT[:size]
    sums = BlockSums()
    for start in range(0, size, 300_007):
        sums.update(data[start : start + 300_007])
    assert sums.value() == checksums(data)
    for start in range(0, size + 1, BLOCK):
        assert sums.since(start) == crc32c(data[start:])


def test_elsewhere_it_is_not_known() -> None:
    sums = BlockSums()
    sums.update(CONTENT[: BLOCK + 5])
    assert sums.since(1) is None
    assert sums.since(2 * BLOCK) is None

"""The block cache: within its budget, by version, and on disk never wrong."""

import errno
import logging
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesfs.domain import Entry, ETag, Kind, Location
from filesfs.read.blocks import BLOCK_BYTES, BlockCache, DiskBlocks, version_of


def test_what_is_put_is_found_under_its_version_only() -> None:
    cache = BlockCache(10_000)
    cache.put("v1", 3, b"content")
    assert cache.get("v1", 3) == b"content"
    assert cache.get("v2", 3) is None
    assert cache.get("v1", 2) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = BlockCache(300)
    for index in range(3):
        cache.put("v", index, bytes(100))
    cache.get("v", 0)
    cache.put("v", 3, bytes(100))
    assert [cache.get("v", index) is not None for index in range(4)] == [True, False, True, True]
    assert cache.used_bytes == 300


def test_a_block_larger_than_the_budget_is_not_kept() -> None:
    cache = BlockCache(10)
    cache.put("v", 0, bytes(11))
    assert cache.used_bytes == 0
    assert cache.get("v", 0) is None


def test_drop_forgets_one_version() -> None:
    cache = BlockCache(1000)
    cache.put("v1", 0, bytes(10))
    cache.put("v1", 7, bytes(10))
    cache.put("v2", 0, bytes(10))
    cache.drop("v1")
    cache.drop("never seen")
    assert cache.used_bytes == 10
    assert cache.get("v1", 7) is None
    assert cache.get("v2", 0) == bytes(10)


def test_a_view_counts_as_all_that_it_keeps_in_memory() -> None:
    cache = BlockCache(1000)
    fetched = bytes(500)
    for index in range(5):
        cache.put_part("v", index, 0, memoryview(fetched)[index * 100 : index * 100 + 100], 100)
    assert cache.used_bytes == 500
    cache.drop("v")
    assert cache.used_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 60)), max_size=25))
def test_parts_merge_into_what_they_are_parts_of(parts: list[tuple[int, int]]) -> None:
    content = random.Random(1).randbytes(100)
    known: set[int] = set()
    cache = BlockCache(10_000)
    for start, length in parts:
        end = min(100, start + length)
        cache.put_part("v", 0, start, memoryview(content[start:end]), 100)
        known |= set(range(start, end))
    for start in range(100):
        found = cache.find("v", 0, start, 100)
        if start in known:
            assert found is not None
            assert found == content[start : start + len(found)]
            assert start + len(found) not in known
        else:
            assert found is None
    assert cache.get("v", 0) == (content if len(known) == 100 else None)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(1, 50)), max_size=60)
)
def test_the_budget_holds_whatever_is_put(puts: list[tuple[str, int, int]]) -> None:
    cache = BlockCache(120)
    for version, index, length in puts:
        cache.put(version, index, bytes(length))
        assert 0 <= cache.used_bytes <= 120
    for version in "ab":
        cache.drop(version)
    assert cache.used_bytes == 0


def test_streams_share_what_may_lie_ahead() -> None:
    cache = BlockCache(100)
    assert cache.share == 50
    cache.join()
    cache.join()
    assert cache.share == 25
    cache.leave()
    assert cache.share == 50


def test_the_version_is_the_etag_or_what_stands_for_it() -> None:
    def entry(key: str, etag: str | None, created_at: int) -> Entry:
        return Entry(
            Location("b", key), Kind.FILE, 5, "", created_at, etag=ETag(etag) if etag else None
        )

    assert version_of(entry("a", '"1"', 1)) == version_of(entry("renamed", '"1"', 2))
    assert version_of(entry("a", '"1"', 1)) != version_of(entry("a", '"2"', 1))
    assert version_of(entry("a", None, 1)) != version_of(entry("a", None, 2))
    assert version_of(entry("a", None, 1)) != version_of(entry("b", None, 1))


# -- on disk ------------------------------------------------------------------------------------


def _on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_blocks_survive_a_restart(tmp_path: Path) -> None:
    DiskBlocks(tmp_path / "c", 10**7).put("v1", 5, b"x" * BLOCK_BYTES)
    again = DiskBlocks(tmp_path / "c", 10**7)
    assert again.get("v1", 5) == b"x" * BLOCK_BYTES
    assert again.get("v2", 5) is None
    assert again.get("v1", 4) is None
    assert again.used_bytes == _on_disk(tmp_path / "c")


def test_the_disk_is_never_over_its_limit(tmp_path: Path) -> None:
    disk = DiskBlocks(tmp_path, 5000)
    for index in range(20):
        disk.put("v", index, bytes(1000))
        assert _on_disk(tmp_path) <= 5000
    assert disk.get("v", 0) is None
    assert disk.get("v", 19) == bytes(1000)
    disk.put("v", 99, bytes(6000))
    assert not disk.has("v", 99)
    smaller = DiskBlocks(tmp_path, 2500)
    assert _on_disk(tmp_path) <= 2500
    assert smaller.get("v", 19) == bytes(1000)


def test_what_was_read_last_stays(tmp_path: Path) -> None:
    disk = DiskBlocks(tmp_path, 3300)
    for index in range(3):
        disk.put("v", index, bytes(1000))
    disk.get("v", 0)
    disk.put("v", 3, bytes(1000))
    assert [disk.has("v", index) for index in range(4)] == [True, False, True, True]


@pytest.mark.parametrize("position", [0, 9, 12, 20, 23, 24, 100])
def test_a_damaged_block_is_never_served(tmp_path: Path, position: int) -> None:
    disk = DiskBlocks(tmp_path, 10**6)
    disk.put("version", 0, b"y" * 500)
    (file,) = tmp_path.iterdir()
    stored = bytearray(file.read_bytes())
    stored[position] ^= 1
    file.write_bytes(stored)
    assert disk.get("version", 0) is None
    assert list(tmp_path.iterdir()) == []
    assert disk.used_bytes == 0


@pytest.mark.parametrize("length", [0, 10, 30, 400])
def test_a_torn_block_is_never_served(tmp_path: Path, length: int) -> None:
    DiskBlocks(tmp_path, 10**6).put("version", 0, b"y" * 500)
    (file,) = tmp_path.iterdir()
    os.truncate(file, length)
    assert DiskBlocks(tmp_path, 10**6).get("version", 0) is None


def test_a_block_under_anothers_name_is_never_served(tmp_path: Path) -> None:
    disk = DiskBlocks(tmp_path, 10**6)
    disk.put("v1", 0, b"one")
    (one,) = tmp_path.iterdir()
    disk.put("v2", 0, b"two")
    (two,) = set(tmp_path.iterdir()) - {one}
    os.replace(one, two)
    assert DiskBlocks(tmp_path, 10**6).get("v2", 0) is None


def test_rubbish_of_a_crash_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "abc-0.partial").write_bytes(b"half")
    DiskBlocks(tmp_path, 10**6)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_switches_writing_off_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = DiskBlocks(tmp_path, 10**6)
    disk.put("v", 0, b"kept")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        disk.put("v", 1, b"lost")
        disk.put("v", 2, b"lost")
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    assert disk.get("v", 0) == b"kept"
    assert disk.get("v", 1) is None
    assert len(list(tmp_path.iterdir())) == 1

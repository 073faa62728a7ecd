"""Leases: what is granted, recalled, confirmed; who waits for whom, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.leasing import LeaseHolder, wait_until
from tests.server.running import RunningServer


@pytest.fixture
def writer(server: RunningServer) -> Iterator[httpx.Client]:
    """Another client, at the bucket's parent."""
    base = f"{server.url}/v1/files"
    with httpx.Client(base_url=base, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def holder(
    server: RunningServer, writer: httpx.Client, bucket: str, tmp_path: Path
) -> Iterator[LeaseHolder]:
    """A client with a feed, which the server grants leases to already."""
    writer.put(f"/{bucket}/f?alt=media", content=b"0")
    with LeaseHolder(server.url, f"holder-{bucket}") as made:
        wait_until(lambda: "files-lease" in made.ask(f"{bucket}/f")[1].headers)
        yield made


def test_a_leased_name_is_read_unasked_until_another_changes_it(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    asked = holder.asked
    assert holder.read(f"{bucket}/f").content == b"0"
    assert holder.asked == asked
    changed = writer.put(f"/{bucket}/f?alt=media", content=b"1")
    number = int(changed.headers["files-cursor"].rpartition("-")[2])
    assert not holder.leased(f"{bucket}/f")  # before the answer came
    assert ("confirm", number) in [(kind, at) for kind, at, _ in holder.events]
    assert holder.read(f"{bucket}/f").content == b"1"
    assert holder.asked == asked + 1
    assert holder.leased(f"{bucket}/f")


def test_who_never_confirms_holds_a_change_up_for_his_time_alone(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    holder.silent = True
    begun = time.monotonic()
    assert writer.put(f"/{bucket}/f?alt=media", content=b"1").status_code == 200
    assert time.monotonic() >= holder.until
    assert time.monotonic() - begun < 3

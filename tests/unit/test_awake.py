"""Processors are kept awake for bursts of requests, and no longer."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.fuse import awake
from filesfs.fuse.awake import Awake, is_wanted

SOON, LATE = 100_000, 5_000_000  # ns
NONE, ANY = 0, 2_000_000_000  # us


class Device:
    """A pipe in the device's place."""

    def __init__(self) -> None:
        self._reads, self.writes = os.pipe()
        os.set_blocking(self._reads, False)

    def told(self) -> list[int]:
        try:
            data = os.read(self._reads, 4096)
        except BlockingIOError:
            return []
        return list(struct.unpack(f"{len(data) // 4}i", data))

    def is_closed(self) -> bool:
        try:
            return os.read(self._reads, 1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._reads)


@pytest.fixture
def device() -> Iterator[Device]:
    pipe = Device()
    yield pipe
    pipe.close()


@asynccontextmanager
async def running(device: Device) -> AsyncIterator[Awake]:
    keeper = Awake(device.writes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield keeper
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_burst_holds_it_until_no_request_comes(
    device: Device, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(device) as keeper:
        for _ in range(8):
            keeper.came(SOON)
        await trio.sleep(0.001)
        assert device.told() == [NONE]
        for _ in range(10):
            keeper.came(SOON)
            await trio.sleep(0.004)
        assert device.told() == []
        await trio.sleep(0.02)
        assert device.told() == [ANY]
        for _ in range(8):
            keeper.came(SOON)
        await trio.sleep(0.02)
        assert device.told() == [NONE, ANY]
    assert device.is_closed()


@pytest.mark.trio
async def test_requests_now_and_then_do_not(
    device: Device, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(device) as keeper:
        for number in range(100):
            keeper.came(LATE if number % 7 == 0 else SOON)
            await trio.sleep(0.001)
        assert device.told() == []


@pytest.mark.parametrize(
    ("choice", "driver", "processors", "wanted"),
    [
        ("auto", "haltpoll", 2, True),
        ("auto", "haltpoll", 64, False),
        ("auto", "intel_idle", 2, False),
        ("auto", "", 2, False),
        ("on", "intel_idle", 64, True),
        ("off", "haltpoll", 2, False),
    ],
)
def test_where_it_is_wanted(choice: str, driver: str, processors: int, *, wanted: bool) -> None:
    assert is_wanted(choice, driver, processors) is wanted


@pytest.mark.trio
async def test_without_the_device_a_mount_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(awake, "_DEVICE", tmp_path / "none")
    keeper = Awake.chosen("on")
    for _ in range(20):
        keeper.came(SOON)
    await keeper.run()
    assert "low_latency=on has no effect" in caplog.text

"""Keeps the processors awake while a program asks one request after the other.

Each request wakes the mount, often the server, and then the program, on processors that have just
gone to sleep. In a virtual machine, where to sleep is to give the processor back to the host, that
is up to two fifths of what a small request costs (docs/decisions/0040). A process tells the kernel
through /dev/cpu_dma_latency what latency it can bear, for as long as it holds that open, so that
kill -9 leaves nothing behind. It must not know what is asked for.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

import trio

log = logging.getLogger(__name__)

_DEVICE = Path("/dev/cpu_dma_latency")
_DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")
_GIVES_BACK = "haltpoll"  # the driver of virtual machines
_FEW = 4  # processors; on more machines than this has, nobody uses most of them
_NONE, _ANY = struct.pack("i", 0), struct.pack("i", 2_000_000_000)  # microseconds

_NEAR_NS = 2_000_000  # a request this soon after the one before goes on with a burst
_BURST = 8  # requests
_REST_SECONDS = 0.005  # without a request, then the burst is over


def is_wanted(choice: str, driver: str, processors: int) -> bool:
    """Of "auto", "on" or "off": auto is on where it was measured to pay, and takes little."""
    if choice == "auto":
        return driver == _GIVES_BACK and processors <= _FEW
    return choice == "on"


class Awake:
    """Owner of the open device, if there is one. `came` is for each request, and costs next to
    nothing; `run` watches for bursts.
    """

    def __init__(self, device: int | None) -> None:
        self._device = device
        self._begin = trio.Event()
        self._near = 0
        self._news = False

    @classmethod
    def chosen(cls, choice: str) -> Awake:
        """As the option `low_latency` says, on this machine."""
        driver = _DRIVER.read_text().strip() if _DRIVER.exists() else ""
        if not is_wanted(choice, driver, os.cpu_count() or 1):
            return cls(None)
        try:
            return cls(os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            if choice == "on":
                log.warning("low_latency=on has no effect: %s: %s", _DEVICE, error.strerror)
            return cls(None)

    def came(self, after_ns: int) -> None:
        """A request, so long after this process began to wait for it."""
        self._news = True
        if after_ns > _NEAR_NS:
            self._near = 0
        elif self._near < _BURST:
            self._near += 1
            if self._near == _BURST:
                self._begin.set()

    async def run(self) -> None:
        """Until cancelled."""
        if self._device is None:
            return
        try:
            while True:
                await self._begin.wait()
                self._tell(_NONE)
                while self._news:
                    self._news = False
                    await trio.sleep(_REST_SECONDS)
                self._tell(_ANY)
                self._near, self._begin = 0, trio.Event()
        finally:
            os.close(self._device)

    def _tell(self, latency: bytes) -> None:
        """OSError has not been seen, and would be no reason to end a mount."""
        assert self._device is not None
        try:
            os.write(self._device, latency)
        except OSError as error:
            log.warning("%s: %s", _DEVICE, error.strerror)

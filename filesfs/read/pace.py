"""How long the server's answers take: what a read at random costs beside a long range.

Pure: no I/O, no clock. It must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass

_SMALL = 64 << 10  # bytes; answers up to this size cost what a request costs
_LONG = 1 << 20  # and from this on what the line carries
_PART = 4  # the usual time moves by this part towards the latest


@dataclass(slots=True)
class Pace:
    """Of one server, learned from the answers as they come."""

    _small: float = 0.0  # seconds of a small answer
    _byte: float = 0.0  # seconds of each byte of a long one

    def took(self, length: int, seconds: float) -> None:
        """An answer of so many bytes was there after so long."""
        if length <= _SMALL:
            self._small = _nearer(self._small, seconds)
        elif length >= _LONG:
            # Ranges share the line: the quickest tells most.
            self._byte = min(seconds / length, _nearer(self._byte, seconds / length))

    def small_ones(self, length: int) -> float | None:
        """How many small answers take as long as one of `length` bytes. None: not known yet."""
        if not self._byte or not self._small:
            return None
        return length * self._byte / self._small


def _nearer(usual: float, latest: float) -> float:
    return usual + (latest - usual) / _PART if usual else latest

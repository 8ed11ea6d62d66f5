"""Time as a port: the system's clock, and one that tests move by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """UTC now in microseconds and milliseconds, and a monotonic clock in seconds for durations."""

    def now_us(self) -> int: ...
    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved; wall time and monotonic time move together."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._us = start_ms * 1_000
        self._monotonic = 1_000.0

    def now_us(self) -> int:
        return self._us

    def now_ms(self) -> int:
        return self._us // 1_000

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._us += round(seconds * 1_000_000)
        self._monotonic += seconds

    def set_ms(self, at_ms: int) -> None:
        """Set the wall clock alone, as an NTP step does."""
        self._us = at_ms * 1_000

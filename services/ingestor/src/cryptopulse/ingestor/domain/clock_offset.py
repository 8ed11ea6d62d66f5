"""The venue's clock minus ours, of any size, from event and receipt times alone."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 64
"""Samples of a round; the least delayed of a round is its witness."""
STEP_US: Final = 1_000_000
"""A round that differs by more than this replaces the estimate at once: a clock was set, or a recording began."""
WEIGHT: Final = 0.2


class ClockOffset:
    """Estimates `venue - ours` in microseconds.

    Every sample is event time minus receipt time: the offset minus the delay on the way. The largest of a round
    has the least delay, so rounds take their maximum; the estimate follows them by an exponential mean.
    """

    __slots__ = ("_best", "_count", "_estimate")

    def __init__(self) -> None:
        self._estimate: float | None = None
        self._best: int | None = None
        self._count = 0

    def sample(self, event_us: int, received_us: int) -> None:
        """Count one event that was fresh when it came (no snapshot, no repair)."""
        delta = event_us - received_us
        if self._best is None or delta > self._best:
            self._best = delta
        self._count += 1
        if self._estimate is None:
            self._estimate = float(delta)
        if self._count >= WINDOW:
            self._close_round()

    @property
    def us(self) -> int:
        """The estimate; 0 before the first sample."""
        if self._estimate is None:
            return 0
        if self._best is not None and self._best > self._estimate:
            return self._best
        return round(self._estimate)

    def _close_round(self) -> None:
        assert self._best is not None
        assert self._estimate is not None
        if abs(self._best - self._estimate) > STEP_US:
            self._estimate = float(self._best)
        else:
            self._estimate += WEIGHT * (self._best - self._estimate)
        self._best, self._count = None, 0

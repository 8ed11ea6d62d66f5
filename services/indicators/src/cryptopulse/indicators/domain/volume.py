"""Volume: on-balance volume, accumulation, money flow, VWAP, and volume against its usual size."""

from __future__ import annotations

from math import fsum, sqrt
from typing import Final, Literal

from cryptopulse.common.contracts.intervals import open_time
from cryptopulse.indicators.domain.points import Point, Window
from cryptopulse.indicators.domain.study import Base, Values

LEAST_FRACTION: Final = 0.05
"""A forming bar's volume is projected to its whole length from this part of it on; before, it says too little."""


class Obv(Base):
    """On-balance volume since the anchor: volume is added when the close does not fall, else taken away (as `ta`). Exact."""

    anchored = True

    def __init__(self) -> None:
        self.needed = self.settle = 1
        self.outputs = ("obv",)

    def initial(self) -> int:
        return 0

    def evaluate(self, state: int, window: Window, bar: Point) -> tuple[Values, int]:
        falls = window.count > 0 and bar.c < window.closes[-1]
        total = state - bar.v if falls else state + bar.v
        return (total / bar.vs,), total


def flow_multiplier(bar: Point) -> float:
    """Where the close stands in the bar's range, -1..1; 0 without a range."""
    spread = bar.h - bar.l
    return 0.0 if spread == 0 else (2 * bar.c - bar.h - bar.l) / spread


class Adl(Base):
    """Accumulation/distribution line since the anchor: the sum of volume times where the close stands in the range."""

    anchored = True

    def __init__(self) -> None:
        self.needed = self.settle = 1
        self.outputs = ("adl",)

    def initial(self) -> tuple[float, float]:
        return (0.0, 0.0)

    def evaluate(
        self, state: tuple[float, float], window: Window, bar: Point
    ) -> tuple[Values, tuple[float, float]]:
        # Compensated (Neumaier): a sum over months must not drift.
        total, lost = state
        spread = bar.h - bar.l
        flow = 0.0 if spread == 0 else (2 * bar.c - bar.h - bar.l) * bar.v / (spread * bar.vs)
        after = total + flow
        lost += (total - after) + flow if abs(total) >= abs(flow) else (flow - after) + total
        return (after + lost,), (after, lost)


class Cmf(Base):
    """Chaikin money flow(n), -1..1: money flow volume of n bars over their volume. None when nothing was traded."""

    def __init__(self, period: int = 20) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"cmf_{period}",)

    def initial(self) -> tuple[tuple[float, ...], float, int]:
        return ((), 0.0, 0)

    def evaluate(
        self, state: tuple[tuple[float, ...], float, int], window: Window, bar: Point
    ) -> tuple[Values, float]:
        _, flows, volume = state
        flow = flow_multiplier(bar) * (bar.v / bar.vs)
        volume += bar.v
        if window.count + 1 < self.period or volume == 0:
            return (None,), flow
        return ((flows + flow) / (volume / bar.vs),), flow

    def advance(
        self, state: tuple[tuple[float, ...], float, int], window: Window, bar: Point, carry: float
    ) -> tuple[tuple[float, ...], float, int]:
        # Holds the newest n-1 flows and volumes, so that the next bar makes n.
        keep = self.period - 1
        ring = (*state[0], carry)[-keep:] if keep else ()
        volume = sum(window.volumes[1 - keep :]) + bar.v if keep > 1 else bar.v * keep
        return (ring, fsum(ring), volume)


class RollingVwap(Base):
    """Typical price of the last n bars weighted by volume (what `ta` calls VWAP). None when nothing was traded. Exact."""

    def __init__(self, period: int = 14) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"vwap_{period}",)

    def initial(self) -> tuple[int, int]:
        return (0, 0)

    def evaluate(self, state: tuple[int, int], window: Window, bar: Point) -> tuple[Values, tuple[int, int]]:
        money, volume = state
        n = self.period
        money += bar.tp * bar.v
        volume += bar.v
        if window.count >= n:
            money -= window.typical[-n] * window.volumes[-n]
            volume -= window.volumes[-n]
        if window.count + 1 < n or volume == 0:
            return (None,), (money, volume)
        return (money / (3 * volume * bar.ps),), (money, volume)


class AnchoredVwap(Base):
    """Typical price weighted by volume since 00:00 UTC of the day, or of the week's Monday. Exact."""

    def __init__(self, span: Literal["day", "week"] = "day") -> None:
        self.bucket = "1d" if span == "day" else "1w"
        self.needed = self.settle = 1
        self.outputs = (f"vwap_{span}",)

    def initial(self) -> tuple[int, int, int]:
        return (-1, 0, 0)

    def evaluate(
        self, state: tuple[int, int, int], window: Window, bar: Point
    ) -> tuple[Values, tuple[int, int, int]]:
        start, money, volume = state
        bucket = open_time(bar.open_time, self.bucket)
        if bucket != start:
            start, money, volume = bucket, 0, 0
        money += bar.tp * bar.v
        volume += bar.v
        if volume == 0:
            return (None,), (start, money, volume)
        return (money / (3 * volume * bar.ps),), (start, money, volume)


class VolumeSpike(Base):
    """Volume against the n bars before (this one excluded): ratio to their mean, and z-score by population deviation.

    A forming bar's volume is projected to its whole length by the time that has passed. None when the bars before
    had no volume (ratio) or no deviation (z).
    """

    def __init__(self, period: int = 20) -> None:
        self.period = period
        self.needed = self.settle = period + 1
        self.outputs = (f"volume_ratio_{period}", f"volume_zscore_{period}")

    def initial(self) -> tuple[int, int]:
        return (0, 0)

    def evaluate(self, state: tuple[int, int], window: Window, bar: Point) -> tuple[Values, None]:
        n = self.period
        if window.count < n or bar.fraction < LEAST_FRACTION:
            return (None, None), None
        total, squares = state
        projected: float = bar.v if bar.fraction >= 1.0 else bar.v / bar.fraction
        ratio = None if total == 0 else n * projected / total
        spread = n * squares - total * total
        if spread == 0:
            return (ratio, None), None
        return (ratio, (n * projected - total) / bar.vs / sqrt(spread / (bar.vs * bar.vs))), None

    def advance(self, state: tuple[int, int], window: Window, bar: Point, carry: None) -> tuple[int, int]:
        total, squares = state
        total += bar.v
        squares += bar.v * bar.v
        if window.count >= self.period:
            oldest = window.volumes[-self.period]
            total -= oldest
            squares -= oldest * oldest
        return (total, squares)

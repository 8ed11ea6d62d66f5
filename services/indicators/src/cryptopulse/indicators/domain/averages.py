"""Moving averages: simple, exponential, Wilder's, weighted, Hull's, volume-weighted."""

from __future__ import annotations

from math import isqrt

from cryptopulse.indicators.domain.points import Point, Window
from cryptopulse.indicators.domain.study import Base, Values


class Sma(Base):
    """Simple mean of the last n closes; the sum is an exact integer, so nothing drifts."""

    def __init__(self, period: int = 20) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"sma_{period}",)

    def initial(self) -> int:
        return 0

    def evaluate(self, state: int, window: Window, bar: Point) -> tuple[Values, int]:
        n = self.period
        total = state + bar.c
        if window.count >= n:
            total -= window.closes[-n]
        if window.count + 1 < n:
            return (None,), total
        return (total / (n * bar.ps),), total


class Ema(Base):
    """Exponential mean, a = 2/(n+1), seeded with the first close, shown from bar n (as `ta` and pandas do)."""

    def __init__(self, period: int = 12) -> None:
        self.period = self.needed = period
        self.settle = max(300, 5 * period)
        self.alpha = 2.0 / (period + 1)
        self.outputs = (f"ema_{period}",)

    def evaluate(self, state: float | None, window: Window, bar: Point) -> tuple[Values, float]:
        value = bar.fc if state is None else state + self.alpha * (bar.fc - state)
        return (value if window.count + 1 >= self.period else None,), value


class Rma(Base):
    """Wilder's mean, a = 1/n, seeded with the simple mean of the first n closes (TA-Lib, TradingView)."""

    def __init__(self, period: int = 14) -> None:
        self.period = self.needed = period
        self.settle = max(300, 24 * period)
        self.outputs = (f"rma_{period}",)

    def initial(self) -> tuple[int, float | None]:
        return (0, None)

    def evaluate(
        self, state: tuple[int, float | None], window: Window, bar: Point
    ) -> tuple[Values, tuple[int, float | None]]:
        total, mean = state
        n = self.period
        if mean is not None:
            mean += (bar.fc - mean) / n
            return (mean,), (0, mean)
        total += bar.c
        if window.count + 1 < n:
            return (None,), (total, None)
        mean = total / (n * bar.ps)
        return (mean,), (0, mean)


def weighted(state: tuple[int, int], window: Window, close: int, period: int) -> tuple[int, tuple[int, int]]:
    """The weighted sum of the last `period` closes (newest weighs most) and the next (weighted, plain) sums."""
    heavy, plain = state
    if window.count >= period:
        heavy += period * close - plain
        plain += close - window.closes[-period]
    else:
        heavy += (window.count + 1) * close
        plain += close
    return heavy, (heavy, plain)


class Wma(Base):
    """Linearly weighted mean of the last n closes: weights n (newest) down to 1. Exact."""

    def __init__(self, period: int = 20) -> None:
        self.period = self.needed = self.settle = period
        self.divisor = period * (period + 1) // 2
        self.outputs = (f"wma_{period}",)

    def initial(self) -> tuple[int, int]:
        return (0, 0)

    def evaluate(self, state: tuple[int, int], window: Window, bar: Point) -> tuple[Values, tuple[int, int]]:
        heavy, carry = weighted(state, window, bar.c, self.period)
        if window.count + 1 < self.period:
            return (None,), carry
        return (heavy / (self.divisor * bar.ps),), carry


class Hma(Base):
    """Hull's mean: WMA over sqrt(n) of 2*WMA(n/2) - WMA(n)."""

    def __init__(self, period: int = 9) -> None:
        self.period = period
        self.half = period // 2
        self.last = isqrt(period)
        self.needed = self.settle = period + self.last - 1
        self.outputs = (f"hma_{period}",)

    def initial(self) -> tuple[tuple[int, int], tuple[int, int], tuple[float, ...]]:
        return ((0, 0), (0, 0), ())

    def evaluate(
        self, state: tuple[tuple[int, int], tuple[int, int], tuple[float, ...]], window: Window, bar: Point
    ) -> tuple[Values, tuple[tuple[int, int], tuple[int, int], tuple[float, ...]]]:
        short_state, long_state, raws = state
        n, half = self.period, self.half
        short, short_next = weighted(short_state, window, bar.c, half)
        long, long_next = weighted(long_state, window, bar.c, n)
        if window.count + 1 < n:
            return (None,), (short_next, long_next, ())
        long_divisor, half_divisor = n * (n + 1), half * (half + 1)
        raw = (4 * short * long_divisor - 2 * long * half_divisor) / (half_divisor * long_divisor * bar.ps)
        raws = (*raws, raw)[-self.last :]
        carry = (short_next, long_next, raws)
        if len(raws) < self.last:
            return (None,), carry
        total = 0.0
        for weight, value in enumerate(raws, 1):
            total += weight * value
        return (total / (self.last * (self.last + 1) // 2),), carry


class Vwma(Base):
    """Mean of the last n closes weighted by volume; None when nothing was traded. Exact sums."""

    def __init__(self, period: int = 20) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"vwma_{period}",)

    def initial(self) -> tuple[int, int]:
        return (0, 0)

    def evaluate(self, state: tuple[int, int], window: Window, bar: Point) -> tuple[Values, tuple[int, int]]:
        money, volume = state
        money += bar.c * bar.v
        volume += bar.v
        n = self.period
        if window.count >= n:
            money -= window.closes[-n] * window.volumes[-n]
            volume -= window.volumes[-n]
        if window.count + 1 < n or volume == 0:
            return (None,), (money, volume)
        return (money / (volume * bar.ps),), (money, volume)

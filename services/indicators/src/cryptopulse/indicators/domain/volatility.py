"""Volatility and channels: Bollinger, Keltner, Donchian, realised volatility."""

from __future__ import annotations

from math import fsum, log, sqrt
from typing import Final

from cryptopulse.indicators.domain.momentum import extremes_with
from cryptopulse.indicators.domain.points import Point, Window
from cryptopulse.indicators.domain.study import Base, Nested, Values, float_label
from cryptopulse.indicators.domain.trend import AtrCore

YEAR_MS: Final = 365 * 86_400_000


class Bollinger(Base):
    """Mean of n closes and k population deviations around it, %B and width (percent of the mean).

    Sums and squares are exact integers: the deviation is right in the quietest market. %B is None without deviation.
    Each enters as a quotient rounded once, so that no value depends on the series' scale.
    """

    def __init__(self, period: int = 20, deviations: float = 2.0) -> None:
        self.period = self.needed = self.settle = period
        self.k = deviations
        default = (period, deviations) == (20, 2.0)
        tail = "" if default else f"_{period}_{float_label(deviations)}"
        names = ("bb_upper", "bb_middle", "bb_lower", "bb_percent_b", "bb_width", "bb_deviation")
        self.outputs = tuple(name + tail for name in names)

    def initial(self) -> tuple[int, int]:
        return (0, 0)

    def evaluate(self, state: tuple[int, int], window: Window, bar: Point) -> tuple[Values, tuple[int, int]]:
        total, squares = state
        n, close = self.period, bar.c
        total += close
        squares += close * close
        if window.count >= n:
            oldest = window.closes[-n]
            total -= oldest
            squares -= oldest * oldest
        carry = (total, squares)
        if window.count + 1 < n:
            return (None,) * 6, carry
        scale = n * bar.ps
        deviation = sqrt((n * squares - total * total) / (scale * scale))
        middle = total / scale
        reach = self.k * deviation
        percent = None if deviation == 0 else 0.5 + (n * close - total) / scale / (2.0 * reach)
        return (middle + reach, middle, middle - reach, percent, 200.0 * reach / middle, deviation), carry


class Keltner(Base):
    """EMA(n) of the close and k ATR(m) around it (the later form of the channel)."""

    def __init__(self, period: int = 20, atr_period: int = 10, multiplier: float = 2.0) -> None:
        self.period = period
        self.alpha = 2.0 / (period + 1)
        self.core = AtrCore(atr_period)
        self.k = multiplier
        self.needed = max(period, atr_period)
        self.settle = max(300, 12 * period)
        default = (period, atr_period, multiplier) == (20, 10, 2.0)
        tail = "" if default else f"_{period}_{atr_period}_{float_label(multiplier)}"
        self.outputs = tuple(name + tail for name in ("keltner_upper", "keltner_middle", "keltner_lower"))

    def initial(self) -> tuple[None, tuple[int, None]]:
        return (None, (0, None))

    def evaluate(self, state: Nested, window: Window, bar: Point) -> tuple[Values, Nested]:
        mean, core = state
        mean = bar.fc if mean is None else mean + self.alpha * (bar.fc - mean)
        atr, core = self.core.step(core, window, bar)
        if window.count + 1 < self.needed or atr is None:
            return (None, None, None), (mean, core)
        reach = self.k * atr
        return (mean + reach, mean, mean - reach), (mean, core)


class Donchian(Base):
    """Highest high and lowest low of n bars, this one included, and their middle."""

    def __init__(self, period: int = 20) -> None:
        self.period = self.needed = self.settle = period
        names = ("donchian_upper", "donchian_middle", "donchian_lower")
        self.outputs = names if period == 20 else tuple(f"{name}_{period}" for name in names)

    def evaluate(self, state: tuple[int, int] | None, window: Window, bar: Point) -> tuple[Values, None]:
        if state is None and self.period > 1:
            return (None, None, None), None
        high, low = (max(state[0], bar.h), min(state[1], bar.l)) if state else (bar.h, bar.l)
        return (high / bar.ps, (high + low) / (2 * bar.ps), low / bar.ps), None

    def advance(
        self, state: tuple[int, int] | None, window: Window, bar: Point, carry: None
    ) -> tuple[int, int] | None:
        return extremes_with(window, bar, self.period - 1, state) if self.period > 1 else None


class RealisedVolatility(Base):
    """Sample deviation of the last n logarithmic returns, and the same a year (365 days) in percent."""

    def __init__(self, period: int = 30, bar_ms: int = 3_600_000) -> None:
        self.period = period
        self.needed = self.settle = period + 1
        self.year = 100.0 * sqrt(YEAR_MS / bar_ms)
        self.outputs = (f"return_deviation_{period}", f"realised_volatility_{period}")

    def initial(self) -> tuple[tuple[float, ...], float, float]:
        return ((), 0.0, 0.0)

    def evaluate(
        self, state: tuple[tuple[float, ...], float, float], window: Window, bar: Point
    ) -> tuple[Values, float | None]:
        if not window.count:
            return (None, None), None
        move = log(bar.c / window.closes[-1])
        ring, total, squares = state
        n = self.period
        if len(ring) < n - 1:
            return (None, None), move
        total += move
        squares += move * move
        variance = max(0.0, squares - total * total / n) / (n - 1)
        deviation = sqrt(variance)
        return (deviation, deviation * self.year), move

    def advance(
        self,
        state: tuple[tuple[float, ...], float, float],
        window: Window,
        bar: Point,
        carry: float | None,
    ) -> tuple[tuple[float, ...], float, float]:
        if carry is None:
            return state
        ring = (*state[0], carry)[1 - self.period :]
        return (ring, fsum(ring), fsum([move * move for move in ring]))

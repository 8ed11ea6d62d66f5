"""Oscillators: RSI, stochastics, CCI, Williams %R, rate of change, money flow, changes over time."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from cryptopulse.indicators.domain.points import Point, Window
from cryptopulse.indicators.domain.study import Base, Nested, Values

WINDOWS_MS: Final = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "24h": 86_400_000,
    "7d": 604_800_000,
    "30d": 2_592_000_000,
}


class RsiCore:
    """Wilder's relative strength, averages from 0 on the first bar with a = 1/n (as `ta`). 100 when nothing fell."""

    __slots__ = ("period",)

    def __init__(self, period: int) -> None:
        self.period = period

    def step(
        self, state: tuple[float, float] | None, window: Window, bar: Point
    ) -> tuple[float | None, tuple[float, float]]:
        """The value at `bar` (None in warm-up) and the next averages of gains and losses."""
        if state is None:
            return None, (0.0, 0.0)
        change = (bar.c - window.closes[-1]) / bar.ps
        gain, loss = state
        n = self.period
        if change > 0:
            gain += (change - gain) / n
            loss -= loss / n
        else:
            gain -= gain / n
            loss += (-change - loss) / n
        if window.count + 1 < n:
            return None, (gain, loss)
        return (100.0 if loss == 0 else 100.0 * gain / (gain + loss)), (gain, loss)


class Rsi(Base):
    """Relative strength index, 0..100: 100*G/(G+L) of Wilder's averages of gains and losses."""

    def __init__(self, period: int = 14) -> None:
        self.core = RsiCore(period)
        self.needed = period
        self.settle = max(300, 24 * period)
        self.outputs = (f"rsi_{period}",)

    def evaluate(
        self, state: tuple[float, float] | None, window: Window, bar: Point
    ) -> tuple[Values, tuple[float, float]]:
        value, carry = self.core.step(state, window, bar)
        return (value,), carry


def mean_of_known(values: tuple[float | None, ...], length: int) -> float | None:
    """The mean of `length` values, None when one is missing."""
    total = 0.0
    if len(values) < length:
        return None
    for value in values:
        if value is None:
            return None
        total += value
    return total / length


class StochRsi(Base):
    """Where RSI stands in its own range of n bars, 0..1, with a k-bar mean and a d-bar mean of that."""

    def __init__(self, period: int = 14, k: int = 3, d: int = 3) -> None:
        self.core = RsiCore(period)
        self.period, self.k, self.d = period, k, d
        self.needed = 2 * period - 1 + k + d - 2
        self.settle = max(300, 25 * period)
        self.outputs = (f"stochrsi_{period}", "stochrsi_k", "stochrsi_d")

    def initial(self) -> tuple[None, tuple[()], tuple[()], tuple[()]]:
        return (None, (), (), ())

    def evaluate(self, state: Nested, window: Window, bar: Point) -> tuple[Values, Nested]:
        core, ring, raws, ks = state
        rsi, core = self.core.step(core, window, bar)
        if rsi is None:
            return (None, None, None), (core, (), (), ())
        ring = (*ring, rsi)[-self.period :]
        raw = None
        if len(ring) == self.period:
            low = min(ring)
            spread = max(ring) - low
            raw = None if spread == 0 else (rsi - low) / spread
        raws = (*raws, raw)[-self.k :]
        k = mean_of_known(raws, self.k)
        ks = (*ks, k)[-self.d :]
        return (raw, k, mean_of_known(ks, self.d)), (core, ring, raws, ks)


class Stochastic(Base):
    """Fast %K(n) and its 3-bar mean %D, and the slow pair: %K smoothed by 3 and its 3-bar mean. None in a flat range."""

    def __init__(self, period: int = 14, smooth: int = 3, d: int = 3) -> None:
        self.period, self.smooth, self.d = period, smooth, d
        self.needed = self.settle = period + smooth + d - 2
        self.outputs = (f"stoch_k_{period}", f"stoch_d_{period}", "stoch_slow_k", "stoch_slow_d")

    def initial(self) -> tuple[None, tuple[()], tuple[()]]:
        return (None, (), ())

    def evaluate(self, state: Nested, window: Window, bar: Point) -> tuple[Values, Nested]:
        extremes, raws, slows = state
        k = None
        if extremes is not None:
            high = max(bar.h, extremes[0])
            low = min(bar.l, extremes[1])
            if high != low:
                k = 100 * (bar.c - low) / (high - low)
        raws = (*raws, k)[-max(self.smooth, self.d) :]
        fast_d = mean_of_known(raws[-self.d :], self.d)
        slow_k = mean_of_known(raws[-self.smooth :], self.smooth)
        slows = (*slows, slow_k)[-self.d :]
        return (k, fast_d, slow_k, mean_of_known(slows, self.d)), (raws, slows)

    def advance(self, state: Nested, window: Window, bar: Point, carry: Nested) -> Nested:
        return (extremes_with(window, bar, self.period - 1, state[0]), *carry)


def extremes_with(
    window: Window, bar: Point, length: int, known: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Highest high and lowest low of the newest `length` bars, `bar` being the newest; None while there are fewer.

    `known` are those of the `length` bars before `bar`: the bars are searched only where an extreme leaves them.
    """
    if window.count + 1 < length:
        return None
    if length == 1:
        return (bar.h, bar.l)
    if known is None:
        return (max(bar.h, *window.highs[1 - length :]), min(bar.l, *window.lows[1 - length :]))
    high, low = known
    if bar.h >= high:
        high = bar.h
    elif window.highs[-length] == high:
        high = max(bar.h, max(window.highs[1 - length :]))  # noqa: PLW3301 - unpacked, every bar would be copied once more
    if bar.l <= low:
        low = bar.l
    elif window.lows[-length] == low:
        low = min(bar.l, min(window.lows[1 - length :]))  # noqa: PLW3301 - as above
    return (high, low)


class WilliamsR(Base):
    """Williams %R(n), -100..0: where the close stands below the range's top. None in a flat range."""

    def __init__(self, period: int = 14) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"williams_r_{period}",)

    def evaluate(self, state: tuple[int, int] | None, window: Window, bar: Point) -> tuple[Values, None]:
        if state is None and self.period > 1:
            return (None,), None
        high, low = (max(state[0], bar.h), min(state[1], bar.l)) if state else (bar.h, bar.l)
        return (None if high == low else -100 * (high - bar.c) / (high - low),), None

    def advance(
        self, state: tuple[int, int] | None, window: Window, bar: Point, carry: None
    ) -> tuple[int, int] | None:
        return extremes_with(window, bar, self.period - 1, state) if self.period > 1 else None


class Cci(Base):
    """Commodity channel index(n): (TP - mean) / (0.015 * mean absolute deviation). None when nothing moved."""

    def __init__(self, period: int = 20) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"cci_{period}",)

    def evaluate(self, state: None, window: Window, bar: Point) -> tuple[Values, None]:
        n = self.period
        if window.count + 1 < n:
            return (None,), None
        ring = window.typical[1 - n :] if n > 1 else []
        total = sum(ring) + bar.tp
        distance = abs(n * bar.tp - total)
        for value in ring:
            distance += abs(n * value - total)
        if distance == 0:
            return (None,), None
        return ((n * bar.tp - total) * n / (0.015 * distance),), None


class Roc(Base):
    """Rate of change over n bars, percent."""

    def __init__(self, period: int = 12) -> None:
        self.period = period
        self.needed = self.settle = period + 1
        self.outputs = (f"roc_{period}",)

    def evaluate(self, state: None, window: Window, bar: Point) -> tuple[Values, None]:
        if window.count < self.period:
            return (None,), None
        before = window.closes[-self.period]
        return (100 * (bar.c - before) / before,), None


class Mfi(Base):
    """Money flow index(n), 0..100; equal typical prices give no flow, compared as integers. None without any flow."""

    def __init__(self, period: int = 14) -> None:
        self.period = self.needed = self.settle = period
        self.outputs = (f"mfi_{period}",)

    def initial(self) -> tuple[int, int, tuple[int, ...]]:
        return (0, 0, ())

    def evaluate(
        self, state: tuple[int, int, tuple[int, ...]], window: Window, bar: Point
    ) -> tuple[Values, tuple[int, int, int]]:
        up, down, ring = state
        flow = 0
        if window.count:
            before = window.typical[-1]
            flow = bar.tp * bar.v if bar.tp > before else -bar.tp * bar.v if bar.tp < before else 0
        if flow > 0:
            up += flow
        else:
            down -= flow
        if len(ring) >= self.period:
            oldest = ring[-self.period]
            if oldest > 0:
                up -= oldest
            else:
                down += oldest
        if window.count + 1 < self.period or up + down == 0:
            return (None,), (up, down, flow)
        return (100 * up / (up + down),), (up, down, flow)

    def advance(
        self, state: tuple[int, int, tuple[int, ...]], window: Window, bar: Point, carry: tuple[int, int, int]
    ) -> tuple[int, int, tuple[int, ...]]:
        up, down, flow = carry
        return (up, down, (*state[2][1 - self.period :], flow) if self.period > 1 else (flow,))


class Change(Base):
    """Price change in percent by time: the price now against the last close at or before now minus the window.

    By time, so gaps do not shift it. A window shorter than the bars, or further back than the closes at hand, is None.
    """

    def __init__(self) -> None:
        self.needed = self.settle = 2
        self.outputs = tuple(f"change_{name}" for name in WINDOWS_MS)
        self.spans = tuple(WINDOWS_MS.values())

    def evaluate(self, state: None, window: Window, bar: Point) -> tuple[Values, None]:
        times, closes, now, price = window.times, window.fcloses, bar.as_of, bar.fc
        if not times:
            return (None,) * len(self.spans), None
        finest = now - times[-1]
        oldest = times[0]
        values: list[float | None] = []
        for span in self.spans:
            wanted = now - span
            if wanted < oldest or (wanted > times[-1] and span < finest):
                values.append(None)
                continue
            before = closes[bisect_right(times, wanted) - 1]
            values.append(100.0 * (price - before) / before)
        return tuple(values), None

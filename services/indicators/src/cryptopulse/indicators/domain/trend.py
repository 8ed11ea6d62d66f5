"""Trend: MACD, ADX, Ichimoku, Supertrend, parabolic SAR, Aroon, TRIX."""

from __future__ import annotations

from cryptopulse.indicators.domain.momentum import extremes_with
from cryptopulse.indicators.domain.points import Point, Window
from cryptopulse.indicators.domain.study import Base, Nested, Values, float_label


class Macd(Base):
    """EMA(fast) - EMA(slow), its signal EMA seeded with the first shown difference, and their distance (as `ta`)."""

    def __init__(self, fast: int = 12, slow: int = 26, signal: int = 9) -> None:
        self.slow, self.signal = slow, signal
        self.a, self.b, self.s = 2.0 / (fast + 1), 2.0 / (slow + 1), 2.0 / (signal + 1)
        self.needed = slow + signal - 1
        self.settle = max(330, 12 * slow)
        default = (fast, slow, signal) == (12, 26, 9)
        tail = "" if default else f"_{fast}_{slow}_{signal}"
        self.outputs = (f"macd{tail}", f"macd_signal{tail}", f"macd_histogram{tail}")

    def evaluate(
        self, state: tuple[float, float, float | None] | None, window: Window, bar: Point
    ) -> tuple[Values, tuple[float, float, float | None]]:
        price = bar.fc
        if state is None:
            fast = slow = price
            signal = None
        else:
            fast, slow, signal = state
            fast += self.a * (price - fast)
            slow += self.b * (price - slow)
        bars = window.count + 1
        if bars < self.slow:
            return (None, None, None), (fast, slow, None)
        macd = fast - slow
        signal = macd if signal is None else signal + self.s * (macd - signal)
        if bars < self.needed:
            return (macd, None, None), (fast, slow, signal)
        return (macd, signal, macd - signal), (fast, slow, signal)


def true_range(window: Window, bar: Point) -> int:
    """The bar's range, widened to the previous close; high - low for the first bar."""
    if not window.count:
        return bar.h - bar.l
    close = window.closes[-1]
    return (max(close, bar.h)) - (min(close, bar.l))


class AtrCore:
    """Wilder's average true range: mean of the first n ranges (the first is high - low), then a = 1/n."""

    __slots__ = ("period",)

    def __init__(self, period: int) -> None:
        self.period = period

    def step(
        self, state: tuple[int, float | None], window: Window, bar: Point
    ) -> tuple[float | None, tuple[int, float | None]]:
        """The value at `bar`, None in warm-up, and the next state."""
        total, mean = state
        reach = true_range(window, bar)
        n = self.period
        if mean is not None:
            mean += (reach / bar.ps - mean) / n
            return mean, (0, mean)
        total += reach
        if window.count + 1 < n:
            return None, (total, None)
        mean = total / (n * bar.ps)
        return mean, (0, mean)


class Atr(Base):
    """Average true range(n) and the same in percent of the close."""

    def __init__(self, period: int = 14) -> None:
        self.core = AtrCore(period)
        self.needed = period
        self.settle = max(300, 24 * period)
        self.outputs = (f"atr_{period}", f"natr_{period}")

    def initial(self) -> tuple[int, float | None]:
        return (0, None)

    def evaluate(
        self, state: tuple[int, float | None], window: Window, bar: Point
    ) -> tuple[Values, tuple[int, float | None]]:
        value, carry = self.core.step(state, window, bar)
        return (value, None if value is None else 100.0 * value / bar.fc), carry


class Adx(Base):
    """Wilder's directional movement: sums over the first n moves, then s - s/n + x; ADX begins as the mean of n DX.

    Moves are compared as integers, so equal ones are equal (float ties are what `ta` and TA-Lib get wrong).
    """

    def __init__(self, period: int = 14) -> None:
        self.period = period
        self.needed = 2 * period
        self.settle = max(300, 30 * period)
        self.outputs = (f"adx_{period}", f"plus_di_{period}", f"minus_di_{period}")

    def initial(self) -> tuple[float, float, float, float, float | None]:
        return (0.0, 0.0, 0.0, 0.0, None)

    def evaluate(
        self, state: tuple[float, float, float, float, float | None], window: Window, bar: Point
    ) -> tuple[Values, tuple[float, float, float, float, float | None]]:
        index = window.count
        if index == 0:
            return (None, None, None), state
        reach, plus, minus, dx_total, adx = state
        n = self.period
        up = bar.h - window.highs[-1]
        down = window.lows[-1] - bar.l
        plus_move = up if up > down and up > 0 else 0
        minus_move = down if down > up and down > 0 else 0
        if index > n:
            reach -= reach / n
            plus -= plus / n
            minus -= minus / n
        reach += true_range(window, bar) / bar.ps
        plus += plus_move / bar.ps
        minus += minus_move / bar.ps
        if index < n:
            return (None, None, None), (reach, plus, minus, 0.0, None)
        if reach == 0:
            plus_di = minus_di = 0.0
            dx = 0.0
        else:
            plus_di, minus_di = 100.0 * plus / reach, 100.0 * minus / reach
            both = plus + minus
            dx = 0.0 if both == 0 else 100.0 * abs(plus - minus) / both
        if adx is not None:
            adx += (dx - adx) / n
        else:
            dx_total += dx
            if index >= 2 * n - 1:
                adx = dx_total / n
        return (adx, plus_di, minus_di), (reach, plus, minus, dx_total, adx)


class Ichimoku(Base):
    """Conversion, base and both spans as computed at this bar, the cloud over this bar (spans of `base` bars ago), lagging.

    `ichimoku_lagging` is the close, to be drawn `base` bars back.
    """

    def __init__(self, conversion: int = 9, base: int = 26, span: int = 52) -> None:
        self.lengths = (conversion, base, span)
        self.shift = base
        self.needed = self.settle = span + base
        self.outputs = (
            "ichimoku_conversion", "ichimoku_base", "ichimoku_span_a", "ichimoku_span_b", "ichimoku_lagging",
            "ichimoku_cloud_a", "ichimoku_cloud_b",
        )  # fmt: skip

    def initial(self) -> tuple[tuple[None, None, None], tuple[()]]:
        return ((None, None, None), ())

    def evaluate(self, state: Nested, window: Window, bar: Point) -> tuple[Values, Nested]:
        extremes, ring = state
        conversion, base, span = [None if known is None else _middle_sum(known, bar) for known in extremes]
        unit = 2 * bar.ps
        span_a = None if conversion is None or base is None else (conversion + base) / (2 * unit)
        span_b = None if span is None else span / unit
        cloud = ring[-self.shift] if len(ring) >= self.shift else (None, None)
        return (
            None if conversion is None else conversion / unit,
            None if base is None else base / unit,
            span_a,
            span_b,
            bar.fc,
            *cloud,
        ), (span_a, span_b)

    def advance(self, state: Nested, window: Window, bar: Point, carry: Nested) -> Nested:
        (first, second, third), ring = state
        conversion, base, span = self.lengths
        extremes = (
            extremes_with(window, bar, conversion - 1, first),
            extremes_with(window, bar, base - 1, second),
            extremes_with(window, bar, span - 1, third),
        )
        return (extremes, (*ring[1 - self.shift :], carry))


def _middle_sum(known: tuple[int, int], bar: Point) -> int:
    """Highest high and lowest low added, `bar` included."""
    high, low = known
    return (high if high > bar.h else bar.h) + (low if low < bar.l else bar.l)  # noqa: FURB136 - a call costs three times as much


class Supertrend(Base):
    """Bands of `multiplier` ATRs around (high+low)/2 that only tighten while the trend holds; direction 1 or -1.

    The first bar with an ATR starts in the direction of its close against the middle.
    """

    def __init__(self, period: int = 10, multiplier: float = 3.0) -> None:
        self.core = AtrCore(period)
        self.multiplier = multiplier
        self.needed = period
        self.settle = max(300, 24 * period)
        tail = "" if (period, multiplier) == (10, 3.0) else f"_{period}_{float_label(multiplier)}"
        self.outputs = (f"supertrend{tail}", f"supertrend_direction{tail}")

    def initial(self) -> tuple[tuple[int, None], None]:
        return ((0, None), None)

    def evaluate(self, state: Nested, window: Window, bar: Point) -> tuple[Values, Nested]:
        core, bands = state
        atr, core = self.core.step(core, window, bar)
        if atr is None:
            return (None, None), (core, None)
        middle = (bar.h + bar.l) / (2 * bar.ps)
        upper = middle + self.multiplier * atr
        lower = middle - self.multiplier * atr
        if bands is None:
            up = bar.fc > middle
        else:
            last_upper, last_lower, up = bands
            close = window.closes[-1] / bar.ps
            if upper > last_upper and close <= last_upper:
                upper = last_upper
            if lower < last_lower and close >= last_lower:
                lower = last_lower
            up = bar.fc >= lower if up else bar.fc > upper
        return (lower if up else upper, 1.0 if up else -1.0), (core, (upper, lower, up))


class Psar(Base):
    """Wilder's parabolic stop and reverse, as `ta` computes it on a plain index; direction 1 (rising) or -1."""

    def __init__(self, step: float = 0.02, maximum: float = 0.2) -> None:
        self.step, self.maximum = step, maximum
        self.needed = 3
        self.settle = 100
        tail = "" if (step, maximum) == (0.02, 0.2) else f"_{float_label(step)}_{float_label(maximum)}"
        self.outputs = (f"psar{tail}", f"psar_direction{tail}")

    def evaluate(self, state: Nested | None, window: Window, bar: Point) -> tuple[Values, Nested]:
        index = window.count
        if state is None:
            return (None, None), (bar.fc, True, self.step, bar.h, bar.l)
        sar, rising, factor, top, bottom = state
        if index < 2:
            return (None, None), (bar.fc, rising, factor, top, bottom)
        ps = bar.ps
        if rising:
            sar += factor * (top / ps - sar)
            if bar.l / ps < sar:
                rising, sar, bottom, factor = False, top / ps, bar.l, self.step
            else:
                if bar.h > top:
                    top, factor = bar.h, min(factor + self.step, self.maximum)
                if window.lows[-2] / ps < sar:
                    sar = window.lows[-2] / ps
                elif window.lows[-1] / ps < sar:
                    sar = window.lows[-1] / ps
        else:
            sar -= factor * (sar - bottom / ps)
            if bar.h / ps > sar:
                rising, sar, top, factor = True, bottom / ps, bar.h, self.step
            else:
                if bar.l < bottom:
                    bottom, factor = bar.l, min(factor + self.step, self.maximum)
                if window.highs[-2] / ps > sar:
                    sar = window.highs[-2] / ps
                elif window.highs[-1] / ps > sar:
                    sar = window.highs[-1] / ps
        return (sar, 1.0 if rising else -1.0), (sar, rising, factor, top, bottom)


class Aroon(Base):
    """How recent the highest high and the lowest low of n+1 bars are, 0..100, and their difference.

    Among equal extremes the oldest counts (as `ta`).
    """

    def __init__(self, period: int = 25) -> None:
        self.period = period
        self.needed = self.settle = period + 1
        self.outputs = (f"aroon_up_{period}", f"aroon_down_{period}", f"aroon_oscillator_{period}")

    def evaluate(self, state: Nested | None, window: Window, bar: Point) -> tuple[Values, None]:
        if state is None:
            return (None, None, None), None
        high, high_age, low, low_age = state
        n = self.period
        up = 100.0 if bar.h > high else 100.0 * (n - high_age) / n
        down = 100.0 if bar.l < low else 100.0 * (n - low_age) / n
        return (up, down, up - down), None

    def advance(self, state: Nested | None, window: Window, bar: Point, carry: None) -> Nested | None:
        n = self.period
        if window.count + 1 < n:
            return None
        highs = [*window.highs[1 - n :], bar.h] if n > 1 else [bar.h]
        lows = [*window.lows[1 - n :], bar.l] if n > 1 else [bar.l]
        high, low = max(highs), min(lows)
        return (high, n - highs.index(high), low, n - lows.index(low))


class Trix(Base):
    """One-bar change in percent of a triple EMA(n), each seeded with the first shown value of the one below."""

    def __init__(self, period: int = 15) -> None:
        self.period = period
        self.alpha = 2.0 / (period + 1)
        self.needed = 3 * period - 1
        self.settle = max(300, 15 * period)
        self.outputs = (f"trix_{period}",)

    def initial(self) -> tuple[None, None, None]:
        return (None, None, None)

    def evaluate(
        self, state: tuple[float | None, float | None, float | None], window: Window, bar: Point
    ) -> tuple[Values, tuple[float | None, float | None, float | None]]:
        first, second, third = state
        a, n, bars = self.alpha, self.period, window.count + 1
        first = bar.fc if first is None else first + a * (bar.fc - first)
        if bars < n:
            return (None,), (first, None, None)
        second = first if second is None else second + a * (first - second)
        if bars < 2 * n - 1:
            return (None,), (first, second, None)
        before = third
        third = second if third is None else third + a * (second - third)
        if before is None or bars < self.needed:
            return (None,), (first, second, third)
        return (100.0 * (third - before) / before,), (first, second, third)

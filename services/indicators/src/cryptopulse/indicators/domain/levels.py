"""Price levels: classic pivots of the previous UTC day, support and resistance from swings."""

from __future__ import annotations

from typing import Final

from cryptopulse.common.contracts.intervals import open_time
from cryptopulse.indicators.domain.points import Point, Window
from cryptopulse.indicators.domain.study import Base, Nested, Values
from cryptopulse.indicators.domain.trend import AtrCore

SIDES: Final = 2
"""Bars on each side that a swing must tower over."""
MAX_LEVELS: Final = 40


class Pivots(Base):
    """Classic pivots of the previous UTC day: P=(H+L+C)/3, R1=2P-L, S1=2P-H, R2=P+(H-L), S2=P-(H-L), R3=H+2(P-L),
    S3=L-2(H-P). None until a whole day boundary was seen.
    """

    def __init__(self) -> None:
        self.needed = self.settle = 2
        self.outputs = ("pivot", "pivot_r1", "pivot_r2", "pivot_r3", "pivot_s1", "pivot_s2", "pivot_s3")

    def initial(self) -> tuple[int, int, int, int, tuple[int, int, int] | None]:
        return (-1, 0, 0, 0, None)

    def evaluate(
        self, state: tuple[int, int, int, int, tuple[int, int, int] | None], window: Window, bar: Point
    ) -> tuple[Values, tuple[int, int, int, int, tuple[int, int, int] | None]]:
        day, high, low, close, before = state
        today = open_time(bar.open_time, "1d")
        if today != day:
            before = None if day < 0 else (high, low, close)
            day, high, low = today, bar.h, bar.l
        else:
            high, low = max(high, bar.h), min(low, bar.l)
        carry = (day, high, low, bar.c, before)
        if before is None:
            return (None,) * 7, carry
        h, l, c = before
        total, unit = h + l + c, 3 * bar.ps
        return (
            total / unit,
            (2 * total - 3 * l) / unit,
            (total + 3 * (h - l)) / unit,
            (3 * h + 2 * (total - 3 * l)) / unit,
            (2 * total - 3 * h) / unit,
            (total - 3 * (h - l)) / unit,
            (3 * l - 2 * (3 * h - total)) / unit,
        ), carry


class SupportResistance(Base):
    """The strongest clustered swing below and above the price.

    A swing is a high (low) beyond those of two bars on either side; swings within half an ATR(14) form one level, whose
    weight is its number of touches. The newest 40 levels count. Among levels on a side the heaviest wins, then the
    nearest.
    """

    def __init__(self) -> None:
        self.core = AtrCore(14)
        self.needed = 2 * SIDES + 14
        self.settle = 200
        self.outputs = ("support", "resistance")

    def initial(self) -> tuple[tuple[int, None], tuple[()]]:
        return ((0, None), ())

    def evaluate(self, state: Nested, window: Window, bar: Point) -> tuple[Values, Nested]:
        core, levels = state
        atr, carry = self.core.step(core, window, bar)
        support: float | None = None
        resistance: float | None = None
        close = bar.fc
        support_weight = resistance_weight = 0
        for price, weight in levels:
            if price < close:
                if weight >= support_weight and (weight > support_weight or price > support):
                    support, support_weight = price, weight
            elif (
                price > close
                and weight >= resistance_weight
                and (weight > resistance_weight or price < resistance)
            ):
                resistance, resistance_weight = price, weight
        return (support, resistance), (carry, atr)

    def advance(self, state: Nested, window: Window, bar: Point, carry: Nested) -> Nested:
        core, atr = carry
        levels = state[1]
        if atr is None or window.count < 2 * SIDES:
            return (core, levels)
        highs = [*window.highs[-2 * SIDES :], bar.h]
        lows = [*window.lows[-2 * SIDES :], bar.l]
        for swing, others, sign in (
            (highs[SIDES], highs[:SIDES] + highs[SIDES + 1 :], 1),
            (lows[SIDES], lows[:SIDES] + lows[SIDES + 1 :], -1),
        ):
            if all(sign * swing > sign * other for other in others):
                levels = _with_swing(levels, swing / bar.ps, atr / 2)
        return (core, levels)


def _with_swing(
    levels: tuple[tuple[float, int], ...], price: float, width: float
) -> tuple[tuple[float, int], ...]:
    for index, (level, touches) in enumerate(levels):
        if abs(level - price) <= width:
            merged = ((level * touches + price) / (touches + 1), touches + 1)
            return (*levels[:index], *levels[index + 1 :], merged)
    return (*levels, (price, 1))[-MAX_LEVELS:]

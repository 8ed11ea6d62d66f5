"""The most read indicators of a forming bar in one pass: what the closed bars leave constant is worked out once a bar.

`arm` folds the states of twelve studies into plain numbers and answers a function of the forming bar alone. Its values are
those of the studies' `evaluate`, to the last bit: the same operations on the same numbers in the same order, or exact ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import sqrt
from typing import Final

from cryptopulse.indicators.domain.averages import Ema, Sma
from cryptopulse.indicators.domain.momentum import Cci, Rsi, Stochastic
from cryptopulse.indicators.domain.points import Point, Scale, Window
from cryptopulse.indicators.domain.study import State, Study, Values
from cryptopulse.indicators.domain.trend import Adx, Atr, Macd
from cryptopulse.indicators.domain.volatility import Bollinger
from cryptopulse.indicators.domain.volume import Obv

Look = Callable[[Point], Values]
"""Values of `OUTPUTS` as if this bar closed now. Pure."""

_PARTS: Final[tuple[Study, ...]] = (
    Sma(20), Sma(50), Ema(12), Ema(26), Rsi(14), Macd(), Bollinger(), Atr(14), Adx(14), Stochastic(), Obv(), Cci(20),
)  # fmt: skip
OUTPUTS: Final[tuple[str, ...]] = tuple(name for part in _PARTS for name in part.outputs)
"""The 25 outputs of the studies above with their usual parameters."""
LEAST_BARS: Final = 50
"""Closed bars from which on every one of them has a value and no seed is pending."""


def positions(studies: Sequence[Study]) -> tuple[int, ...] | None:
    """Where the parts stand among `studies`, in the order of `OUTPUTS`; None when one is missing."""
    found = []
    for part in _PARTS:
        at = next((i for i, study in enumerate(studies) if _same(study, part)), None)
        if at is None:
            return None
        found.append(at)
    return tuple(found)


def _same(study: Study, part: Study) -> bool:
    if type(study) is not type(part) or study.outputs != part.outputs:
        return False
    if isinstance(study, Stochastic) and isinstance(part, Stochastic):
        return (study.smooth, study.d) == (part.smooth, part.d)
    return True


def arm(states: Sequence[State], window: Window, scale: Scale) -> Look | None:  # noqa: PLR0915 - one frame of plain locals
    """The look at the bar that follows `window`; `states` are those of the parts, in order. None in warm-up."""
    if window.count < LEAST_BARS:
        return None
    ps, vs = scale.price, scale.volume
    (
        total,
        long_total,
        fast0,
        slow0,
        (gain0, loss0),
        (_, _, signal0),
        _,
        (_, atr0),
        movement,
        stochastic,
        obv0,
        _,
    ) = states
    fast_a, slow_a, signal_a = 2.0 / 13, 2.0 / 27, 2.0 / 10
    gain_kept, loss_kept = gain0 - gain0 / 14, loss0 - loss0 / 14

    last, last_high, last_low = window.closes[-1], window.highs[-1], window.lows[-1]
    # n * sum(x^2) - sum(x)^2 is an exact integer that does not change when every x is taken from the last close.
    total -= window.closes[-20]
    moves = [close - last for close in window.closes[-19:]]
    plain = sum(moves)
    spread, twice = 20 * sum([move * move for move in moves]) - plain * plain, 2 * plain
    window_scale = 20 * ps
    squared_scale = window_scale * window_scale
    long_total -= window.closes[-50]
    long_scale = 50 * ps

    # A sum of distances from a mean, by rank: what stands below it, and what above.
    ranked = sorted(window.typical[-19:])
    below = [0, *accumulate(ranked)]
    typical_sum = below[-1]
    apart = [20 * (typical_sum - 2 * part) for part in below]

    reach0, plus0, minus0, _, adx0 = movement
    reach0 -= reach0 / 14
    plus0 -= plus0 / 14
    minus0 -= minus0 / 14

    (top, bottom), raws, slows = stochastic
    raw_sum = None if raws[-2] is None or raws[-1] is None else 0.0 + raws[-2] + raws[-1]
    slow_sum = None if slows[-2] is None or slows[-1] is None else 0.0 + slows[-2] + slows[-1]

    # Conditional expressions instead of min and max: a call costs as much as three additions.
    def look(bar: Point) -> Values:
        close, high, low, price = bar.c, bar.h, bar.l, bar.fc
        move = close - last

        fast = fast0 + fast_a * (price - fast0)
        slow = slow0 + slow_a * (price - slow0)
        macd = fast - slow
        signal = signal0 + signal_a * (macd - signal0)

        change = move / ps
        if change > 0:
            gain = gain0 + (change - gain0) / 14
            loss = loss_kept
        else:
            gain = gain_kept
            loss = loss0 + (-change - loss0) / 14
        rsi = 100.0 if loss == 0 else 100.0 * gain / (gain + loss)

        closes = total + close
        deviation = sqrt((spread + move * (19 * move - twice)) / squared_scale)
        middle = closes / window_scale
        reach = 2.0 * deviation
        percent = None if deviation == 0 else 0.5 + (20 * close - closes) / window_scale / (2.0 * reach)

        typical = bar.tp
        typicals = typical_sum + typical
        far = 20 * typical - typicals
        rank = bisect_left(ranked, -(-typicals // 20))
        distance = abs(far) + apart[rank] + typicals * (2 * rank - 19)

        true_range = ((last if last > high else high) - (last if last < low else low)) / ps  # noqa: FURB136
        atr = atr0 + (true_range - atr0) / 14

        up, down = high - last_high, last_low - low
        ranges = reach0 + true_range
        plus, minus = plus0, minus0
        if up > down:
            if up > 0:
                plus += up / ps
        elif down > up and down > 0:
            minus += down / ps
        if ranges == 0:
            plus_di = minus_di = dx = 0.0
        else:
            plus_di, minus_di = 100.0 * plus / ranges, 100.0 * minus / ranges
            both = plus + minus
            dx = 0.0 if both == 0 else 100.0 * abs(plus - minus) / both

        highest = top if top > high else high  # noqa: FURB136
        lowest = bottom if bottom < low else low  # noqa: FURB136
        raw = d = slow_d = None
        if highest != lowest:
            raw = 100 * (close - lowest) / (highest - lowest)
            if raw_sum is not None:
                d = (raw_sum + raw) / 3
                if slow_sum is not None:
                    slow_d = (slow_sum + d) / 3

        return (
            middle,
            (long_total + close) / long_scale,
            fast,
            slow,
            rsi,
            macd, signal, macd - signal,
            middle + reach, middle, middle - reach, percent, 200.0 * reach / middle, deviation,
            atr, 100.0 * atr / price,
            adx0 + (dx - adx0) / 14, plus_di, minus_di,
            raw, d, d, slow_d,
            (obv0 - bar.v if move < 0 else obv0 + bar.v) / vs,
            None if distance == 0 else far * 20 / (0.015 * distance),
        )  # fmt: skip

    return look

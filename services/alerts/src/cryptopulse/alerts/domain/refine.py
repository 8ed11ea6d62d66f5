"""Which bars of a dry run must be walked by their minutes: those in which something may be crossed. In all others the longer
bar tells what its minutes would, so that months are tried on a few pages of minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.thresholds import path
from cryptopulse.alerts.domain.trailing import TrailingBook
from cryptopulse.alerts.domain.wiring import LeafView
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.http.alert_conditions import (
    WINDOW_MS,
    PctChange,
    PriceRange,
    PriceThreshold,
    Trailing,
)
from cryptopulse.common.contracts.intervals import Interval, length_ms

AHEAD: Final = 16
"""Bars of a trailing rule that are asked for at once."""
HUNDRED: Final = Decimal(100)
SLACK: Final = Decimal("1.000000001")
"""The engine compares changes in floats: a bound that is this near counts as reached."""


def coarse_interval(definition: RuleDefinition) -> Interval | None:
    """The bars to begin with: hours for fixed thresholds, quarters of an hour for what follows the price.

    None when longer bars cannot stand for minutes: bars of their own, holding times, composites of changes.
    """
    if definition.for_seconds or definition.trigger == "once_per_bar_close":
        return None
    leaves = definition.leaves
    if all(isinstance(leaf, (PriceThreshold, PriceRange)) or _is_anchored(leaf) for leaf in leaves):
        return "1h"
    if len(leaves) > 1 or definition.is_composite or definition.hysteresis or definition.notify_resolved:
        return None
    return "15m" if isinstance(leaves[0], (PctChange, Trailing)) else None


def bars_to_refine(
    definition: RuleDefinition, bars: Sequence[Candle], minutes: Mapping[int, Sequence[Candle]]
) -> list[Candle]:
    """The bars, of those of `coarse_interval` without holes (oldest first), in which something may be crossed, and what their
    windows need. `minutes` are those that are known, by their bar's opening time; ask again with more until nothing is wanted.
    """
    if not bars:
        return []
    leaf = definition.leaves[0]
    if isinstance(leaf, Trailing):
        return _by_extreme(definition, leaf, bars, minutes)
    if isinstance(leaf, PctChange) and not _is_anchored(leaf):
        found = _by_window(leaf, bars)
    else:
        found = _by_levels(definition, bars)
    return [bar for bar in found if bar.open_time not in minutes]


def _is_anchored(leaf: object) -> bool:
    return isinstance(leaf, PctChange) and leaf.ref == "since_created"


def _by_levels(definition: RuleDefinition, bars: Sequence[Candle]) -> list[Candle]:
    """Fixed thresholds: the bars whose range, with the close before, holds one."""
    levels: list[Decimal] = []
    for leaf in definition.leaves:
        wires = LeafView(leaf, definition, "", bars[0].open).wires(track=True)
        levels += [wire.threshold for wire in wires if isinstance(wire.threshold, Decimal)]
    found = []
    before: Decimal | None = None
    for bar in bars:
        low, high = min(bar.low, before or bar.low), max(bar.high, before or bar.high)
        if any(low <= level <= high for level in levels):
            found.append(bar)
        before = bar.close
    return found


def _by_window(change: PctChange, bars: Sequence[Candle]) -> list[Candle]:
    """A rolling change: the bars whose extremes lie far enough from those of the window before, with the window's bars."""
    back = -(-WINDOW_MS[change.window or "1h"] // length_ms(bars[0].interval))
    least = 1 + change.pct / HUNDRED
    wanted: set[int] = set()
    for at, bar in enumerate(bars):
        first = max(0, at - back)
        span = bars[first : at + 1]
        rises = bar.high * SLACK >= min(part.low for part in span) * least
        falls = bar.low <= max(part.high for part in span) * (2 - least) * SLACK
        if (rises and change.direction != "down") or (falls and change.direction != "up"):
            wanted.update(range(first, at + 1))
    return [bars[at] for at in sorted(wanted)]


def _by_extreme(
    definition: RuleDefinition,
    trailing: Trailing,
    bars: Sequence[Candle],
    minutes: Mapping[int, Sequence[Candle]],
) -> list[Candle]:
    """A trailing rule, followed as the engine does: its extreme is exact up to the first bar that must be refined.

    From there on the extreme is a guess (it fires and follows anew from the close), to name the next bars in the same round.
    """
    book = TrailingBook[str](from_high=trailing.from_ == "high")
    value = bars[0].open
    book.add("", trailing.pct, value)
    found: list[Candle] = []
    for bar in bars:
        parts = minutes.get(bar.open_time)
        if parts is not None:
            for part in parts:
                for price in path(value, part.low, part.high, part.close):
                    assert isinstance(price, Decimal)
                    for _ in book.move(price):
                        if definition.trigger == "once" and not found:
                            return []  # it is over
                        book.add("", trailing.pct, price)
                value = part.close
        elif book.stays(bar.low, bar.high):
            book.pass_through(bar.low, bar.high, bar.close)
        else:
            found.append(bar)
            if len(found) == AHEAD:
                break
            book.remove("")
            book.add("", trailing.pct, bar.close)
        value = bar.close
    return found

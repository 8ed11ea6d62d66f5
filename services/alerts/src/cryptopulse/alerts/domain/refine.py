"""Which bars of a dry run must be walked by their minutes: those in which something may be crossed. In all others the longer
bar tells what its minutes would, so that months are tried on a few pages of minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from cryptopulse.alerts.domain.definition import RuleDefinition
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


def bars_to_refine(definition: RuleDefinition, bars: Sequence[Candle]) -> list[Candle]:
    """The bars, of those of `coarse_interval` without holes (oldest first), in which something may be crossed, and what their
    windows need.
    """
    if not bars:
        return []
    leaf = definition.leaves[0]
    if isinstance(leaf, Trailing):
        return _by_extreme(leaf, bars)
    if isinstance(leaf, PctChange) and not _is_anchored(leaf):
        return _by_window(leaf, bars)
    return _by_levels(definition, bars)


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


def _by_extreme(trailing: Trailing, bars: Sequence[Candle]) -> list[Candle]:
    """A trailing rule: its extreme is known between bounds, exactly while nothing can have fired.

    Told for a fall from the high; for a rise from the low everything is turned over (prices times -1).
    """
    sign = 1 if trailing.from_ == "high" else -1
    share = 1 - sign * trailing.pct / HUNDRED
    found: list[Candle] = []
    surely = possibly = sign * bars[0].open
    for bar in bars:
        top, bottom = (bar.high, bar.low) if sign > 0 else (-bar.low, -bar.high)
        close = sign * bar.close
        if max(possibly, top) * share < bottom:
            surely, possibly = max(surely, top), max(possibly, top)
            continue
        found.append(bar)
        if surely * share >= bottom:  # it fired, and follows anew from somewhere in this bar
            surely, possibly = close, top
        else:
            surely, possibly = close, max(possibly, top)
    return found

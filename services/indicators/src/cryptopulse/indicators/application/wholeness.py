"""Which consolidated minutes are whole: they know no trade numbers, so the bars of their venues say it (docs/adr/0014)."""

from __future__ import annotations

from collections.abc import Sequence

from cryptopulse.common.contracts.intervals import MINUTE_MS
from cryptopulse.indicators.application.market_state import TargetState, VenueState
from cryptopulse.indicators.domain.bars import Bar
from cryptopulse.indicators.domain.candle_series import KEPT, CandleSeries, Witness


def are_whole(venues: Sequence[VenueState], open_ms: int) -> bool | None:
    """Whether the venues have all of the minute that opens then, of those that are at hand; None when none has any of it."""
    bars = [bar for venue in venues if (bar := venue.series.closed_minute(open_ms)) is not None]
    if not bars:
        return None
    return all(bar.complete for bar in bars) and not any(venue.series.lacks(open_ms) for venue in venues)


def witness_of(target: TargetState, venues: Sequence[VenueState]) -> Witness:
    """As `are_whole`, and False for a minute of which not all trades could be counted."""

    def is_whole(open_ms: int) -> bool | None:
        whole = are_whole(venues, open_ms)
        return None if whole is None else whole and open_ms not in target.spoiled

    return is_whole


def reached(series: CandleSeries, bar: Bar) -> range:
    """Open times of what a closed or corrected minute of a venue says something of: itself, and the hole before it."""
    before = [other.open_time for other in series.kept["1m"] if other.open_time < bar.open_time]
    start = before[-1] + MINUTE_MS if before else bar.open_time
    return range(max(start, bar.open_time - KEPT["1m"] * MINUTE_MS), bar.open_time + MINUTE_MS, MINUTE_MS)

"""The rolling 24 hours of one (symbol, source): high, low, volume and the price a day ago, by minutes."""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal
from typing import Final

from cryptopulse.common.contracts.intervals import DAY_MS, MINUTE_MS
from cryptopulse.indicators.domain.bars import EXACT, ZERO, Bar

HUNDRED: Final = Decimal(100)
SHOWN_PLACES: Final = Decimal("0.0001")
LEAST_SPAN_MS: Final = 23 * 3_600_000
"""With less history than this a 24 h change is not told."""


class DayStats:
    """Closed minutes of the last day; the forming minute is added at the moment of asking. O(1) to read.

    Figures are recomputed once per closed minute.
    """

    __slots__ = ("_bars", "_high", "_low", "_times", "_volume")

    def __init__(self) -> None:
        self._bars: list[tuple[Decimal, Decimal, Decimal, Decimal]] = []
        self._times: list[int] = []
        self._high: Decimal | None = None
        self._low: Decimal | None = None
        self._volume = ZERO

    def load(self, rows: list[tuple[int, Decimal, Decimal, Decimal, Decimal]]) -> None:
        """Replace everything by rows of (open_time, high, low, close, volume), oldest first."""
        self._times = [row[0] for row in rows]
        self._bars = [row[1:] for row in rows]
        self._recompute()

    def take(self, bar: Bar) -> None:
        """A minute closed, or was corrected."""
        row = (bar.high, bar.low, bar.close, bar.volume)
        times = self._times
        if times and bar.open_time <= times[-1]:
            index = bisect_right(times, bar.open_time) - 1
            if index >= 0 and times[index] == bar.open_time:
                self._bars[index] = row
            else:
                times.insert(index + 1, bar.open_time)
                self._bars.insert(index + 1, row)
        else:
            times.append(bar.open_time)
            self._bars.append(row)
        gone = bisect_right(times, times[-1] + MINUTE_MS - DAY_MS - 1)
        if gone > 1:
            # One bar before the day stays: its close is the price a day ago.
            del times[: gone - 1]
            del self._bars[: gone - 1]
        self._recompute()

    def _recompute(self) -> None:
        if not self._times:
            self._high = self._low = None
            self._volume = ZERO
            return
        start = self._times[-1] + MINUTE_MS - DAY_MS
        inside = [bar for time, bar in zip(self._times, self._bars, strict=True) if time >= start]
        self._high = max(bar[0] for bar in inside)
        self._low = min(bar[1] for bar in inside)
        total = ZERO
        for bar in inside:
            total = EXACT.add(total, bar[3])
        self._volume = total

    def figures(
        self, price: Decimal, now_ms: int, forming: Bar | None
    ) -> tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]:
        """(change in percent, high, low, volume) of the last 24 hours with the forming minute in it."""
        high, low, volume = self._high, self._low, self._volume
        if forming is not None:
            high = forming.high if high is None else max(high, forming.high)
            low = forming.low if low is None else min(low, forming.low)
            volume = EXACT.add(volume, forming.volume)
        if high is None or low is None:
            return None, None, None, None
        return self._change(price, now_ms), max(high, price), min(low, price), volume

    def _change(self, price: Decimal, now_ms: int) -> Decimal | None:
        times = self._times
        if not times or now_ms - times[0] < LEAST_SPAN_MS:
            return None
        index = max(0, bisect_right(times, now_ms - DAY_MS - MINUTE_MS) - 1)
        before = self._bars[index][2]
        return ((price - before) * HUNDRED / before).quantize(SHOWN_PLACES)

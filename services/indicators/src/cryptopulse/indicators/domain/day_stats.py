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

    A new minute costs O(1), unless the day's high or low leaves with the oldest one. The volume is exact.
    """

    __slots__ = ("_bars", "_first", "_high", "_low", "_times", "_volume")

    def __init__(self) -> None:
        self._bars: list[tuple[Decimal, Decimal, Decimal, Decimal]] = []
        self._times: list[int] = []
        self._high: Decimal | None = None
        self._low: Decimal | None = None
        self._volume = ZERO
        self._first = 0
        """Index of the oldest minute inside the day; the one before it tells the price a day ago."""

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
            self._correct(bar.open_time, row)
            return
        times.append(bar.open_time)
        self._bars.append(row)
        self._volume = EXACT.add(self._volume, bar.volume)
        self._high = bar.high if self._high is None else max(self._high, bar.high)
        self._low = bar.low if self._low is None else min(self._low, bar.low)
        self._let_go(bar.open_time + MINUTE_MS - DAY_MS)

    def _let_go(self, start: int) -> None:
        """Minutes that open before `start` leave the day."""
        scan = False
        while self._times[self._first] < start:
            high, low, _, volume = self._bars[self._first]
            self._volume = EXACT.subtract(self._volume, volume)
            scan = scan or high == self._high or low == self._low
            self._first += 1
        if scan:
            inside = self._bars[self._first :]
            self._high = max(bar[0] for bar in inside)
            self._low = min(bar[1] for bar in inside)
        if self._first > 256:
            # One bar before the day stays: its close is the price a day ago.
            cut = self._first - 1
            del self._times[:cut]
            del self._bars[:cut]
            self._first = 1

    def _correct(self, open_time: int, row: tuple[Decimal, Decimal, Decimal, Decimal]) -> None:
        index = bisect_right(self._times, open_time) - 1
        if index >= 0 and self._times[index] == open_time:
            self._bars[index] = row
        else:
            self._times.insert(index + 1, open_time)
            self._bars.insert(index + 1, row)
        self._recompute()

    def _recompute(self) -> None:
        if not self._times:
            self._high = self._low = None
            self._volume, self._first = ZERO, 0
            return
        start = self._times[-1] + MINUTE_MS - DAY_MS
        self._first = bisect_right(self._times, start - 1)
        inside = self._bars[self._first :]
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

"""Finds minutes that are missing, incomplete or came too late, and asks the ingestor for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from cryptopulse.common.contracts.intervals import DAY_MS
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.ports import CandleStore, HistoryRequests
from cryptopulse.indicators.domain.candle_series import CandleSeries
from cryptopulse.indicators.domain.history import holes

log = get_logger(__name__)
HOLE_WINDOW_MS: Final = DAY_MS
HOLE_WAITS_MS: Final = (60_000, 600_000, 3_600_000)
MOST_REMEMBERED: Final = 10_000


class HoleSearch:
    """Remembers what was asked for: each range a few times at most, with growing waits."""

    def __init__(self, store: CandleStore, requests: HistoryRequests) -> None:
        self._store = store
        self._requests = requests
        self._asked: dict[tuple[str, str, int, int], tuple[int, int]] = {}

    async def ask(
        self, series: Iterable[CandleSeries], late: Collection[tuple[str, str, int]], *, now_ms: int
    ) -> None:
        """Ask for holes of these venue series and for minutes (venue, symbol, open time) that had late trades."""
        wanted = [(venue, symbol, minute, minute + 60_000) for venue, symbol, minute in late]
        for one in series:
            start = one.open_from
            if start is None:
                continue
            rows = await self._store.range(
                one.symbol,
                one.source,
                "1m",
                from_ms=start - HOLE_WINDOW_MS,
                to_ms=start - 120_000,
                limit=1_500,
            )
            wanted += [(one.source, one.symbol, a, b) for a, b in holes(rows, "1m", most=3)]
        for place in wanted:
            times, at = self._asked.get(place, (0, 0))
            if times >= len(HOLE_WAITS_MS) or now_ms - at < HOLE_WAITS_MS[times - 1] * bool(times):
                continue
            name, symbol, first, last = place
            try:
                await self._requests.ask(symbol, "1m", first, last, venue=name, reason="hole")
            except UpstreamUnavailable as error:
                log.info("hole not asked for", symbol=symbol, error=str(error)[:200])
                return
            self._asked[place] = (times + 1, now_ms)
        while len(self._asked) > MOST_REMEMBERED:
            del self._asked[next(iter(self._asked))]

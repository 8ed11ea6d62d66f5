"""Backfilled candles in: stored, longer bars derived, venues merged into consolidated ones (step 8).

Everything is an upsert that may be done twice: a message that comes again changes nothing. Where bars were built from
trades already the venue's own are their judge: equal ones are verified, others are corrected and counted. The reference
source's candles stand under its name alone: they never enter a consolidated bar.
"""

from __future__ import annotations

from typing import Final, cast

from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.intervals import Interval, next_open, open_time
from cryptopulse.common.contracts.values import CONSOLIDATED, REFERENCE
from cryptopulse.common.telemetry import metrics
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.build_candles import RATE_ASSETS, converts
from cryptopulse.indicators.application.ports import CandleStore, Changed
from cryptopulse.indicators.domain.history import (
    DERIVED,
    REFERENCE_DERIVED,
    converted,
    derive,
    merge_venues,
)

FROM_VENUE: Final = 1
FROM_TICKS: Final = 0
MERGED: Final = -1
USD: Final = "USD"
MOST_ROWS: Final = 5_000
CONVERT_ROWS: Final = 1_000

log = get_logger(__name__)
checked_total = metrics.counter(
    "cryptopulse_candles_checked_total",
    "Complete candles built from trades that were compared with the venue's own",
    ("venue", "outcome"),
)


class HistoryKeeper:
    """Stores history for the owner of a shard."""

    def __init__(
        self, store: CandleStore, epoch: int, without_rate: dict[str, tuple[int, int]] | None = None
    ) -> None:
        self._store = store
        self._epoch = epoch
        self.without_rate = {} if without_rate is None else without_rate
        """See `MarketState.without_rate`: kept by the caller, changed here."""
        self._tried: dict[str, tuple[int, int]] = {}

    async def take(self, batch: HistoryBatch, *, again: bool = False) -> list[Changed]:
        """Store a batch and what follows from it; answers every bar that was made or changed.

        With `again` what follows is done even if the batch is stored: an owner before us may have ended between.
        """
        rows = sorted((row for row in batch.candles if row.closed), key=lambda row: row.open_time)
        if not rows:
            return []
        await self._check(batch, rows)
        changed = await self._store.upsert(rows, origin=FROM_VENUE, epoch=self._epoch)
        if not changed and not again:
            return []
        found = list(changed)
        start, end = rows[0].open_time, rows[-1].open_time
        if batch.venue != REFERENCE:
            found += await self._consolidate(batch.symbol, batch.interval, start, end)
        found += await self._derive(batch.symbol, batch.venue, batch.interval, start, end)
        return found

    async def _check(self, batch: HistoryBatch, rows: list[Candle]) -> None:
        checked = await self._store.check(rows, epoch=self._epoch)
        wrong = [at for at, is_equal in checked.items() if not is_equal]
        checked_total.labels(batch.venue, "equal").inc(len(checked) - len(wrong))
        checked_total.labels(batch.venue, "different").inc(len(wrong))
        if wrong:
            log.warning(
                "candles differ from the venue's own: corrected",
                venue=batch.venue,
                symbol=batch.symbol,
                interval=batch.interval,
                open_times=wrong[:10],
                count=len(wrong),
            )

    async def _derive(
        self, symbol: str, venue: str, interval: Interval, start: int, end: int
    ) -> list[Changed]:
        """Fold the longer bars of a range anew, and those that rest on what changed by that."""
        found: list[Changed] = []
        table = REFERENCE_DERIVED if venue == REFERENCE else DERIVED
        for longer in table.get(interval, ()):
            first, last = open_time(start, longer), next_open(open_time(end, longer), longer)
            base = await self._store.range(
                symbol, venue, interval, from_ms=first, to_ms=last, limit=MOST_ROWS
            )
            made = await self._store.upsert(derive(base, longer), origin=FROM_TICKS, epoch=self._epoch)
            found += made
            if made:
                if venue != REFERENCE:
                    found += await self._consolidate(symbol, longer, first, last - 1)
                found += await self._derive(symbol, venue, longer, first, last - 1)
        return found

    async def _consolidate(self, symbol: str, interval: Interval, start: int, end: int) -> list[Changed]:
        base, _, quote = symbol.partition("-")
        found: list[Changed] = []
        if quote != USD:
            rows = await self._of_venues(symbol, interval, start, end)
            found += await self._store.upsert(merge_venues(symbol, rows), origin=MERGED, epoch=self._epoch)
        if converts(base, quote):
            made, missing = await self._price_in_usd(base, interval, start, end)
            found += made
            for name, times in missing.items():
                key = f"{base}-{USD}|{name}|{interval}"
                first, last = self.without_rate.get(key, (times[0], times[-1]))
                self.without_rate[key] = (min(first, times[0]), max(last, times[-1]))
        return found

    async def _of_venues(
        self, symbol: str, interval: Interval, start: int, end: int
    ) -> dict[str, list[Candle]]:
        sources = [
            source for source in await self._store.sources(symbol) if source not in (CONSOLIDATED, REFERENCE)
        ]
        return {
            source: await self._store.range(
                symbol, source, interval, from_ms=start, to_ms=end + 1, limit=MOST_ROWS
            )
            for source in sources
        }

    async def _price_in_usd(
        self, base: str, interval: Interval, start: int, end: int
    ) -> tuple[list[Changed], dict[str, list[int]]]:
        """Merge all pairs of an asset over all venues into its price in USD, as ticks are.

        Answers what was made or changed and, by quote, the open times of bars that have no rate yet and are left out.
        """
        symbol = f"{base}-{USD}"
        rows = await self._of_venues(symbol, interval, start, end)
        missing: dict[str, list[int]] = {}
        for quote in RATE_ASSETS:
            if not converts(base, quote):
                continue
            pair = await self._of_venues(f"{base}-{quote}", interval, start, end)
            if not any(pair.values()):
                continue
            rates = await self._store.range(
                f"{quote}-{USD}", CONSOLIDATED, interval, from_ms=start, to_ms=end + 1, limit=MOST_ROWS
            )
            closes = {rate.open_time: rate.close for rate in rates}
            for venue, bars in pair.items():
                rows[f"{venue}:{quote}"] = converted(symbol, bars, closes)
            times = {bar.open_time for bars in pair.values() for bar in bars} - closes.keys()
            if times:
                missing[quote] = sorted(times)
        merged = merge_venues(symbol, rows)
        return await self._store.upsert(merged, origin=MERGED, epoch=self._epoch), missing

    async def merge(self, symbol: str, first: int, last: int) -> list[Changed]:
        """Merge stored minutes of the venues, by open time, into consolidated ones, and the longer bars over them."""
        found = await self._consolidate(symbol, "1m", first, last)
        for longer in DERIVED["1m"]:
            start, end = open_time(first, longer), next_open(open_time(last, longer), longer)
            found += await self._consolidate(symbol, longer, start, end - 1)
        return found

    async def convert_late(self) -> list[Changed]:
        """Convert stored bars whose rate's history came after their own; answers every bar that was made or changed."""
        found: list[Changed] = []
        for key, span in list(self.without_rate.items()):
            symbol, quote, interval = key.split("|")
            ends = await self._ends(f"{quote}-{USD}", cast("Interval", interval), *span)
            if ends is None or ends == self._tried.get(key):
                continue
            base = symbol.partition("-")[0]
            made, missing = await self._convert_span(base, quote, cast("Interval", interval), *span)
            found += made
            self._tried[key] = ends
            if self.without_rate.get(key) != span:
                del self._tried[key]  # more came meanwhile: the next round looks again
            elif missing:
                self.without_rate[key] = (missing[0], missing[-1])
            else:
                del self.without_rate[key]
        return found

    async def _ends(self, rate: str, interval: Interval, first: int, last: int) -> tuple[int, int] | None:
        """The oldest and the newest stored rate of a span."""
        oldest = await self._store.range(rate, CONSOLIDATED, interval, from_ms=first, to_ms=last + 1, limit=1)
        newest = await self._store.range(rate, CONSOLIDATED, interval, from_ms=None, to_ms=last + 1, limit=1)
        return (oldest[0].open_time, newest[0].open_time) if oldest else None

    async def _convert_span(
        self, base: str, quote: str, interval: Interval, first: int, last: int
    ) -> tuple[list[Changed], list[int]]:
        found: list[Changed] = []
        missing: list[int] = []
        while first <= last:
            rows = await self._store.range(
                f"{base}-{quote}",
                CONSOLIDATED,
                interval,
                from_ms=first,
                to_ms=last + 1,
                limit=CONVERT_ROWS,
            )
            if not rows:
                break
            made, without = await self._price_in_usd(base, interval, rows[0].open_time, rows[-1].open_time)
            found += made
            missing += without.get(quote, [])
            first = rows[-1].open_time + 1
        return found, missing

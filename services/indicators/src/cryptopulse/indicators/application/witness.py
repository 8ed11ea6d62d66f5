"""A running self-check: now and then one live series is compared with `ta` over the same stored bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.telemetry import metrics
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.ports import CandleStore
from cryptopulse.indicators.application.update_indicators import IndicatorBook, Key
from cryptopulse.indicators.domain.ta_catalogue import WITNESS_BARS, disagreements

log = get_logger(__name__)
checks_total = metrics.counter("cryptopulse_witness_checks_total", "Live series compared with the ta package")
mismatches_total = metrics.counter(
    "cryptopulse_witness_mismatches_total", "Live series that disagreed with the ta package and were rebuilt"
)


class TaWitness(Protocol):
    """Newest values by another implementation. Raises `UpstreamUnavailable`."""

    async def witness(self, bars: Sequence[Candle]) -> dict[str, float | None]: ...


class WitnessRound:
    """Goes round the live series, one a time."""

    def __init__(self, store: CandleStore, engine: TaWitness) -> None:
        self._store = store
        self._engine = engine
        self._turn = 0

    async def check_one(self, books: Iterable[IndicatorBook]) -> bool | None:
        """Compare the next series. None when there was nothing to compare, False when it disagreed."""
        places = [
            (book, key)
            for book in books
            for key, live in sorted(book.series.items())
            if live.core is not None and key not in book.dirty and live.core.window.count >= WITNESS_BARS
        ]
        if not places:
            return None
        book, key = places[self._turn % len(places)]
        self._turn += 1
        return await self._compare(book, key)

    async def _compare(self, book: IndicatorBook, key: Key) -> bool | None:
        live = book.series[key]
        core = live.core
        if core is None or core.last_open is None or core.last_open not in live.finals:
            return None
        last = core.last_open
        ours = dict(zip(core.names, live.finals[last], strict=True))
        bars = await self._store.range(*key, from_ms=None, to_ms=last + 1, limit=WITNESS_BARS)
        if len(bars) < WITNESS_BARS or bars[-1].open_time != last:
            return None
        theirs = await self._engine.witness(bars)
        checks_total.inc()
        wrong = disagreements(ours, theirs, float(bars[-1].close))
        if not wrong:
            return True
        mismatches_total.inc()
        log.error("series disagrees with its witness: rebuilt", series="|".join(key), outputs=sorted(wrong))
        book.mark(key, last)
        return False

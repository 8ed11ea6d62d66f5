"""What the indicator service does with many series: a look at all forming bars, a start from stored bars and from saved states."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, cast

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.indicators.application.ports import CandleStore
from cryptopulse.indicators.application.update_indicators import (
    IndicatorBook,
    Key,
    LiveSeries,
    point_of,
    scale_of,
)
from cryptopulse.indicators.domain.bars import Bar
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.registry import live_studies
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved, sized

INTERVALS: Final[tuple[Interval, ...]] = ("1m", "5m", "15m", "30m", "1h", "4h", "12h", "1d")
SYMBOLS: Final = sized(1_000, 20)
WARM_SERIES: Final = sized(100, 4)
WARM_BARS: Final = 300
PAUSE_EVERY: Final = 500


class Stored:
    """Candles in memory in place of the database: what is measured is the work on them."""

    def __init__(self, bars: Sequence[Bar]) -> None:
        self._bars = bars

    async def range(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[Candle]:
        """The newest `limit`, whatever the range."""
        del from_ms, to_ms
        return [bar.candle(symbol, source, interval, closed=True) for bar in self._bars[-limit:]]


async def service_rows(bars: list[Bar]) -> list[Row]:
    """The sweep over a whole market, and the two ways to start."""
    closed, forming = bars[:-1], bars[-1]
    book = _a_market_of(closed)
    rows = await interleaved(
        "indicators-sweep",
        "series/s",
        [
            Contender(
                f"{SYMBOLS:,} symbols x {len(INTERVALS)} intervals, all outputs",
                lambda: _sweep(book, forming),
            )
        ],
        rounds=3,
    )
    stored = closed[-WARM_BARS:]
    rows += await interleaved(
        "indicators-start",
        "series/s",
        [
            Contender(f"from saved states, {WARM_BARS} bars of window", lambda: _restored(stored)),
            Contender(f"folded anew from {WARM_BARS} stored bars", lambda: _folded(stored)),
        ],
        rounds=3,
        warmup=0,
    )
    return rows


def _core(closed: Sequence[Bar], interval: Interval) -> IndicatorSeries:
    core = IndicatorSeries(live_studies(interval), scale_of(closed))
    for bar in closed:
        core.commit(point_of(bar, interval, core.scale))
    return core


def _a_market_of(closed: Sequence[Bar]) -> IndicatorBook:
    """A book with every series of the market; each has state of its own."""
    book = IndicatorBook(cast("CandleStore", Stored(closed)))
    for interval in INTERVALS:
        core = _core(closed, interval)
        for number in range(SYMBOLS):
            live = LiveSeries()
            live.core = core.twin()
            book.series[f"C{number}-USD", "consolidated", interval] = live
    return book


async def _sweep(book: IndicatorBook, forming: Bar) -> Sample:
    """All forming bars looked at once, as the service does every second; seconds of CPU are those of one sweep."""
    watch = Stopwatch()
    now_ms = forming.open_time + 30_000
    found = 0
    for number, key in enumerate(book.series):
        found += book.provisional(key, forming, now_ms=now_ms) is not None
        if number % PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    sample = watch.sample(len(book.series))
    if found != len(book.series):
        raise RuntimeError(f"{found} of {len(book.series)} series had values")
    return with_figures(sample, {"CPU s a sweep": sample.cpu_seconds})


def with_figures(sample: Sample, extra: dict[str, float]) -> Sample:
    """The sample with figures of its own."""
    return Sample(sample.items, sample.cpu_seconds, sample.wall_seconds, extra)


async def _folded(stored: Sequence[Bar]) -> Sample:
    book = IndicatorBook(cast("CandleStore", Stored(stored)))
    keys: list[Key] = [(f"C{number}-USD", "consolidated", "1m") for number in range(WARM_SERIES)]
    watch = Stopwatch()
    for key in keys:
        book.series[key], book.dirty[key] = LiveSeries(), None
        await book.rebuild(key)
    sample = watch.sample(len(keys))
    return with_figures(sample, {"CPU s for 5,000": 5_000 * sample.cpu_seconds / len(keys)})


async def _restored(stored: Sequence[Bar]) -> Sample:
    first = IndicatorBook(cast("CandleStore", Stored(stored)))
    core = _core(stored, "1m")
    for number in range(WARM_SERIES):
        live = LiveSeries()
        key: Key = (f"C{number}-USD", "consolidated", "1m")
        live.core = core
        first.series[key] = live
        first.changed.add(key)
    states = first.take_states()
    second = IndicatorBook(cast("CandleStore", Stored(stored)))
    watch = Stopwatch()
    restored = await second.restore(states, [])
    sample = watch.sample(len(states))
    if restored != WARM_SERIES:
        raise RuntimeError(f"{restored} of {WARM_SERIES} series were restored")
    return with_figures(sample, {"CPU s for 5,000": 5_000 * sample.cpu_seconds / len(states)})

"""Candles and indicators on request: stored bars with the forming one, and the same fold over them that live values are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import Interval, length_ms, next_open
from cryptopulse.common.contracts.values import plain
from cryptopulse.indicators.application.ports import HistoryStore, PlainCandle
from cryptopulse.indicators.application.update_indicators import WARM_BARS, point_of, points_of
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.points import RING
from cryptopulse.indicators.domain.registry import live_studies
from cryptopulse.indicators.domain.study import Study
from cryptopulse.indicators.domain.ta_catalogue import TaDefinition

FOLD_SLICE: Final = 100


class Valued(NamedTuple):
    """The final values of indicators at a closed bar."""

    open_time: int
    close: Decimal
    values: dict[str, float | None]


def plain_candle(candle: Candle) -> PlainCandle:
    """A candle as the API tells it."""
    return PlainCandle(
        open_time=candle.open_time,
        open=plain(candle.open),
        high=plain(candle.high),
        low=plain(candle.low),
        close=plain(candle.close),
        volume=plain(candle.volume),
        quote_volume=plain(candle.quote_volume),
        trades=candle.trades,
        taker_buy_volume=plain(candle.taker_buy_volume),
        closed=candle.closed,
        complete=candle.complete,
        revision=candle.revision,
        simulated=candle.simulated,
    )


class LiveValues(Protocol):
    """What owners of shards wrote last. Raises `StoreUnavailable`."""

    async def forming(self, symbol: str, source: str, interval: Interval) -> list[Candle]: ...
    async def values(self, symbol: str, source: str, interval: Interval) -> IndicatorUpdate | None: ...


class TaSeries(Protocol):
    """Indicators by the `ta` package. Raises `UpstreamUnavailable`."""

    async def series(
        self, name: str, parameters: Mapping[str, float], bars: Sequence[Candle], binding: tuple[str, ...]
    ) -> dict[str, list[float | None]]: ...


class HistoryQueries:
    """Reads for HTTP."""

    def __init__(self, store: HistoryStore, live: LiveValues, ta: TaSeries | None = None) -> None:
        self._store = store
        self._live = live
        self._ta = ta

    async def by_ta(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        definition: TaDefinition,
        parameters: Mapping[str, float],
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[Valued]:
        """Values of an indicator of `ta` at the closed bars of a range, warmed up on the bars before it."""
        if self._ta is None:
            return []
        before, wanted = await self._spans(
            symbol, source, interval, definition.bars_needed(parameters), from_ms, to_ms, limit
        )
        bars = [*before, *wanted]
        found = await self._ta.series(definition.name, parameters, bars, (symbol, source, interval))
        start = len(before)
        return [
            Valued(bar.open_time, bar.close, {name: values[start + index] for name, values in found.items()})
            for index, bar in enumerate(wanted)
        ]

    async def _spans(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        lead: int,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> tuple[list[Candle], list[Candle]]:
        """The bars of a range, and up to `lead` before it."""
        if from_ms is None:
            rows = await self._store.range(
                symbol, source, interval, from_ms=None, to_ms=to_ms, limit=lead + limit
            )
            return rows[:-limit], rows[-limit:]
        before = await self._store.range(symbol, source, interval, from_ms=None, to_ms=from_ms, limit=lead)
        wanted = await self._store.range(symbol, source, interval, from_ms=from_ms, to_ms=to_ms, limit=limit)
        return before, wanted

    async def candles(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[PlainCandle]:
        """Bars of [from_ms, to_ms), oldest first, the forming one last; without `from_ms` the newest `limit`."""
        rows = await self._store.plain_range(
            symbol, source, interval, from_ms=from_ms, to_ms=to_ms, limit=limit
        )
        if from_ms is not None and len(rows) >= limit:
            return rows
        after = rows[-1].open_time if rows else -1
        for forming in await self._live.forming(symbol, source, interval):
            inside = (to_ms is None or forming.open_time < to_ms) and (
                from_ms is None or forming.open_time >= from_ms
            )
            if inside and forming.open_time > after:
                rows.append(plain_candle(forming))
                after = forming.open_time
        return rows[-limit:] if from_ms is None else rows[:limit]

    async def fold(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        studies: Sequence[Study],
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> tuple[list[Valued], int | None]:
        """Values of `studies` at the closed bars of a range, warmed up on the bars before it, and the fold's first bar.

        The same `commit` that live series use, over the stored bars.
        """
        scale, points, lead = await self._store.points(
            symbol,
            source,
            interval,
            from_ms=from_ms,
            to_ms=to_ms,
            limit=limit,
            lead=max(WARM_BARS, RING),
        )
        core = IndicatorSeries(studies, scale)
        found: list[Valued] = []
        for at, point in enumerate(points):
            values = core.commit(point)
            if at >= lead:
                named = dict(zip(core.names, values, strict=True))
                found.append(Valued(point.open_time, scale.decimal(point.c), named))
            if at % FOLD_SLICE == 0:
                await asyncio.sleep(0)
        return found, core.anchor

    async def newest(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        extra: Mapping[str, Study],
        *,
        closed_only: bool,
        now_ms: int,
    ) -> IndicatorUpdate | None:
        """The newest values: the live ones, or a fold over stored bars for what is not live. None without any bar."""
        live = None if closed_only else await self._live.values(symbol, source, interval)
        if live is not None and not extra:
            return live
        studies = [*live_studies(interval), *extra.values()] if live is None else list(extra.values())
        rows = await self._store.range(symbol, source, interval, from_ms=None, to_ms=None, limit=WARM_BARS)
        open_bars = [] if closed_only else await self._live.forming(symbol, source, interval)
        forming = open_bars[-1] if open_bars else None
        if forming is not None and rows and forming.open_time <= rows[-1].open_time:
            forming = None
        bars = [*rows, *([forming] if forming is not None else [])]
        if not bars:
            return None
        scale, points = points_of(bars, interval)
        core = IndicatorSeries(studies, scale)
        values: list[float | None] = []
        for count, point in enumerate(points[: len(rows)], 1):
            values = core.commit(point)
            if count % FOLD_SLICE == 0:
                await asyncio.sleep(0)
        last = bars[-1]
        as_of = next_open(last.open_time, interval)
        if forming is not None:
            as_of = min(max(now_ms, forming.open_time + 1), as_of)
            fraction = (as_of - forming.open_time) / length_ms(interval)
            values = core.provisional(
                point_of(forming, interval, core.scale, as_of=as_of, fraction=min(1.0, fraction))
            )
        named = dict(zip(core.names, values, strict=True))
        have = len(bars)
        return IndicatorUpdate(
            symbol=symbol,
            source=source,
            interval=interval,
            open_time=last.open_time,
            closed=forming is None,
            revision=last.revision,
            as_of_us=as_of * 1000,
            seq=0,
            values=named if live is None else {**live.values, **named},
            warmup=live.warmup if live is not None else core.warmup_at(have),
            close=float(last.close),
            simulated=last.simulated,
            anchor=core.anchor,
        )

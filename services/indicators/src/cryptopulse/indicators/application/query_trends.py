"""Market trends on request, from what owners of shards wrote: sorted sets of scores, latest prices and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.prices import PriceUpdate, is_stale
from cryptopulse.common.contracts.values import CONSOLIDATED, plain
from cryptopulse.indicators.application.ports import CandleStore
from cryptopulse.indicators.domain.trends import Column, Condition, correlate, share, trending

MOST_SYMBOLS: Final = 2_000


class Scanners(Protocol):
    """Scores by symbol, latest prices and values. Raises `StoreUnavailable`."""

    async def scores(self, name: str, quote: str, window: str) -> dict[str, float]: ...
    async def prices(self, wanted: Sequence[tuple[str, str]]) -> list[PriceUpdate | None]: ...
    async def all_values(self, symbols: Sequence[str], interval: Interval) -> dict[str, IndicatorUpdate]: ...


@dataclass(frozen=True, slots=True)
class Filter:
    """Which market: pairs of one quote that turned over enough in 24 hours."""

    quote: str
    min_quote_volume: float
    limit: int


class TrendQueries:
    """Reads for HTTP."""

    def __init__(self, scanners: Scanners, store: CandleStore) -> None:
        self._scanners = scanners
        self._store = store

    async def movers(self, which: Filter, window: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Gainers best first, losers worst first."""
        volumes = await self._liquid(which)
        changes = await self._scanners.scores("change", which.quote, window)
        liquid = {symbol: change for symbol, change in changes.items() if symbol in volumes}
        ranked = sorted(liquid.items(), key=lambda item: (-item[1], item[0]))
        gainers = [item for item in ranked if item[1] > 0][: which.limit]
        losers = [item for item in reversed(ranked) if item[1] < 0][: which.limit]
        rows = await self._rows([*gainers, *losers], volumes, liquid)
        return rows[: len(gainers)], rows[len(gainers) :]

    async def trending(self, which: Filter) -> list[dict[str, Any]]:
        """By score, with its parts."""
        volumes = await self._liquid(which)
        changes = await self._scanners.scores("change", which.quote, "1h")
        ratios = await self._scanners.scores("volume_ratio", which.quote, "1h")
        trades = await self._scanners.scores("trades", which.quote, "1h")
        ranked = trending(
            {symbol: value for symbol, value in changes.items() if symbol in volumes}, ratios, trades
        )[: which.limit]
        rows = await self._rows([(symbol, score) for symbol, score, _ in ranked], volumes, changes)
        for row, (_, _, parts) in zip(rows, ranked, strict=True):
            row["parts"] = parts
        return rows

    async def volume_spikes(self, which: Filter) -> list[dict[str, Any]]:
        """By the hour's volume against the twenty before, largest first."""
        volumes = await self._liquid(which)
        ratios = await self._scanners.scores("volume_ratio", which.quote, "1h")
        deviations = await self._scanners.scores("volume_zscore", which.quote, "1h")
        changes = await self._scanners.scores("change", which.quote, "1h")
        liquid = [(symbol, ratio) for symbol, ratio in ratios.items() if symbol in volumes]
        ranked = sorted(liquid, key=lambda item: (-item[1], item[0]))[: which.limit]
        rows = await self._rows(ranked, volumes, changes)
        for row in rows:
            symbol = row["symbol"]
            row["parts"] = {"volume_ratio": ratios[symbol]}
            if symbol in deviations:
                row["parts"]["volume_zscore"] = deviations[symbol]
        return rows

    async def breadth(self, which: Filter, now_us: int) -> dict[str, Any]:
        """How many rise, fall, stand above their means and at their day's extremes."""
        volumes = await self._liquid(which)
        symbols = sorted(volumes)
        day = await self._scanners.scores("change", which.quote, "24h")
        changes = [day[symbol] for symbol in symbols if symbol in day]
        hourly = await self._scanners.all_values(symbols, "1h")
        above: dict[str, list[bool]] = {"sma_50": [], "sma_200": []}
        strengths = []
        for update in hourly.values():
            for name, flags in above.items():
                mean = update.values.get(name)
                if mean is not None and update.close is not None:
                    flags.append(update.close > mean)
            strength = update.values.get("rsi_14")
            if strength is not None:
                strengths.append(strength)
        prices = await self._scanners.prices([(symbol, CONSOLIDATED) for symbol in symbols])
        known = [price for price in prices if price is not None and not is_stale(price.received_us, now_us)]
        turnover = sum(volumes[symbol] for symbol in symbols if symbol in day)
        weighted = sum(day[symbol] * volumes[symbol] for symbol in symbols if symbol in day)
        return {
            "symbols": len(symbols),
            "advancing": sum(change > 0 for change in changes),
            "declining": sum(change < 0 for change in changes),
            "unchanged": sum(change == 0 for change in changes),
            "above_sma_50": share(above["sma_50"]),
            "above_sma_200": share(above["sma_200"]),
            "rsi_overbought": share([value > 70 for value in strengths]),
            "rsi_oversold": share([value < 30 for value in strengths]),
            "new_highs_24h": sum(
                price.high_24h is not None and price.price >= price.high_24h for price in known
            ),
            "new_lows_24h": sum(
                price.low_24h is not None and price.price <= price.low_24h for price in known
            ),
            "volume_weighted_change_24h_pct": weighted / turnover if turnover else None,
        }

    async def turnover(self, which: Filter) -> dict[str, float]:
        """24 h volume in quote units of every liquid symbol."""
        return await self._liquid(which)

    async def correlation(
        self, symbols: Sequence[str], interval: Interval, window: int
    ) -> tuple[list[list[float | None]], int]:
        """The matrix in the order of `symbols`, and how many returns it rests on."""
        closes = []
        for symbol in symbols:
            rows = await self._store.range(
                symbol, CONSOLIDATED, interval, from_ms=None, to_ms=None, limit=window + 1
            )
            closes.append({row.open_time: row.close for row in rows})
        return correlate(closes, window)

    async def screen(
        self,
        which: Filter,
        conditions: Sequence[Condition],
        columns: Sequence[Column],
        sort: Column | None,
        *,
        descending: bool,
    ) -> tuple[list[dict[str, Any]], int]:
        """Symbols that meet every condition, with the columns asked for, and how many there are in all."""
        volumes = await self._liquid(which)
        symbols = sorted(volumes)[:MOST_SYMBOLS]
        wanted = list(dict.fromkeys([*(c.column for c in conditions), *columns, *([sort] if sort else [])]))
        by_interval = {
            interval: await self._scanners.all_values(symbols, interval)
            for interval in {column.interval for column in wanted}
        }

        def value(symbol: str, column: Column) -> float | None:
            update = by_interval[column.interval].get(symbol)
            return None if update is None else update.values.get(column.output)

        passed = [
            symbol
            for symbol in symbols
            if all(condition.holds(value(symbol, condition.column)) for condition in conditions)
        ]
        if sort is None:
            passed.sort(key=lambda symbol: -volumes[symbol])
        else:
            known = {symbol: found for symbol in passed if (found := value(symbol, sort)) is not None}
            ordered = sorted(known, key=lambda symbol: known[symbol], reverse=descending)
            passed = [*ordered, *(symbol for symbol in passed if symbol not in known)]
        page = passed[: which.limit]
        prices = await self._scanners.prices([(symbol, CONSOLIDATED) for symbol in page])
        rows = [
            {
                "symbol": symbol,
                "price": None if price is None else plain(price.price),
                "quote_volume_24h": volumes[symbol],
                "values": {column.name: value(symbol, column) for column in wanted},
            }
            for symbol, price in zip(page, prices, strict=True)
        ]
        return rows, len(passed)

    async def _liquid(self, which: Filter) -> dict[str, float]:
        volumes = await self._scanners.scores("quote_volume", which.quote, "24h")
        return {symbol: volume for symbol, volume in volumes.items() if volume >= which.min_quote_volume}

    async def _rows(
        self, ranked: Sequence[tuple[str, float]], volumes: dict[str, float], changes: dict[str, float]
    ) -> list[dict[str, Any]]:
        prices = await self._scanners.prices([(symbol, CONSOLIDATED) for symbol, _ in ranked])
        return [
            {
                "symbol": symbol,
                "price": None if price is None else plain(price.price),
                "score": score,
                "change_pct": changes.get(symbol),
                "quote_volume_24h": volumes.get(symbol),
                "parts": {},
            }
            for (symbol, score), price in zip(ranked, prices, strict=True)
        ]

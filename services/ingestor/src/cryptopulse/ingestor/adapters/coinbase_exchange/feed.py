"""Coinbase Exchange as a venue: its subscriptions, and its REST for products, candles and trades by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument
from cryptopulse.common.contracts.intervals import FIXED_MS, Interval
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.common.contracts.values import ValueRefusedError
from cryptopulse.common.errors import CryptoPulseError
from cryptopulse.ingestor.adapters.coinbase_exchange import messages as wire
from cryptopulse.ingestor.adapters.coinbase_exchange import parse
from cryptopulse.ingestor.adapters.rest import VenueHttp, segment
from cryptopulse.ingestor.application.ports import ConnectionRules, Quota
from cryptopulse.ingestor.domain.numbers import exact
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.output import Output
from cryptopulse.ingestor.domain.quota import PoolRule, Priority

CHANNELS: Final = ("matches", "ticker", "heartbeat")
PRODUCTS_PER_MESSAGE: Final = 100
TRADES_PER_PAGE: Final = 1_000
RULES: Final = ConnectionRules(
    streams_per_connection=600,
    connects_per_second=4.0,
    connects_per_window=250,
    window_seconds=300.0,
    control_per_second=6.0,
    frame_silence_seconds=5.0,
    data_silence_seconds=60.0,
    life_seconds=None,
    hold_us=2_000_000,
)
POOLS: Final = (PoolRule("public", 8, 1.0, unit="call"),)


class CoinbaseExchangeFeed:
    """Implements `application.ports.Venue`."""

    name = parse.VENUE
    rules = RULES
    intervals: frozenset[Interval] = frozenset({"1m", "5m", "15m", "1h", "6h", "1d"})
    rows_per_page = 300
    repair_limit = 50_000

    def __init__(self, http: VenueHttp, ws_url: str, quota: Quota, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self.url = ws_url
        quota.rule(self.name, POOLS)

    def native_by_rule(self, symbol: str) -> str:
        return symbol

    def streams(self, native: str) -> tuple[str, ...]:
        return tuple(f"{channel}:{native}" for channel in CHANNELS)

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        del request_id  # answers of this venue carry the full list instead
        return self._control("subscribe", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        del request_id
        return self._control("unsubscribe", natives)

    def list_streams(self, request_id: int) -> bytes | None:
        del request_id
        return None

    def parser(self, names: Mapping[str, str], out: Output) -> parse.ExchangeParser:
        return parse.ExchangeParser(names, out)

    async def instruments(self) -> list[Instrument]:
        rows = await self._http.get("/products", list[Raw], priority=Priority.CATALOGUE)
        return parse.instruments(rows, self._http.refused)

    async def volumes(self) -> dict[str, Decimal]:
        """One call for each product: the venue has no list of volumes."""
        found: dict[str, Decimal] = {}
        for instrument in await self.instruments():
            try:
                path = f"/products/{segment(instrument.native)}/stats"
                stats = await self._http.get(
                    path, wire.Stats, priority=Priority.CATALOGUE, wait_seconds=120.0
                )
                found[instrument.symbol] = exact(stats.volume) * exact(stats.last)
            except (CryptoPulseError, ValueRefusedError):
                continue
        return found

    async def trades(self, native: str, gap: Gap) -> list[Trade]:
        """By cursor: the trades just before an id, until the first of the gap."""
        found: list[Trade] = []
        after = gap.last_id + 1
        while after > gap.first_id:
            received = self._clock.now_us()
            rows = await self._http.get(
                f"/products/{segment(native)}/trades",
                list[Raw],
                priority=Priority.REPAIR,
                params={"after": after, "limit": min(TRADES_PER_PAGE, after - gap.first_id)},
            )
            page = parse.rest_trades(rows, gap.symbol, received, self._http.refused)
            page = [trade for trade in page if gap.first_id <= trade.trade_id < after]
            if not page:
                break
            found += page
            after = min(trade.trade_id for trade in page)
        return sorted(found, key=lambda trade: trade.trade_id)

    async def candles(
        self, native: str, symbol: str, interval: Interval, from_ms: int, to_ms: int
    ) -> list[Candle]:
        rows = await self._http.get(
            f"/products/{segment(native)}/candles",
            list[Raw],
            priority=Priority.HISTORY,
            params={
                "granularity": FIXED_MS[interval] // 1_000,
                "start": _iso(from_ms),
                "end": _iso(to_ms - FIXED_MS[interval]),
            },
            wait_seconds=120.0,
        )
        before_ms = min(to_ms, self._clock.now_ms())
        return parse.candles(rows, symbol, interval, from_ms, before_ms, self._http.refused)

    def _control(self, verb: str, natives: Sequence[str]) -> list[bytes]:
        chunks = [
            natives[at : at + PRODUCTS_PER_MESSAGE] for at in range(0, len(natives), PRODUCTS_PER_MESSAGE)
        ]
        return [
            msgspec.json.encode({"type": verb, "product_ids": list(chunk), "channels": list(CHANNELS)})
            for chunk in chunks
        ]


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

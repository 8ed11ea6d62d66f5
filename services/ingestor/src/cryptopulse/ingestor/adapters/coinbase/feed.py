"""Coinbase Advanced Trade as a venue: its subscriptions, and its public REST for products, candles and recent trades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.ingestor.adapters.coinbase import messages as wire
from cryptopulse.ingestor.adapters.coinbase import parse
from cryptopulse.ingestor.adapters.rest import VenueHttp, segment
from cryptopulse.ingestor.application.ports import ConnectionRules, Quota
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.output import Output
from cryptopulse.ingestor.domain.quota import PoolRule, Priority

CHANNELS: Final = ("market_trades", "ticker")
PRODUCTS_PER_MESSAGE: Final = 100
TRADES_PER_PAGE: Final = 1_000
PAGES_BACK: Final = 12
GRANULARITY: Final[dict[Interval, str]] = {
    "1m": "ONE_MINUTE",
    "5m": "FIVE_MINUTE",
    "15m": "FIFTEEN_MINUTE",
    "30m": "THIRTY_MINUTE",
    "1h": "ONE_HOUR",
    "2h": "TWO_HOUR",
    "6h": "SIX_HOUR",
    "1d": "ONE_DAY",
}
RULES: Final = ConnectionRules(
    streams_per_connection=400,
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
"""The venue allows 10 a second."""


class CoinbaseFeed:
    """Implements `application.ports.Venue`."""

    name = parse.VENUE
    rules = RULES
    intervals: frozenset[Interval] = frozenset(GRANULARITY)
    rows_per_page = 299
    repair_limit = 10_000

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
        first = msgspec.json.encode({"type": "subscribe", "channel": "heartbeats"})
        return [first, *self._control("subscribe", natives)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        del request_id
        return self._control("unsubscribe", natives)

    def list_streams(self, request_id: int) -> bytes | None:
        del request_id
        return None

    def parser(self, names: Mapping[str, str], out: Output) -> parse.CoinbaseParser:
        return parse.CoinbaseParser(names, out)

    async def instruments(self) -> list[Instrument]:
        return parse.instruments(await self._products(), self._http.refused)

    async def volumes(self) -> dict[str, Decimal]:
        return parse.volumes(await self._products(), self._http.refused)

    async def trades(self, native: str, gap: Gap) -> list[Trade]:
        """The venue has no cursor by id here: pages of the newest trades before a time, going back to the first one."""
        found: dict[int, Trade] = {}
        end = gap.to_us // 1_000_000 + 2
        for _ in range(PAGES_BACK):
            received = self._clock.now_us()
            answer = await self._http.get(
                f"/market/products/{segment(native)}/ticker",
                wire.RecentTrades,
                priority=Priority.REPAIR,
                params={"limit": TRADES_PER_PAGE, "end": end},
            )
            page = parse.rest_trades(answer.trades, gap.symbol, received, self._http.refused)
            known = len(found)
            found.update((t.trade_id, t) for t in page)
            if not page or len(found) == known or min(found) <= gap.first_id:
                break
            end = min(t.event_us for t in page) // 1_000_000 + 1
        return [found[n] for n in sorted(found) if gap.first_id <= n <= gap.last_id]

    async def candles(
        self, native: str, symbol: str, interval: Interval, from_ms: int, to_ms: int
    ) -> list[Candle]:
        answer = await self._http.get(
            f"/market/products/{segment(native)}/candles",
            wire.Candles,
            priority=Priority.HISTORY,
            params={
                "start": from_ms // 1_000,
                "end": to_ms // 1_000 - 1,
                "granularity": GRANULARITY[interval],
            },
            wait_seconds=120.0,
        )
        before_ms = min(to_ms, self._clock.now_ms())
        return parse.candles(answer.candles, symbol, interval, from_ms, before_ms, self._http.refused)

    async def _products(self) -> wire.Products:
        return await self._http.get(
            "/market/products", wire.Products, priority=Priority.CATALOGUE, params={"product_type": "SPOT"}
        )

    def _control(self, verb: str, natives: Sequence[str]) -> list[bytes]:
        chunks = [
            natives[at : at + PRODUCTS_PER_MESSAGE] for at in range(0, len(natives), PRODUCTS_PER_MESSAGE)
        ]
        return [
            msgspec.json.encode({"type": verb, "product_ids": chunk, "channel": channel})
            for chunk in chunks
            for channel in CHANNELS
        ]

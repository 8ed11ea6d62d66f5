"""Binance spot as a venue: its subscriptions, and its REST for products, klines and missing trades (step 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument
from cryptopulse.common.contracts.intervals import INTERVALS, Interval
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.common.errors import Invalid
from cryptopulse.ingestor.adapters.binance import messages as wire
from cryptopulse.ingestor.adapters.binance import parse
from cryptopulse.ingestor.adapters.rest import VenueHttp
from cryptopulse.ingestor.application.ports import ConnectionRules, Quota
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.output import Output
from cryptopulse.ingestor.domain.quota import PoolRule, Priority

KINDS: Final = ("trade", "bookTicker")
NAMES_PER_MESSAGE: Final = 200
TRADES_PER_PAGE: Final = 1_000
BUDGET_SHARE: Final = 0.7
"""Of the venue's stated limits we use this much: others may share the address."""

RULES: Final = ConnectionRules(
    streams_per_connection=1_000,
    connects_per_second=1.0,
    connects_per_window=250,
    window_seconds=300.0,
    control_per_second=4.0,
    frame_silence_seconds=25.0,
    data_silence_seconds=30.0,
    life_seconds=23 * 3_600.0,
    hold_us=500_000,
)
FIRST_POOLS: Final = (
    PoolRule("request_weight", int(1_200 * BUDGET_SHARE), 60.0),
    PoolRule("raw_requests", int(6_100 * BUDGET_SHARE), 300.0, unit="call"),
)
"""The lowest limits on record, until `exchangeInfo` tells the present ones."""


class BinanceFeed:
    """Implements `application.ports.Venue`."""

    name = parse.VENUE
    rules = RULES
    intervals: frozenset[Interval] = frozenset(INTERVALS)
    rows_per_page = 1_000
    repair_limit = 50_000

    def __init__(self, http: VenueHttp, ws_url: str, quota: Quota, clock: Clock) -> None:
        self._http = http
        self._quota = quota
        self._clock = clock
        self._historical = True
        base = ws_url.rstrip("/").removesuffix("/ws").removesuffix("/stream")
        self.url = f"{base}/stream"
        quota.rule(self.name, FIRST_POOLS)

    def native_by_rule(self, symbol: str) -> str:
        return symbol.replace("-", "")

    def streams(self, native: str) -> tuple[str, ...]:
        return tuple(f"{native.lower()}@{kind}" for kind in KINDS)

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._control("SUBSCRIBE", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._control("UNSUBSCRIBE", natives, request_id)

    def list_streams(self, request_id: int) -> bytes | None:
        return msgspec.json.encode({"method": "LIST_SUBSCRIPTIONS", "id": request_id})

    def parser(self, names: Mapping[str, str], out: Output) -> parse.BinanceParser:
        return parse.BinanceParser(names, out)

    async def instruments(self) -> list[Instrument]:
        info = await self._http.get(
            "/exchangeInfo", wire.ExchangeInfo, weight=20, priority=Priority.CATALOGUE
        )
        if pools := parse.pools(info, BUDGET_SHARE, self._http.refused):
            self._quota.rule(self.name, pools)
        return parse.instruments(info, self._http.refused)

    async def volumes(self) -> dict[str, Decimal]:
        natives = {i.native: i.symbol for i in await self.instruments()}
        rows = await self._http.get(
            "/ticker/24hr",
            list[Raw],
            weight=80,
            priority=Priority.CATALOGUE,
            params={"type": "MINI"},
        )
        return parse.volumes(rows, natives, self._http.refused)

    async def trades(self, native: str, gap: Gap) -> list[Trade]:
        found: list[Trade] = []
        next_id = gap.first_id
        while next_id <= gap.last_id:
            page = await self._trade_page(
                native, gap.symbol, next_id, min(TRADES_PER_PAGE, gap.last_id - next_id + 1)
            )
            fresh = [trade for trade in page if next_id <= trade.trade_id <= gap.last_id]
            if not fresh:
                break
            found += fresh
            next_id = fresh[-1].trade_id + 1
        return found

    async def _trade_page(self, native: str, symbol: str, from_id: int, rows: int) -> list[Trade]:
        """Trades from an id on. Hosts without `historicalTrades` still have the newest 1,000 under `trades`."""
        received = self._clock.now_us()
        params = {"symbol": native, "limit": max(rows, 1)}
        answer: list[Raw] | None = None
        try:
            if self._historical:
                answer = await self._http.get(
                    "/historicalTrades",
                    list[Raw],
                    weight=25,
                    priority=Priority.REPAIR,
                    params={**params, "fromId": from_id},
                )
        except Invalid:
            self._historical = False
        if answer is None:
            answer = await self._http.get(
                "/trades",
                list[Raw],
                weight=25,
                priority=Priority.REPAIR,
                params={"symbol": native, "limit": 1_000},
            )
        return parse.rest_trades(answer, symbol, received, self._http.refused)

    async def candles(
        self, native: str, symbol: str, interval: Interval, from_ms: int, to_ms: int
    ) -> list[Candle]:
        rows = await self._http.get(
            "/klines",
            list[Raw],
            weight=2,
            priority=Priority.HISTORY,
            params={
                "symbol": native,
                "interval": interval,
                "startTime": from_ms,
                "endTime": to_ms - 1,
                "limit": 1_000,
            },
            wait_seconds=120.0,
        )
        return parse.candles(rows, symbol, interval, min(to_ms, self._clock.now_ms()), self._http.refused)

    def _control(self, method: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        names = [stream for native in natives for stream in self.streams(native)]
        chunks = [names[at : at + NAMES_PER_MESSAGE] for at in range(0, len(names), NAMES_PER_MESSAGE)]
        return [
            msgspec.json.encode({"method": method, "params": chunk, "id": request_id + place})
            for place, chunk in enumerate(chunks)
        ]

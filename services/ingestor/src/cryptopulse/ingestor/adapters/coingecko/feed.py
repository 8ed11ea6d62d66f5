"""CoinGecko as a reference source: one batched call serves everyone, never faster than its guard interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Raw

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.ingestor.adapters.coingecko import parse
from cryptopulse.ingestor.adapters.rest import VenueHttp, segment
from cryptopulse.ingestor.application.ports import Page, Quota
from cryptopulse.ingestor.domain.quota import PoolRule, Priority

IDS_PER_CALL: Final = 250
PRO_HOST: Final = "pro-api.coingecko.com"


def headers_of(api_url: str, key: str) -> dict[str, str]:
    """The header that carries the key: paid keys go with the paid host, demo keys with the public one."""
    if not key:
        return {}
    return {"x-cg-pro-api-key" if PRO_HOST in api_url else "x-cg-demo-api-key": key}


def pools(guard_seconds: float, per_minute: int, per_month: int) -> tuple[PoolRule, ...]:
    """One call per guard interval, so many a minute, so many a calendar month: the longest wait rules."""
    return (
        PoolRule("guard", 1, guard_seconds, unit="call"),
        PoolRule("minute", per_minute, 60.0, unit="call"),
        PoolRule("month", per_month, 30 * 86_400.0, unit="call", calendar="month"),
    )


class CoinGeckoSource:
    """Implements `application.ports.ReferenceSource`."""

    name = parse.VENUE

    def __init__(self, http: VenueHttp, quota: Quota, clock: Clock, rules: Sequence[PoolRule]) -> None:
        self._http = http
        self._clock = clock
        quota.rule(self.name, rules)

    async def top(self, page: int) -> Page:
        return await self._markets({"page": page})

    async def coins(self, ids: Sequence[str]) -> Page:
        return await self._markets({"ids": ",".join(ids[:IDS_PER_CALL]), "page": 1})

    async def candles(self, coin_id: str, symbol: str, interval: Interval, days: int) -> list[Candle]:
        rows = await self._http.get(
            f"/coins/{segment(coin_id)}/ohlc",
            list[Raw],
            priority=Priority.HISTORY,
            params={"vs_currency": "usd", "days": days},
            wait_seconds=90.0,
        )
        return parse.candles_of(rows, symbol, interval, self._clock.now_ms(), self._http.refused)

    async def _markets(self, params: dict[str, object]) -> Page:
        rows = await self._http.get(
            "/coins/markets",
            list[Raw],
            priority=Priority.LIVE,
            params={"vs_currency": "usd", "order": "market_cap_desc", "per_page": IDS_PER_CALL, **params},
            wait_seconds=90.0,
        )
        coins, prices = parse.page_of(rows, self._clock.now_us(), self._http.refused)
        return Page(coins, prices)

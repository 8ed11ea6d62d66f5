"""Closes of the past from the indicators service over HTTP, with closed days kept in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import orjson

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.portfolio.adapters.price_reader import Owners, priced_asset
from cryptopulse.portfolio.application.ports import AssetRef

DAY_MS: Final = 86_400_000
PAGE_DAYS: Final = 1000
PARALLEL: Final = 8
KEPT_ASSETS: Final = 2_000
MISS_SECONDS: Final = 60.0
_STEPS: Final = (("1m", 60_000), ("1h", 3_600_000), ("1d", DAY_MS))
_SELF: Final = Identity(user_id=None, kind="service", tier="service")


class _Kept:
    """Closes of one asset that are final: days below `until` from `since` on were asked for."""

    __slots__ = ("asked_at", "closes", "since", "until")

    def __init__(self, since: int, until: int, closes: dict[int, Decimal], asked_at: float) -> None:
        self.since = since
        self.until = until
        self.closes = closes
        self.asked_at = asked_at


class HttpCloseReader:
    """`GET /candles/{symbol}` in pages; at most eight questions at once."""

    def __init__(self, client: ServiceClient, owners: Owners, clock: Clock) -> None:
        self._client = client
        self._owners = owners
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._slots = asyncio.Semaphore(PARALLEL)

    async def daily(
        self, assets: Sequence[AssetRef], from_day: int, to_day: int
    ) -> dict[str, Mapping[int, Decimal]]:
        """Daily closes of finished days, days inclusive."""
        today = self._clock.now_ms() // DAY_MS
        last = min(to_day, today - 1)
        answers = await asyncio.gather(*(self._asset(ref, from_day, last) for ref in assets))
        return {ref.asset: closes for ref, closes in zip(assets, answers, strict=True) if closes}

    async def _asset(self, ref: AssetRef, from_day: int, to_day: int) -> Mapping[int, Decimal]:
        if to_day < from_day:
            return {}
        if ref.asset == "USD":
            return dict.fromkeys(range(from_day, to_day + 1), Decimal(1))
        name = priced_asset(ref, self._owners)
        kept = self._kept.get(name)
        now = self._clock.monotonic()
        fresh = kept is not None and (to_day in kept.closes or now - kept.asked_at < MISS_SECONDS)
        if kept is None or from_day < kept.since or to_day >= kept.until or not fresh:
            since = from_day if kept is None else min(from_day, kept.since)
            until = to_day if kept is None else max(to_day, kept.until - 1)
            closes = await self._pages(name, since, until)
            kept = _Kept(since, until + 1, closes, now)
            self._kept[name] = kept
            if len(self._kept) > KEPT_ASSETS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return kept.closes

    async def _pages(self, asset: str, from_day: int, to_day: int) -> dict[int, Decimal]:
        closes: dict[int, Decimal] = {}
        for first in range(from_day, to_day + 1, PAGE_DAYS):
            last = min(first + PAGE_DAYS, to_day + 1)
            rows = await self._candles(asset, "1d", first * DAY_MS, last * DAY_MS, PAGE_DAYS)
            closes.update(
                (row["open_time"] // DAY_MS, Decimal(row["close"])) for row in rows if row["closed"]
            )
        return closes

    async def at(self, asset: AssetRef, at_us: int) -> Decimal | None:
        """The finest candle that covers the time."""
        at_ms = at_us // 1000
        name = priced_asset(asset, self._owners)
        for interval, length in _STEPS:
            opened = at_ms - at_ms % length
            rows = await self._candles(name, interval, opened, opened + length, 1)
            if rows:
                return Decimal(rows[0]["close"])
        return None

    async def _candles(
        self, asset: str, interval: str, from_ms: int, to_ms: int, limit: int
    ) -> list[dict[str, Any]]:
        async with self._slots:
            response = await self._client.request(
                "GET",
                f"/candles/{quote(asset, safe='')}-USD",
                identity=_SELF,
                params={"interval": interval, "from": from_ms, "to": to_ms, "limit": limit},
            )
        if response.status_code in {404, 422}:
            return []
        if response.status_code != 200:
            raise UpstreamUnavailable(f"candles were answered with {response.status_code}")
        rows: list[dict[str, Any]] = orjson.loads(response.content)["data"]
        return rows

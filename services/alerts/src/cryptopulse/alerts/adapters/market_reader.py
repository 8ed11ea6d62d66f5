"""Latest prices, indicators and the catalogue from Redis; candles from the indicators service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import repeat
from typing import Any, Final

import msgspec
import orjson
from redis.asyncio import Redis

from cryptopulse.alerts.application.ports import CurrentPrice
from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle, CandleColumns
from cryptopulse.common.contracts.http.candles import MAX_SPAN_BARS
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.intervals import Interval, length_ms, next_open
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.resolver import Catalogue, Resolver
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.web.client import ServiceClient

CATALOGUE_SECONDS: Final = 1.0
"""How old a look at the catalogue's version may be; an empty catalogue is looked at each time."""
PAGE: Final = 1_000
MAX_PAGES: Final = 200
SPANS: Final = 400
READS: Final = 4
_ZERO: Final = Decimal(0)
US: Final = Identity(user_id=None, kind="service", tier="service")


class RedisMarketReader:
    """`MarketReader` on Redis. The catalogue is kept, and its version looked at every few seconds."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._prices = msgspec.msgpack.Decoder(PriceUpdate)
        self._indicators = msgspec.msgpack.Decoder(IndicatorUpdate)
        self._catalogue = msgspec.msgpack.Decoder(Catalogue)
        self._resolver: Resolver | None = None
        self._version = b""
        self._looked_at = float("-inf")

    async def price(self, symbol: str, source: str) -> CurrentPrice | None:
        """The newest price of a market."""
        key = keys.price(symbol) if source == CONSOLIDATED else keys.venue_price(symbol, source)
        async with store_errors():
            raw = await self._redis.get(key)
        if raw is None:
            return None
        update = self._prices.decode(_bytes(raw))
        return CurrentPrice(update.price, update.received_us, update.status, update.simulated)

    async def indicator(self, symbol: str, source: str, interval: str) -> IndicatorUpdate | None:
        """The newest indicator values of a series."""
        async with store_errors():
            raw: Any = await self._redis.hget(keys.indicators(symbol, source), interval)
        return None if raw is None else self._indicators.decode(_bytes(raw))

    async def resolver(self) -> Resolver:
        """The resolver over the newest catalogue; an empty one while nothing was stored yet."""
        now = self._clock.monotonic()
        if self._resolver is not None and self._version and now - self._looked_at < CATALOGUE_SECONDS:
            return self._resolver
        async with store_errors():
            version = _bytes(await self._redis.get(keys.CATALOGUE_VERSION) or b"")
            if self._resolver is None or version != self._version:
                raw = await self._redis.get(keys.CATALOGUE)
                self._resolver = Resolver(
                    Catalogue(version=0) if raw is None else self._catalogue.decode(_bytes(raw))
                )
                self._version = version
        self._looked_at = now
        return self._resolver


class HttpCandleReader:
    """`CandleReader` over the internal HTTP of the indicators service."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._columns = msgspec.msgpack.Decoder(CandleColumns)

    async def candles(
        self, symbol: str, source: str, interval: str, from_ms: int, to_ms: int, *, newest: int | None = None
    ) -> list[Candle]:
        """Oldest first; follows the cursor until the end of the range."""
        found: list[Candle] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params: dict[str, Any] = {"interval": interval, "source": source, "limit": newest or PAGE}
            if cursor is None:
                params |= {"from": from_ms, "to": to_ms}
            else:
                params |= {"from": from_ms, "to": to_ms, "cursor": cursor}
            response = await self._client.request("GET", f"/candles/{symbol}", identity=US, params=params)
            if response.status_code == 404:
                return found
            if response.status_code != 200:
                raise UpstreamUnavailable(f"candles of {symbol} were refused: {response.status_code}")
            page = orjson.loads(response.content)
            found += [_candle(row, symbol, source, interval) for row in page["data"]]
            cursor = page.get("next_cursor")
            if cursor is None or not page["data"] or (newest is not None and len(found) >= newest):
                break
        return [candle for candle in found if from_ms <= candle.open_time < to_ms]

    async def spans(
        self, symbol: str, source: str, interval: Interval, spans: Sequence[tuple[int, int]]
    ) -> list[Candle]:
        """See `CandleReader.spans`: a few thousand bars a request, a few requests beside each other."""
        turns = asyncio.Semaphore(READS)

        async def read(part: list[tuple[int, int]]) -> list[Candle]:
            text = ",".join(f"{since}-{until}" for since, until in part)
            params = {"interval": interval, "source": source, "spans": text}
            async with turns:
                response = await self._client.request(
                    "GET", f"/candles/{symbol}/spans", identity=US, params=params
                )
            if response.status_code == 404:
                return []
            if response.status_code != 200:
                raise UpstreamUnavailable(f"candles of {symbol} were refused: {response.status_code}")
            return _bars(symbol, source, interval, self._columns.decode(response.content))

        pages = _pages(spans, MAX_SPAN_BARS * length_ms(interval))
        found = await asyncio.gather(*(read(part) for part in pages))
        return [candle for part in found for candle in part]


def _pages(spans: Sequence[tuple[int, int]], length: int) -> list[list[tuple[int, int]]]:
    """Spans in groups that hold at most `length` ms and `SPANS` spans; what is longer is cut."""
    pages: list[list[tuple[int, int]]] = []
    left = 0
    for since, until in spans:
        at = since
        while at < until:
            if left == 0 or len(pages[-1]) == SPANS:
                pages.append([])
                left = length
            end = min(until, at + left)
            pages[-1].append((at, end))
            left -= end - at
            at = end
    return pages


def _bars(symbol: str, source: str, interval: Interval, columns: CandleColumns) -> list[Candle]:
    if not columns.open_time:
        return []
    texts = (columns.open, columns.high, columns.low, columns.close, columns.volume)
    opens, highs, lows, closes, volumes = (map(Decimal, text.split(" ")) for text in texts)
    same = map(repeat, (symbol, source, interval))
    unknown = map(repeat, (_ZERO, 0, _ZERO, None, None, True))
    return list(
        map(Candle, *same, columns.open_time, opens, highs, lows, closes, volumes, *unknown, columns.complete)
    )


def _candle(row: Mapping[str, Any], symbol: str, source: str, interval: Any) -> Candle:
    return Candle(
        symbol=symbol,
        source=source,
        interval=interval,
        open_time=int(row["open_time"]),
        open=Decimal(row["open"]),
        high=Decimal(row["high"]),
        low=Decimal(row["low"]),
        close=Decimal(row["close"]),
        volume=Decimal(row["volume"]),
        quote_volume=Decimal(row["quote_volume"]),
        trades=int(row["trades"]),
        taker_buy_volume=Decimal(row["taker_buy_volume"]),
        closed=bool(row["closed"]),
        complete=bool(row["complete"]),
        revision=int(row["revision"]),
    )


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def bars_back(now_ms: int, interval: str, bars: int) -> int:
    """A time that lies at least so many bars before now."""
    return now_ms - bars * (next_open(0, interval) if interval != "1M" else 31 * 86_400_000)

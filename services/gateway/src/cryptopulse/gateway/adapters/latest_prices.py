"""The latest prices and the catalogue from Redis: read whole at the start, then only what is missing or has changed."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.resolver import Catalogue
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import CONSOLIDATED

CHUNK: Final = 500


class RedisPriceStore:
    """Reads what the owners of the shards have written."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._price = msgspec.msgpack.Decoder(PriceUpdate)
        self._candle = msgspec.msgpack.Decoder(Candle)
        self._catalogue = msgspec.msgpack.Decoder(Catalogue)
        self._reference = msgspec.msgpack.Decoder(ReferencePrice)
        self._indicators = msgspec.msgpack.Decoder(IndicatorUpdate)
        self._signal = msgspec.msgpack.Decoder(Signal)
        self._version: bytes | None = None

    async def load_all(self) -> list[PriceUpdate]:
        """Every stored price; what has expired meanwhile is left out."""
        async with store_errors():
            names: Any = sorted(await self._redis.smembers(keys.PRICE_INDEX))
        found: list[PriceUpdate] = []
        for start in range(0, len(names), CHUNK):
            async with store_errors():
                values: Any = await self._redis.mget(names[start : start + CHUNK])
            found += [self._price.decode(value) for value in values if value is not None]
        return found

    async def load(self, symbol: str, source: str) -> PriceUpdate | None:
        """One stored price."""
        key = keys.price(symbol) if source == CONSOLIDATED else keys.venue_price(symbol, source)
        async with store_errors():
            value: Any = await self._redis.get(key)
        return None if value is None else self._price.decode(value)

    async def coin(self, coin_id: str) -> ReferencePrice | None:
        """The latest reference price of a coin."""
        async with store_errors():
            value: Any = await self._redis.get(keys.coin_price(coin_id))
        return None if value is None else self._reference.decode(value)

    async def forming(self, wanted: list[tuple[str, str, str]]) -> list[Candle]:
        """The forming bars of (symbol, source, interval), those that exist."""
        if not wanted:
            return []
        async with store_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for symbol, source, interval in wanted:
                pipeline.hget(keys.forming(symbol, source), interval)
            values: list[Any] = await pipeline.execute()
        return [self._candle.decode(value) for value in values if value is not None]

    async def indicators(self, symbol: str, source: str, interval: str) -> IndicatorUpdate | None:
        """The newest live values of one series."""
        async with store_errors():
            value: Any = await self._redis.hget(keys.indicators(symbol, source), interval)
        return None if value is None else self._indicators.decode(value)

    async def position(
        self, kind: Literal["candles", "indicators"], symbol: str, source: str, interval: str
    ) -> tuple[int, int] | None:
        """Epoch and offset of the newest closed bar of a series that was published."""
        key = keys.forming(symbol, source) if kind == "candles" else keys.indicators(symbol, source)
        async with store_errors():
            value: Any = await self._redis.hget(key, f"{interval}{keys.POSITION}")
        if value is None:
            return None
        epoch, _, offset = (value.decode() if isinstance(value, bytes) else value).partition(":")
        return int(epoch), int(offset)

    async def signals(self) -> list[Signal]:
        """The newest signals of all symbols, oldest first."""
        async with store_errors():
            values: Any = await self._redis.lrange(keys.SIGNALS, 0, -1)
        return [self._signal.decode(value) for value in reversed(values)]

    async def catalogue(self) -> Catalogue | None:
        """The catalogue when it has changed since the last call, else None."""
        async with store_errors():
            version: Any = await self._redis.get(keys.CATALOGUE_VERSION)
            if version is not None and version == self._version:
                return None
            value: Any = await self._redis.get(keys.CATALOGUE)
        if value is None:
            return None
        self._version = version
        return self._catalogue.decode(value)

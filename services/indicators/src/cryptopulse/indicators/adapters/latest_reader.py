"""What owners of shards, this or another replica, wrote to Redis: read for HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import CONSOLIDATED

_candle = msgspec.msgpack.Decoder(Candle)
_values = msgspec.msgpack.Decoder(IndicatorUpdate)
_price = msgspec.msgpack.Decoder(PriceUpdate)
_reference = msgspec.msgpack.Decoder(ReferencePrice)
_signal = msgspec.msgpack.Decoder(Signal)


class RedisLatestReader:
    """Latest values by key; every method is one round trip and raises `StoreUnavailable`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def forming(self, symbol: str, source: str, interval: Interval) -> list[Candle]:
        """The bars of a series that are not closed, oldest first: a minute may wait for stragglers beside the next."""
        async with store_errors():
            packed = await self._redis.hmget(
                keys.forming(symbol, source), [f"{interval}{keys.FORMING_BEFORE}", interval]
            )
        return [_candle.decode(_bytes(one)) for one in packed if one is not None]

    async def values(self, symbol: str, source: str, interval: Interval) -> IndicatorUpdate | None:
        """The newest indicator values of a live series."""
        async with store_errors():
            packed = await self._redis.hget(keys.indicators(symbol, source), interval)
        return None if packed is None else _values.decode(_bytes(packed))

    async def price(self, symbol: str, source: str) -> PriceUpdate | None:
        """The newest price of a symbol from a source."""
        found = await self.prices([(symbol, source)])
        return found[0]

    async def prices(self, wanted: Sequence[tuple[str, str]]) -> list[PriceUpdate | None]:
        """Newest prices, in the order asked for."""
        if not wanted:
            return []
        names = [
            keys.price(symbol) if source == CONSOLIDATED else keys.venue_price(symbol, source)
            for symbol, source in wanted
        ]
        async with store_errors():
            packed = await self._redis.mget(names)
        return [None if one is None else _price.decode(_bytes(one)) for one in packed]

    async def references(self, coin_ids: Sequence[str]) -> list[ReferencePrice | None]:
        """Reference prices of coins, in the order asked for."""
        if not coin_ids:
            return []
        async with store_errors():
            packed = await self._redis.mget([keys.coin_price(coin_id) for coin_id in coin_ids])
        return [None if one is None else _reference.decode(_bytes(one)) for one in packed]

    async def signals(self) -> list[Signal]:
        """The newest signals, newest first."""
        async with store_errors():
            packed = await self._redis.lrange(keys.SIGNALS, 0, -1)
        return [_signal.decode(_bytes(one)) for one in packed]

    async def all_values(self, symbols: Sequence[str], interval: Interval) -> dict[str, IndicatorUpdate]:
        """Newest consolidated values of many symbols at one interval, by symbol."""
        if not symbols:
            return {}
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            for symbol in symbols:
                pipe.hget(keys.indicators(symbol, CONSOLIDATED), interval)
            answers = await pipe.execute()
        return {
            symbol: _values.decode(_bytes(packed))
            for symbol, packed in zip(symbols, answers, strict=True)
            if packed is not None
        }

    async def scores(self, name: str, quote: str, window: str) -> dict[str, float]:
        """A scanner's scores by symbol, of the whole market of one quote."""
        async with store_errors():
            found: list[Any] = await self._redis.zrange(
                keys.scanner(name, quote, window), 0, -1, withscores=True
            )
        return {_bytes(symbol).decode(): score for symbol, score in found}

    async def catalogue(self) -> bytes | None:
        """The catalogue's projection, encoded."""
        async with store_errors():
            found = await self._redis.get(keys.CATALOGUE)
        return None if found is None else _bytes(found)

    async def catalogue_version(self) -> int:
        """Rises with every change of the catalogue."""
        async with store_errors():
            return int(await self._redis.get(keys.CATALOGUE_VERSION) or 0)


def _bytes(value: bytes | str) -> bytes:
    """Answers are bytes; the client's types allow text as well."""
    return value.encode() if isinstance(value, str) else value

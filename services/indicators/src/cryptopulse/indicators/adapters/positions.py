"""Where each published series stands, in Redis: how a gateway that has heard nothing of it yet knows what a client missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.errors import StoreUnavailable

ItemT = TypeVar("ItemT", Candle, IndicatorUpdate)
TTL_SECONDS: Final = 3_600
"""Of a hash that only holds positions; who writes bars and values beside them sets his own."""


class RedisPositions:
    """Writes positions after the bus has confirmed; what could not be written goes along with the next ones."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[tuple[str, str], str] = {}

    async def note(
        self,
        key_of: Callable[[str, str], str],
        epoch: int,
        items: Sequence[ItemT],
        offsets: Sequence[int],
    ) -> None:
        """The newest offset of each series in `items`; an absent Redis is no error."""
        for item, offset in zip(items, offsets, strict=True):
            name = f"{item.interval}{keys.POSITION}"
            self._waiting[key_of(item.symbol, item.source), name] = f"{epoch}:{offset}"
        waiting = dict(self._waiting)
        try:
            async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
                for (key, name), position in waiting.items():
                    pipe.hset(key, name, position)
                for key in {key for key, _ in waiting}:
                    pipe.expire(key, TTL_SECONDS, nx=True)
                await pipe.execute()
        except StoreUnavailable:
            return
        for place, position in waiting.items():
            if self._waiting.get(place) == position:
                del self._waiting[place]

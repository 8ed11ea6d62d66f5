"""Whose trades any gateway follows: every replica hears them, so that a client who is cut off resumes on any."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors


class RedisFollowed:
    """A sorted set of symbols by the second until which somebody wants them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def want(self, symbols: Collection[str]) -> None:
        """Have the trades of some symbols come for a while."""
        if not symbols:
            return
        until = time.time() + keys.FOLLOWED_SECONDS
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(keys.FOLLOWED, dict.fromkeys(symbols, until))
            pipe.expire(keys.FOLLOWED, keys.FOLLOWED_SECONDS)
            await pipe.execute()

    async def wanted(self) -> set[str]:
        """What any replica wants."""
        now = time.time()
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(keys.FOLLOWED, "-inf", now)
            pipe.zrange(keys.FOLLOWED, 0, -1)
            answers: list[Any] = await pipe.execute()
        return {name.decode() if isinstance(name, bytes) else name for name in answers[1]}

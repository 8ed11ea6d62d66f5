"""Revoked sessions, keys and users: a sorted set in Redis for those who come later, pub/sub for those who are here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.clock import Clock
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)

KEPT_SECONDS: Final = 86_400
"""Longer than any access token lives."""
CHANGED: Final = "changed:"
"""Announces a key whose record changed: forget it, do not refuse it."""
RESTORED: Final = "restored:"
"""Announces, and lists for who was away, a user who counts again."""


class RedisRevocations:
    """The list of one gateway, kept equal to Redis within a second."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._until: dict[str, float] = {}
        self._listeners: list[Callable[[str], object]] = []

    def listen(self, listener: Callable[[str], object]) -> None:
        """Call `listener` with every id that is revoked, changed or restored, wherever that happens."""
        self._listeners.append(listener)

    def is_revoked(self, ident: str) -> bool:
        """True when this id was revoked."""
        return ident in self._until

    async def revoke(self, idents: Sequence[str]) -> None:
        """Revoke ids: here at once, elsewhere through Redis. Raises `StoreUnavailable` when others could not be told."""
        await self._tell(idents)

    async def restore(self, idents: Sequence[str]) -> None:
        """Let ids count again, here and elsewhere. Raises `StoreUnavailable` when others could not be told."""
        await self._tell([f"{RESTORED}{ident}" for ident in idents])

    async def _tell(self, idents: Sequence[str]) -> None:
        if not idents:
            return
        for ident in idents:
            self._take(ident)
        until = self._clock.now_ms() / 1_000 + KEPT_SECONDS
        async with store_errors():
            pipeline = self._redis.pipeline(transaction=True)
            for ident in idents:
                if not ident.startswith(CHANGED):
                    pipeline.zadd(keys.REVOCATIONS, {ident: until})
                    pipeline.zrem(keys.REVOCATIONS, _opposite(ident))
                pipeline.publish(keys.REVOCATIONS, ident)
            pipeline.zremrangebyscore(keys.REVOCATIONS, "-inf", self._clock.now_ms() / 1_000)
            pipeline.expire(keys.REVOCATIONS, KEPT_SECONDS)
            await pipeline.execute()

    async def run(self, beat: Callable[[], None]) -> None:
        """Follow Redis for ever; after every reconnect the whole list is read again."""
        while True:
            try:
                await self._follow(beat)
            except (RedisError, OSError) as error:
                log.warning("revocations cannot be followed: the store is away", error=str(error))
                beat()
                await asyncio.sleep(1)

    async def _follow(self, beat: Callable[[], None]) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(keys.REVOCATIONS)
            listed: Any = await self._redis.zrange(keys.REVOCATIONS, 0, -1, withscores=True)
            for raw, until in listed:
                if raw.decode() not in self._until:
                    self._take(raw.decode(), until)
            while True:
                beat()
                message: dict[str, Any] | None = await channel.get_message(
                    ignore_subscribe_messages=True, timeout=1.0
                )
                if message is not None and isinstance(message.get("data"), bytes):
                    self._take(message["data"].decode())
                self._forget()

    def _take(self, ident: str, until: float | None = None) -> None:
        if ident.startswith(RESTORED):
            self._until.pop(_opposite(ident), None)
        elif not ident.startswith(CHANGED):
            self._until[ident] = until or self._clock.now_ms() / 1_000 + KEPT_SECONDS
        for listener in self._listeners:
            listener(ident)

    def _forget(self) -> None:
        now = self._clock.now_ms() / 1_000
        for ident in [ident for ident, until in self._until.items() if until <= now]:
            del self._until[ident]


def _opposite(ident: str) -> str:
    return ident.removeprefix(RESTORED) if ident.startswith(RESTORED) else f"{RESTORED}{ident}"

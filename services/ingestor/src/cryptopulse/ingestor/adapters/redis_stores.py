"""What outlives a process, in Redis: last trade ids, covered history, leases with epochs, wanted coins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.clock import Clock
from cryptopulse.ingestor.domain.history import Covered

LEASE_MS: Final = 5_000
"""A lease that nobody renews for so long is free."""
WANTED_LIMIT: Final = 5_000
IDS_TTL_SECONDS: Final = 30 * 86_400

# Keeps or takes the lease: answers the epoch, or 0 while another replica has it. The epoch of a new owner is above every
# earlier one and not below its own clock in ms, so that an owner without the store, who takes its clock, stays in order.
_TAKE: Final = """
local owner = redis.call('HGET', KEYS[1], 'owner')
local until_ms = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local now = tonumber(ARGV[2])
if owner == ARGV[1] then
  redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[3]))
  return epoch
end
if owner and owner ~= '' and until_ms > now then return 0 end
epoch = math.max(epoch + 1, now)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + tonumber(ARGV[3]), 'epoch', epoch)
return epoch
"""
_GIVE_BACK: Final = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'owner', '', 'until', 0)
end
return 0
"""


class RedisLease:
    """Implements `application.ports.Lease`: one owner per (venue, part), the others stand by."""

    def __init__(self, redis: Redis, clock: Clock, replica: str) -> None:
        self._redis = redis
        self._clock = clock
        self._replica = replica

    async def take(self, venue: str, part: str) -> int | None:
        async with store_errors():
            epoch = await cast(
                "Any",
                self._redis.eval(
                    _TAKE, 1, keys.lease(venue, part), self._replica, str(self._clock.now_ms()), str(LEASE_MS)
                ),
            )
        return int(epoch) or None

    async def give_back(self, venue: str, part: str) -> None:
        async with store_errors():
            await cast("Any", self._redis.eval(_GIVE_BACK, 1, keys.lease(venue, part), self._replica))


class RedisLastIds:
    """Implements `application.ports.LastIds`: a hash per venue, symbol -> `<id>:<event_us>`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def load(self, venue: str) -> dict[str, tuple[int, int]]:
        async with store_errors():
            stored = await cast("Any", self._redis.hgetall(keys.last_trade_ids(venue)))
        found = {}
        for symbol, text in stored.items():
            trade_id, _, at = text.decode().partition(":")
            if trade_id.isdigit() and at.isdigit():
                found[symbol.decode()] = int(trade_id), int(at)
        return found

    async def save(self, venue: str, ids: Mapping[str, tuple[int, int]]) -> None:
        if not ids:
            return
        key = keys.last_trade_ids(venue)
        mapping = {symbol: f"{trade_id}:{at}" for symbol, (trade_id, at) in ids.items()}
        async with store_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(key, mapping=cast("Any", mapping))
            pipe.expire(key, IDS_TTL_SECONDS)
            await pipe.execute()


class RedisHistoryMarks:
    """Implements `application.ports.HistoryMarks`: a hash per venue, apart for simulated history."""

    def __init__(self, redis: Redis, *, simulated: bool) -> None:
        self._redis = redis
        self._simulated = simulated

    async def load(self, venue: str) -> dict[tuple[str, str], Covered]:
        key = keys.history_marks(venue, simulated=self._simulated)
        async with store_errors():
            stored = await cast("Any", self._redis.hgetall(key))
        found = {}
        for place, text in stored.items():
            symbol, _, interval = place.decode().partition(" ")
            found[symbol, interval] = Covered.parse(text.decode())
        return found

    async def save(self, venue: str, symbol: str, interval: str, covered: Covered) -> None:
        key = keys.history_marks(venue, simulated=self._simulated)
        async with store_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(key, f"{symbol} {interval}", str(covered))
            pipe.expire(key, IDS_TTL_SECONDS)
            await pipe.execute()


class RedisWanted:
    """Implements `application.ports.Wanted`: a sorted set by expiry, at most 5,000 ids."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def add(self, coin_ids: Sequence[str], until_ms: int) -> None:
        if not coin_ids:
            return
        async with store_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zadd(keys.WANTED, dict.fromkeys(coin_ids, float(until_ms)), gt=True)
            pipe.zremrangebyrank(keys.WANTED, 0, -WANTED_LIMIT - 1)
            await pipe.execute()

    async def current(self, now_ms: int) -> list[str]:
        async with store_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zremrangebyscore(keys.WANTED, 0, now_ms)
            pipe.zrangebyscore(keys.WANTED, now_ms, "+inf")
            _, found = await pipe.execute()
        return [coin.decode() for coin in found]

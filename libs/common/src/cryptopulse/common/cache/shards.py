"""Who owns which shard: replicas register in Redis, divide the shards by themselves and fence each other by epoch.

Shard i belongs to replica i mod n of the sorted list of live replicas. A shard changes hands only over its lease: the old
owner releases it after its last effect is stored (or it expires after a crash), then the new one takes a higher epoch.
With Redis gone the last assignment stays: nobody else can take a lease either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cryptopulse.common.cache import keys
from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.telemetry import metrics
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)

owned = metrics.gauge("cryptopulse_shards_owned", "Shards that this replica owns now")
epochs_refused_total = metrics.counter(
    "cryptopulse_shards_epoch_refused_total",
    "Writes of an owner with an old epoch that were refused",
    ("consumer",),
)

BEAT_SECONDS = 1.0
REPLICA_GONE_MS = 6_000
LEASE_MS = 6_000
SETTLE_SECONDS = 3.0
"""After Redis was away, how long a replica waits before it takes leases that it did not hold: owners renew theirs first."""

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, tonumber(ARGV[3]))
redis.call('SET', KEYS[2], string.format('%.0f', epoch))
return epoch
"""
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""
_GIVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_SAVE = """
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
if epoch > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', ARGV[2])
return 1
"""


class ShardHandler(Protocol):
    """What a service does with a shard."""

    async def acquire(self, shard: int, epoch: int) -> None:
        """Load the snapshot, subscribe. Called once per ownership, with an epoch above every earlier owner's."""
        ...

    async def release(self, shard: int, *, lost: bool) -> None:
        """Stop consuming, finish what is in hand, write the snapshot, ack, close the shard's channel.

        `lost` true: the lease went to somebody else meanwhile; write nothing, only close.
        """
        ...


def assigned(replica: str, replicas: list[str], shards: int) -> set[int]:
    """The shards of `replica` among the sorted live `replicas`; none when it is not among them."""
    ordered = sorted(replicas)
    if replica not in ordered:
        return set()
    place = ordered.index(replica)
    return {shard for shard in range(shards) if shard % len(ordered) == place}


async def save_fenced(redis: Redis, key: str, epoch: int, state: bytes, *, consumer: str) -> bool:
    """Write a shard's snapshot unless a higher epoch has written; False when refused (this owner is no longer the owner)."""
    saved = await redis.eval(_SAVE, 1, key, str(epoch), state)
    if not saved:
        epochs_refused_total.labels(consumer).inc()
    return bool(saved)


async def load_snapshot(redis: Redis, key: str) -> tuple[int, bytes] | None:
    """The epoch and state of a shard's newest snapshot, None when there is none."""
    epoch, state = await redis.hmget(key, ["epoch", "state"])
    return (int(epoch), bytes(state)) if epoch is not None and isinstance(state, bytes) else None


class ShardOwner:
    """Keeps this replica registered and its shards acquired; run `run` as a supervised loop and `release_all` on drain."""

    def __init__(
        self,
        redis: Redis,
        *,
        service: str,
        replica: str,
        shards: int,
        handler: ShardHandler,
        clock: Clock | None = None,
    ) -> None:
        self._redis = redis
        self._service = service
        self._replica = replica
        self._shards = shards
        self._handler = handler
        self._clock = clock or SystemClock()
        self._held: dict[int, int] = {}
        self._lost_redis_at: float | None = None
        self._calm_since: float | None = None
        self._leaving = False
        self._turn = asyncio.Lock()

    @property
    def held(self) -> dict[int, int]:
        """Shard -> epoch of what is owned now."""
        return dict(self._held)

    async def run(self, beat: Callable[[], None]) -> None:
        """Register, divide, acquire and release, once a second, for ever."""
        while True:
            await self.turn()
            beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def turn(self) -> None:
        """One round; Redis errors leave everything as it is."""
        async with self._turn:
            if self._leaving:
                return
            try:
                replicas = await self._register()
                await self._renew()
                await self._divide(assigned(self._replica, replicas, self._shards))
            except (RedisError, OSError, TimeoutError) as error:
                self._calm_since = None
                if self._lost_redis_at is None:
                    log.warning("shard assignment frozen: redis is away", error=str(error)[:200])
                self._lost_redis_at = self._clock.monotonic()
            owned.set(len(self._held))

    async def release_all(self) -> None:
        """Give every shard to the others: for the drain. Never raises for a dead Redis."""
        async with self._turn:
            self._leaving = True
            for shard in sorted(self._held):
                await self._release(shard, lost=False)
            try:
                await self._redis.zrem(keys.replicas(self._service), self._replica)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("replica not deregistered: redis is away", error=str(error)[:200])
            owned.set(0)

    async def _register(self) -> list[str]:
        key, now = keys.replicas(self._service), self._clock.now_ms()
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.zadd(key, {self._replica: now})
            pipe.zremrangebyscore(key, "-inf", now - REPLICA_GONE_MS)
            pipe.zrange(key, 0, -1)
            answers = await pipe.execute()
        if self._lost_redis_at is not None and self._calm_since is None:
            self._calm_since = self._clock.monotonic()
        return [member.decode() if isinstance(member, bytes) else member for member in answers[2]]

    def _settled(self) -> bool:
        """False for a while after Redis was away, so that owners renew before others take."""
        if self._lost_redis_at is None:
            return True
        if self._calm_since is not None and self._clock.monotonic() - self._calm_since >= SETTLE_SECONDS:
            self._lost_redis_at = self._calm_since = None
            return True
        return False

    def _keys(self, shard: int) -> tuple[str, str]:
        return (
            keys.shard_lease(self._service, shard, self._shards),
            keys.shard_epoch(self._service, shard, self._shards),
        )

    async def _renew(self) -> None:
        for shard, epoch in list(self._held.items()):
            kept = await self._redis.eval(
                _RENEW, 2, *self._keys(shard), self._replica, str(LEASE_MS), str(epoch)
            )
            if not kept:
                log.warning("shard lost to another owner", shard=shard, epoch=epoch)
                await self._release(shard, lost=True)

    async def _divide(self, mine: set[int]) -> None:
        for shard in sorted(set(self._held) - mine):
            await self._release(shard, lost=False)
        if not self._settled():
            return
        for shard in sorted(mine - set(self._held)):
            await self._acquire(shard)

    async def _acquire(self, shard: int) -> None:
        epoch = int(
            await self._redis.eval(
                _TAKE, 2, *self._keys(shard), self._replica, str(LEASE_MS), str(self._clock.now_ms())
            )
        )
        if epoch == 0:
            return
        try:
            await self._handler.acquire(shard, epoch)
        except Exception as error:  # the next round tries again, with a new epoch
            log.exception("shard not acquired", shard=shard, epoch=epoch, error=str(error)[:300])
            await self._redis.eval(_GIVE, 1, self._keys(shard)[0], self._replica)
            return
        self._held[shard] = epoch
        log.info("shard acquired", shard=shard, epoch=epoch)

    async def _release(self, shard: int, *, lost: bool) -> None:
        epoch = self._held.pop(shard)
        try:
            await self._handler.release(shard, lost=lost)
        except Exception as error:  # the lease must go on whatever the handler met
            log.exception("shard release failed", shard=shard, error=str(error)[:300])
        if not lost:
            try:
                await self._redis.eval(_GIVE, 1, self._keys(shard)[0], self._replica)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("shard lease not given back: it expires", shard=shard, error=str(error)[:200])
        log.info("shard released", shard=shard, epoch=epoch, lost=lost)

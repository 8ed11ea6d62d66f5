"""Replicas divide shards by themselves: every shard has one owner, epochs rise, a zombie is fenced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.shards import LEASE_MS, ShardOwner, assigned, load_snapshot, save_fenced
from cryptopulse.common.clock import ManualClock


class Recorder:
    """A shard handler that keeps what it holds and, like a service, hands its state over by snapshot."""

    def __init__(self, redis: Redis, name: str) -> None:
        self.redis = redis
        self.name = name
        self.epochs: dict[int, int] = {}
        self.lost: list[int] = []
        self.inherited: dict[int, bytes | None] = {}

    async def acquire(self, shard: int, epoch: int) -> None:
        loaded = await load_snapshot(self.redis, keys.shard_snapshot("suite", shard, 4))
        self.inherited[shard] = loaded[1] if loaded else None
        self.epochs[shard] = epoch

    async def release(self, shard: int, *, lost: bool) -> None:
        epoch = self.epochs.pop(shard)
        if lost:
            self.lost.append(shard)
            return
        key = keys.shard_snapshot("suite", shard, 4)
        assert await save_fenced(self.redis, key, epoch, self.name.encode(), consumer="suite")


def owner(redis: Redis, name: str, clock: ManualClock) -> tuple[ShardOwner, Recorder]:
    handler = Recorder(redis, name)
    return ShardOwner(redis, service="suite", replica=name, shards=4, handler=handler, clock=clock), handler


@pytest.fixture
async def redis(redis_db: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_db)
    yield client
    await client.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_shards_are_divided_evenly_and_completely() -> None:
    replicas = ["b", "a", "c"]
    parts = [assigned(name, replicas, 8) for name in replicas]
    assert set().union(*parts) == set(range(8))
    assert sum(map(len, parts)) == 8
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert assigned("stranger", replicas, 8) == set()


async def test_a_single_replica_takes_everything(redis: Redis, clock: ManualClock) -> None:
    one, handler = owner(redis, "one", clock)
    await one.turn()
    assert set(one.held) == {0, 1, 2, 3} == set(handler.epochs)


async def test_a_newcomer_gets_its_part_with_the_snapshot_and_a_higher_epoch(
    redis: Redis, clock: ManualClock
) -> None:
    one, first = owner(redis, "one", clock)
    two, second = owner(redis, "two", clock)
    await one.turn()
    before = dict(first.epochs)
    await two.turn()
    assert two.held == {}
    await one.turn()
    await two.turn()
    assert set(one.held) | set(two.held) == {0, 1, 2, 3}
    assert not set(one.held) & set(two.held)
    assert set(two.held) == {1, 3}
    assert all(second.epochs[shard] > before[shard] for shard in two.held)
    assert second.inherited == {1: b"one", 3: b"one"}


async def test_after_release_all_the_other_takes_over(redis: Redis, clock: ManualClock) -> None:
    one, _ = owner(redis, "one", clock)
    two, second = owner(redis, "two", clock)
    await one.turn()
    await one.release_all()
    await two.turn()
    assert set(two.held) == {0, 1, 2, 3}
    assert set(second.inherited.values()) == {b"one"}


async def test_a_dead_replicas_shards_move_when_its_lease_ends(redis: Redis, clock: ManualClock) -> None:
    one, _ = owner(redis, "one", clock)
    two, _ = owner(redis, "two", clock)
    await one.turn()
    clock.advance(7)
    await two.turn()
    assert two.held == {}
    await redis.delete(*[keys.shard_lease("suite", shard, 4) for shard in range(4)])
    await two.turn()
    assert set(two.held) == {0, 1, 2, 3}


async def test_a_paused_owner_is_fenced_and_lets_go(redis: Redis, clock: ManualClock) -> None:
    one, first = owner(redis, "one", clock)
    two, _ = owner(redis, "two", clock)
    await one.turn()
    old = dict(first.epochs)
    await redis.delete(*[keys.shard_lease("suite", shard, 4) for shard in range(4)])
    clock.advance(7)
    await two.turn()
    key = keys.shard_snapshot("suite", 0, 4)
    assert await save_fenced(redis, key, two.held[0], b"new", consumer="suite")
    assert not await save_fenced(redis, key, old[0], b"zombie", consumer="suite")
    loaded = await load_snapshot(redis, key)
    assert loaded is not None
    assert loaded == (two.held[0], b"new")
    await one.turn()
    assert first.lost == [0, 1, 2, 3]


async def test_leases_expire_by_themselves(redis: Redis, clock: ManualClock) -> None:
    one, _ = owner(redis, "one", clock)
    await one.turn()
    assert 0 < await redis.pttl(keys.shard_lease("suite", 0, 4)) <= LEASE_MS


async def test_an_emptied_redis_never_hands_out_a_lower_epoch(redis: Redis, clock: ManualClock) -> None:
    one, first = owner(redis, "one", clock)
    await one.turn()
    before = first.epochs[0]
    await redis.flushdb()
    await one.turn()
    assert one.held[0] == before
    await one.release_all()
    two, _ = owner(redis, "two", clock)
    clock.advance(1)
    await two.turn()
    assert two.held[0] > before


async def test_with_redis_gone_the_assignment_stays(clock: ManualClock, redis: Redis) -> None:
    one, _ = owner(redis, "one", clock)
    await one.turn()
    one._redis = Redis.from_url("redis://127.0.0.1:1/0")
    await one.turn()
    assert set(one.held) == {0, 1, 2, 3}
    await asyncio.wait_for(one.release_all(), 5)
    assert one.held == {}

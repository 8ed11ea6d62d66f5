"""The latest values in Redis, one pipeline per flush; snapshots of shards, fenced by epoch (step 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.cache.shards import load_snapshot, save_fenced
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import CONSOLIDATED

SERVICE: Final = "indicators"
FORMING_TTL_SECONDS: Final = 3_600
VALUES_TTL_SECONDS: Final = 86_400
KEPT_SIGNALS: Final = 1_000
SERIES_CHUNK: Final = 100

_encode = msgspec.msgpack.encode


class RedisLatestStore:
    """`LatestStore` on Redis."""

    def __init__(self, redis: Redis, shards: int) -> None:
        self._redis = redis
        self._shards = shards
        self._indexed: set[str] = set()
        self._scanners: set[tuple[str, str, str]] = set()

    async def write(
        self,
        prices: Sequence[PriceUpdate],
        forming: Sequence[Candle],
        values: Sequence[IndicatorUpdate],
        references: Sequence[ReferencePrice],
    ) -> None:
        """All of one flush in one round trip."""
        if not (prices or forming or values or references):
            return
        new: set[str] = set()
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            for update in prices:
                key = (
                    keys.price(update.symbol)
                    if update.source == CONSOLIDATED
                    else keys.venue_price(update.symbol, update.source)
                )
                pipe.set(key, _encode(update), ex=keys.PRICE_TTL_SECONDS)
                if key not in self._indexed:
                    new.add(key)
            if new:
                pipe.sadd(keys.PRICE_INDEX, *new)
            bars: dict[str, dict[str, bytes]] = {}
            for candle in forming:
                fields_of = bars.setdefault(keys.forming(candle.symbol, candle.source), {})
                if candle.interval in fields_of:
                    # Oldest first: what came before waits for stragglers beside the newest.
                    fields_of[f"{candle.interval}{keys.FORMING_BEFORE}"] = fields_of[candle.interval]
                fields_of[candle.interval] = _encode(candle)
            for key, fields in bars.items():
                pipe.hset(key, mapping=_fields(fields))
                pipe.expire(key, FORMING_TTL_SECONDS)
            found: dict[str, dict[str, bytes]] = {}
            for value in values:
                found.setdefault(keys.indicators(value.symbol, value.source), {})[value.interval] = _encode(
                    value
                )
            for key, fields in found.items():
                pipe.hset(key, mapping=_fields(fields))
                pipe.expire(key, VALUES_TTL_SECONDS)
            for reference in references:
                pipe.set(keys.coin_price(reference.coin_id), _encode(reference), ex=keys.PRICE_TTL_SECONDS)
            await pipe.execute()
        self._indexed |= new

    async def write_scores(
        self, scores: Mapping[tuple[str, str, str], Mapping[str, float]], gone: Sequence[str]
    ) -> None:
        """Scores by (scanner, quote, window); symbols in `gone` are taken out of every scanner."""
        if not scores and not gone:
            return
        self._scanners |= set(scores)
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            for (name, quote, window), members in scores.items():
                pipe.zadd(keys.scanner(name, quote, window), _scores(members))
            if gone:
                for name, quote, window in self._scanners:
                    mine = [symbol for symbol in gone if symbol.endswith(f"-{quote}")]
                    if mine:
                        pipe.zrem(keys.scanner(name, quote, window), *mine)
            await pipe.execute()

    async def write_signals(self, signals: Sequence[Signal]) -> None:
        """Put signals before the older ones; only the newest thousand stay."""
        if not signals:
            return
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(keys.SIGNALS, *[_encode(signal) for signal in signals])
            pipe.ltrim(keys.SIGNALS, 0, KEPT_SIGNALS - 1)
            await pipe.execute()

    async def save_snapshot(self, shard: int, epoch: int, state: bytes) -> bool:
        """See `LatestStore.save_snapshot`."""
        key = keys.shard_snapshot(SERVICE, shard, self._shards)
        async with store_errors():
            return await save_fenced(self._redis, key, epoch, state, consumer=SERVICE)

    async def load_snapshot(self, shard: int) -> bytes | None:
        """The newest state of a shard."""
        async with store_errors():
            found = await load_snapshot(self._redis, keys.shard_snapshot(SERVICE, shard, self._shards))
        return None if found is None else found[1]

    async def save_series(self, shard: int, states: dict[str, bytes]) -> None:
        """States of indicator series, by name."""
        if not states:
            return
        key = keys.series_states(shard, self._shards)
        names = list(states)
        async with store_errors(), self._redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(names), SERIES_CHUNK):
                part = {name: states[name] for name in names[start : start + SERIES_CHUNK]}
                pipe.hset(key, mapping=_fields(part))
            await pipe.execute()

    async def load_series(self, shard: int) -> dict[str, bytes]:
        """All states of a shard."""
        async with store_errors():
            found = await self._redis.hgetall(keys.series_states(shard, self._shards))
        return {_text(name): _bytes(state) for name, state in found.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _fields(fields: Mapping[str, bytes]) -> dict[Any, Any]:
    """As the client's signature takes them: its key type is invariant."""
    return dict(fields)


def _scores(members: Mapping[str, float]) -> dict[Any, Any]:
    """As the client's signature takes them."""
    return dict(members)

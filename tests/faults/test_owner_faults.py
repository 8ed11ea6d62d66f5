"""Shards of the indicator service change hands under load: every closed bar once, values as without any change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.topics import CANDLES, INDICATORS, Queue
from tests.faults.judge import MINUTE_MS, minute_of
from tests.faults.report import Report
from tests.faults.route_case import route_case
from tests.faults.stand import Stand

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.owners, pytest.mark.timeout(1_500)]

MOVES = int(os.environ.get("CRYPTOPULSE_FAULT_MOVES", "200"))
RATE = int(os.environ.get("CRYPTOPULSE_FAULT_RATE", "20000"))
SHARDS = 4
GHOST = "!"
"""A replica that registers and never takes anything: it sorts first, so that every shard changes its owner when it comes."""
NAMES = ("rsi_14", "ema_12", "sma_20", "atr_14", "mfi_14", "adx_14")
"""None of the running sums (`obv`, `adl`): they count from their `anchor`, which is another one in a history."""

SERIES = 4
"""How many of the series with live values are compared."""

Key = tuple[str, str, int]


@dataclass
class Told:
    """What was published of closed minutes: by series and minute the revisions, and whether one was told in two ways."""

    bars: dict[Key, dict[int, Candle]] = field(default_factory=dict)
    values: dict[Key, dict[int, IndicatorUpdate]] = field(default_factory=dict)
    again: int = 0
    differing: list[str] = field(default_factory=list)

    async def candles(self, delivery: Delivery) -> None:
        """A batch of closed candles."""
        for bar in delivery.message.candles:
            self._take(self.bars, bar, bar)

    async def indicators(self, delivery: Delivery) -> None:
        """A batch of values of closed bars."""
        for update in delivery.message.updates:
            self._take(self.values, update, update.values)

    def _take(self, kept: dict[Key, dict[int, Any]], item: Any, content: Any) -> None:
        revisions = kept.setdefault((item.symbol, item.source, item.open_time), {})
        known = revisions.get(item.revision)
        if known is None:
            revisions[item.revision] = item
            return
        self.again += 1
        if (known if content is item else known.values) != content:
            self.differing.append(f"{item.symbol}@{item.source} {item.open_time} revision {item.revision}")


@contextlib.asynccontextmanager
async def hearing(stand: Stand) -> AsyncIterator[Told]:
    """All closed minutes from now on."""
    told = Told()
    bus = RabbitBus(stand.backends.rabbitmq, service="judge")
    await bus.start()
    assert await bus.wait_connected(20)
    for topic, key, handle in (
        (CANDLES, "batch.1m.#", told.candles),
        (INDICATORS, "closed.1m.#", told.indicators),
    ):
        await bus.subscribe(
            Queue(consumer="judge", topic=topic, bindings=(key,), exclusive=True), handle, prefetch=1_000
        )
    try:
        yield told
    finally:
        await bus.close()


class Leases:
    """Who holds each shard, looked at ten times a second, and how often that changed."""

    def __init__(self, redis: redis_asyncio.Redis) -> None:
        self._redis = redis
        self.moves = 0

    async def run(self) -> None:
        """For ever."""
        last: dict[int, Any] = {}
        while True:
            for shard in range(SHARDS):
                holder = await self._redis.get(keys.shard_lease("indicators", shard, SHARDS))
                if holder is not None:
                    self.moves += last.get(shard, holder) != holder
                    last[shard] = holder
            await asyncio.sleep(0.1)

    async def come_and_go(self) -> None:
        """The ghost registers; when the others have what is theirs beside it, it is gone again."""
        await self._redis.zadd(keys.replicas("indicators"), {GHOST: int(time.time() * 1_000)})
        await asyncio.sleep(2.5)
        await self._redis.zrem(keys.replicas("indicators"), GHOST)
        await asyncio.sleep(2.5)


async def owns(stand: Stand, name: str, wanted: int) -> bool:
    """Whether a replica owns so many shards now."""
    return await stand.count(name, "cryptopulse_shards_owned") == wanted


async def refused(stand: Stand) -> int:
    """Writes of old owners that were refused, and shards that an owner found taken."""
    counted = 0
    for name in ("indicators", "indicators2"):
        counted += await stand.count(name, "cryptopulse_shards_epoch_refused_total")
        counted += stand.log(name, 100_000).count("shard lost to another owner")
    return counted


async def wrong_values(stand: Stand, told: Told, from_ms: int, to_ms: int) -> tuple[int, list[str]]:
    """Values as told live beside those folded from the stored candles by one uninterrupted run; how many, and which differ."""
    compared, wrong = 0, []
    for symbol, source in sorted({(symbol, source) for symbol, source, _ in told.values})[:SERIES]:
        for name in NAMES:
            answer = await stand.client.get(
                f"/v1/indicators/{symbol}/{name}/history",
                params={"interval": "1m", "source": source, "from": from_ms, "to": to_ms, "limit": 200},
                headers=stand.token("owners"),
            )
            answer.raise_for_status()
            for row in answer.json()["data"]:
                revisions = told.values.get((symbol, source, row["open_time"]), {})
                if not revisions:
                    wrong.append(f"{symbol}@{source} {row['open_time']}: never told")
                    continue
                live = revisions[max(revisions)].values.get(name)
                compared += 1
                if live != row["values"][name]:
                    wrong.append(
                        f"{name} {symbol}@{source} {row['open_time']}: {live} != {row['values'][name]}"
                    )
    return compared, wrong


async def test_21_shards_move_under_load(stand: Stand) -> None:
    report = Report(21, f"SIGKILL of one of two owners, a third, {MOVES} moves at {RATE:,} ticks/s")
    redis = redis_asyncio.Redis.from_url(stand.servers.redis.urls()["REDIS_URL"])
    leases = Leases(redis)
    from_ms = minute_of(time.time() * 1_000) + MINUTE_MS

    async def during() -> None:
        await stand.control("POST", "/rate", json={"rate": RATE})
        stand.kill("indicators2")
        await stand.until(lambda: owns(stand, "indicators", SHARDS), what="the first has all", seconds=60)
        stand.start("indicators2")
        await stand.until_ready("indicators2")
        await stand.until(lambda: owns(stand, "indicators2", 2), what="the third has two", seconds=60)
        while leases.moves < MOVES:
            await leases.come_and_go()
        await stand.until(lambda: owns(stand, "indicators2", 2), what="it is divided again", seconds=60)
        await stand.control("POST", "/rate", json={"rate": 80})

    async def fill() -> None:
        to_ms = minute_of(time.time() * 1_000) - MINUTE_MS
        series = {(symbol, source) for symbol, source, _ in told.bars}
        missing = [
            f"{symbol}@{source} {at}"
            for symbol, source in series
            for at in range(from_ms, to_ms, MINUTE_MS)
            if (symbol, source, at) not in told.bars
        ]
        compared, wrong = await wrong_values(stand, told, from_ms, to_ms)
        report.notes |= {
            "moves": leases.moves,
            "refused": await refused(stand),
            "bars": len(told.bars),
            "revised": sum(len(revisions) - 1 for revisions in told.bars.values()),
            "told_again": told.again,
            "told_differently": told.differing[:5],
            "bars_missing": missing[:5],
            "values_compared": compared,
            "values_wrong": wrong[:5],
        }
        report.lost = (report.lost or 0) + len(missing)
        report.doubled = (report.doubled or 0) + len(told.differing)
        assert compared
        assert not wrong, wrong[:5]

    stand.start("indicators2")
    await stand.until_ready("indicators2")
    await stand.until(lambda: owns(stand, "indicators2", 2), what="the second has two shards", seconds=60)
    watching = asyncio.create_task(leases.run())
    try:
        async with hearing(stand) as told:
            await route_case(stand, report, during, fill=fill)
    finally:
        watching.cancel()
        await redis.aclose()

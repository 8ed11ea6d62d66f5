"""Ticks that waited too long are folded into candles; forming indicators are looked at again once the shard has caught up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.ticks import TickBatch, Trade
from cryptopulse.indicators.application import shard
from cryptopulse.indicators.application.shard import ShardWorker

START_MS = 1_700_000_040_000


class Outside:
    """Stores, bus and ingestor of a worker, remembering what is told of forming bars."""

    def __init__(self) -> None:
        self.live: list[IndicatorUpdate] = []
        self.forming: list[Candle] = []

    async def load_snapshot(self, _shard: int) -> None:
        return None

    async def load_series(self, _shard: int) -> dict[str, bytes]:
        return {}

    async def range(self, *_: Any, **__: Any) -> list[Candle]:
        return []

    async def write(
        self, _prices: Any, forming: Sequence[Candle], values: Sequence[IndicatorUpdate], _references: Any
    ) -> None:
        self.forming += forming

    async def write_scores(self, *_: Any) -> None:
        return None

    async def live_values(self, _shard: int, _epoch: int, updates: Sequence[IndicatorUpdate]) -> None:
        self.live += updates


class Message:
    def __init__(self, message: TickBatch) -> None:
        self.message = message


async def give(worker: ShardWorker, seq: int, event_ms: int, received_ms: int, price: str) -> None:
    trade = Trade(
        "BTC-USDT", seq, Decimal(price), Decimal(1), "buy", event_ms * 1000, received_ms * 1000
    )  # fmt: skip
    batch = TickBatch(venue="binance", shard=0, epoch=1, seq=seq, sent_us=received_ms * 1000, trades=[trade])
    delivery: Any = Message(batch)
    await worker.on_ticks(delivery)


async def test_late_ticks_are_folded_without_a_look_at_forming_bars() -> None:
    clock, outside = ManualClock(START_MS), Outside()
    world: Any = outside
    worker = ShardWorker(
        0, 1, rate=lambda _asset, _now: None, store=world, latest=world, publisher=world, requests=world,
        clock=clock, live_sources=None,
    )  # fmt: skip
    await worker.open()
    await give(worker, 1, START_MS, START_MS, "60000")
    await worker.warm()
    skipped = shard.backpressure_total._value.get()
    clock.advance(5)
    await give(worker, 2, START_MS + 500, START_MS + 500, "60010")
    assert worker.lag_us == 4_500_000
    await worker.flush_values()
    assert outside.live == []
    assert shard.backpressure_total._value.get() > skipped
    assert {bar.close for bar in outside.forming if bar.source == "binance"} == {Decimal(60010)}
    now = clock.now_ms()
    await give(worker, 3, now, now, "60020")
    await worker.flush_values()
    told = {update.close for update in outside.live if update.source == "binance"}
    assert told == {60020.0}

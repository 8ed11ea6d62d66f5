"""The shards that this replica owns: their queues in, each input handed to the shard's evaluation (step 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from cryptopulse.alerts.application.evaluate import AbandonedError, ShardEvaluation
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.rules import Firing
from cryptopulse.common.bus.protocols import Bus, Delivery, Subscription
from cryptopulse.common.contracts.candles import CandleBatch
from cryptopulse.common.contracts.indicators import IndicatorBatch, Signal
from cryptopulse.common.contracts.portfolio import PortfolioValueBatch
from cryptopulse.common.contracts.prices import PriceBatch
from cryptopulse.common.contracts.ticks import TickBatch
from cryptopulse.common.contracts.topics import (
    CANDLES,
    INDICATORS,
    INDICATORS_LIVE,
    PORTFOLIO_VALUES,
    PRICES,
    SIGNALS,
    TICKS,
    Queue,
    Topic,
)
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)
CONSUMER: Final = "alerts"
FINISH_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 1.0

MakeEvaluation = Callable[[int, int], ShardEvaluation]


@dataclass(slots=True)
class _Tracked:
    """A subscription whose messages are acked when their effect is stored."""

    subscription: Subscription
    last: Delivery | None = None
    covered: Delivery | None = None


@dataclass(slots=True)
class OwnedShard:
    """One shard with its queues and loops."""

    evaluation: ShardEvaluation
    tracked: list[_Tracked] = field(default_factory=list)
    others: list[Subscription] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class ShardStream:
    """`ShardHandler`: what happens when a shard becomes ours, and when it goes."""

    def __init__(
        self, bus: Bus, make: MakeEvaluation, *, shards: int, prefetch: int, save_seconds: float
    ) -> None:
        self._bus = bus
        self._make = make
        self._shards = shards
        self._prefetch = prefetch
        self._save_seconds = save_seconds
        self._owned: dict[int, OwnedShard] = {}

    @property
    def evaluations(self) -> list[ShardEvaluation]:
        """The evaluations of the shards that are ours now."""
        return [owned.evaluation for owned in self._owned.values()]

    async def acquire(self, shard: int, epoch: int) -> None:
        """Load rules and positions, then take the queues. Raises when a store is away: the owner tries again."""
        evaluation = self._make(shard, epoch)
        await evaluation.load()
        owned = OwnedShard(evaluation)
        self._owned[shard] = owned
        try:
            await self._subscribe(shard, owned)
        except Exception:
            await self.release(shard, lost=True)
            raise
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "timer": lambda: self._timer(owned),
            "repair": lambda: evaluation.repair(lambda: None),
        }
        for name, loop in loops.items():
            owned.tasks.append(asyncio.create_task(_supervised(loop), name=f"{name}:{shard}"))

    async def release(self, shard: int, *, lost: bool) -> None:
        """Stop consuming, finish what is in hand, store, ack, close; `lost`: store nothing."""
        owned = self._owned.pop(shard, None)
        if owned is None:
            return
        subscriptions = [*(tracked.subscription for tracked in owned.tracked), *owned.others]
        pauses = [asyncio.create_task(subscription.pause()) for subscription in subscriptions]
        # A step that waits for a store which is away gives up once the evaluation is closed.
        await asyncio.wait(pauses, timeout=FINISH_SECONDS)
        owned.evaluation.close()
        await asyncio.wait(pauses, timeout=FINISH_SECONDS)
        for task in owned.tasks:
            task.cancel()
        await asyncio.gather(*owned.tasks, return_exceptions=True)
        if not lost:
            try:
                await self._save(owned)
            except Retryable as error:
                log.warning("shard given up unsaved: the successor replays", shard=shard, error=str(error))
        for subscription in subscriptions:
            await subscription.close()

    async def _subscribe(self, shard: int, owned: OwnedShard) -> None:
        evaluation = owned.evaluation
        await self._tracked(owned, TICKS, f"batch.{shard}.#", shard, _on_ticks)
        await self._tracked(owned, PRICES, f"batch.{shard}", shard, _on_prices)
        await self._other(owned, CANDLES, f"batch.*.{shard}", shard, _on_candles)
        await self._other(owned, INDICATORS, f"closed.*.{shard}", shard, _on_indicators)
        await self._other(owned, INDICATORS_LIVE, f"live.*.{shard}", shard, _on_indicators)
        if evaluation.is_home("*"):
            await self._other(owned, SIGNALS, "signal.#", shard, _on_signal)
            await self._other(owned, PORTFOLIO_VALUES, "values.#", shard, _on_portfolio)

    async def _tracked(self, owned: OwnedShard, topic: Topic, key: str, shard: int, work: Input) -> None:
        holder: list[_Tracked] = []

        async def handle(delivery: Delivery) -> None:
            try:
                await owned.evaluation.step(lambda engine, now: work(engine, delivery.message, now))
            except AbandonedError:
                return
            holder[0].last = delivery

        queue = Queue(CONSUMER, topic, (key,), shard=shard, shards=self._shards)
        # The first message may come before `subscribe` returns.
        placeholder = _Tracked(_Nothing())
        holder.append(placeholder)
        placeholder.subscription = await self._bus.subscribe(
            queue, handle, prefetch=self._prefetch, manual_ack=True, name=queue.name
        )
        owned.tracked.append(placeholder)

    async def _other(self, owned: OwnedShard, topic: Topic, key: str, shard: int, work: Input) -> None:
        async def handle(delivery: Delivery) -> None:
            try:
                await owned.evaluation.step(lambda engine, now: work(engine, delivery.message, now))
            except AbandonedError as error:
                raise Retryable("the shard moves to another owner") from error

        queue = Queue(CONSUMER, topic, (key,), shard=shard, shards=self._shards)
        owned.others.append(await self._bus.subscribe(queue, handle, prefetch=50, name=queue.name))

    async def _timer(self, owned: OwnedShard) -> None:
        """Every second: time passes in the engine, and what was done is stored and acked."""
        while True:
            await asyncio.sleep(self._save_seconds)
            try:
                await owned.evaluation.step(lambda engine, now: engine.on_time(now))
                await self._save(owned)
            except AbandonedError:
                return
            except Retryable as error:
                log.warning("positions wait for the store", shard=owned.evaluation.shard, error=str(error))

    async def _save(self, owned: OwnedShard) -> None:
        def taken() -> None:
            for tracked in owned.tracked:
                tracked.covered = tracked.last

        await owned.evaluation.save(taken)
        for tracked in owned.tracked:
            if tracked.covered is not None:
                await tracked.subscription.ack(tracked.covered)
                if tracked.last is tracked.covered:
                    tracked.last = None
                tracked.covered = None


class _Nothing:
    """A subscription before it is there."""

    async def ack(self, upto: Delivery) -> None:
        """Nothing to ack."""

    async def pause(self) -> None:
        """Nothing to pause."""

    async def close(self) -> None:
        """Nothing to close."""

    @property
    def active(self) -> bool:
        """Not there."""
        return False


Input = Callable[[ShardEngine, object, int], list[Firing]]


def _on_ticks(engine: ShardEngine, message: object, now_us: int) -> list[Firing]:
    assert isinstance(message, TickBatch)
    return engine.on_ticks(message, now_us)


def _on_prices(engine: ShardEngine, message: object, now_us: int) -> list[Firing]:
    assert isinstance(message, PriceBatch)
    return [firing for update in message.prices for firing in engine.on_price(update, now_us)]


def _on_candles(engine: ShardEngine, message: object, now_us: int) -> list[Firing]:
    assert isinstance(message, CandleBatch)
    return [firing for candle in message.candles for firing in engine.on_candle(candle, now_us)]


def _on_indicators(engine: ShardEngine, message: object, now_us: int) -> list[Firing]:
    assert isinstance(message, IndicatorBatch)
    return [firing for update in message.updates for firing in engine.on_indicators(update, now_us)]


def _on_signal(engine: ShardEngine, message: object, now_us: int) -> list[Firing]:
    assert isinstance(message, Signal)
    return engine.on_signal(message, now_us)


def _on_portfolio(engine: ShardEngine, message: object, now_us: int) -> list[Firing]:
    assert isinstance(message, PortfolioValueBatch)
    return [firing for value in message.values for firing in engine.on_portfolio(value, now_us)]


async def _supervised(loop: Callable[[], Awaitable[None]]) -> None:
    """A shard's loop: an unexpected error is logged with its trace, and the loop begins again."""
    while True:
        try:
            await loop()
            return
        except AbandonedError:
            return
        except Exception:
            log.exception("a loop of a shard failed")
            await asyncio.sleep(AGAIN_SECONDS)

"""The shards that this replica owns: acquired and released by the division among replicas, worked on by a few loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cryptopulse.common.bus.protocols import Bus, Delivery, Subscription
from cryptopulse.common.contracts.feeds import FeedStatus
from cryptopulse.common.contracts.prices import PriceBatch
from cryptopulse.common.contracts.topics import FEEDS, HISTORY, PRICES, TICKS, Queue
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.indicators.application.rates import RateBook
from cryptopulse.indicators.application.shard import ShardWorker

log = get_logger(__name__)
CONSUMER: Final = "indicators"
DOWN_STATES: Final = frozenset({"connecting", "backoff", "stopped"})

Beat = Callable[[], None]
MakeWorker = Callable[[int, int], ShardWorker]


class Shards:
    """The workers of this replica. A `ShardHandler` for the division of shards."""

    def __init__(self, bus: Bus, shards: int, make: MakeWorker, *, prefetch: int) -> None:
        self._bus = bus
        self._shards = shards
        self._make = make
        self._prefetch = prefetch
        self.workers: dict[int, ShardWorker] = {}
        self._down: dict[str, int] = {}

    async def acquire(self, shard: int, epoch: int) -> None:
        """Load the snapshot, then consume."""
        worker = self._make(shard, epoch)
        worker.market.down = self._down
        await worker.open()
        worker.market.down = self._down
        worker.ticks = await self._bus.subscribe(
            Queue(
                consumer=CONSUMER,
                topic=TICKS,
                bindings=(f"batch.{shard}.#",),
                shard=shard,
                shards=self._shards,
            ),
            worker.on_ticks,
            prefetch=self._prefetch,
            manual_ack=True,
            name=f"ticks-{shard}",
        )
        worker.history = await self._bus.subscribe(
            Queue(
                consumer=CONSUMER,
                topic=HISTORY,
                bindings=(f"backfill.{shard}.#",),
                shard=shard,
                shards=self._shards,
            ),
            worker.on_history,
            name=f"history-{shard}",
        )
        self.workers[shard] = worker

    async def release(self, shard: int, *, lost: bool) -> None:
        """Hand a shard over."""
        worker = self.workers.pop(shard, None)
        if worker is not None:
            await worker.close(lost=lost)

    def on_feed(self, status: FeedStatus) -> None:
        """Remember since when a venue is down, for all shards."""
        if status.active and status.state in DOWN_STATES:
            self._down.setdefault(status.venue, status.at_us)
        elif status.active:
            self._down.pop(status.venue, None)

    def every(
        self,
        seconds: float,
        work: Callable[[ShardWorker], Awaitable[None]],
        what: str,
        *,
        spread: bool = False,
    ) -> Callable[[Beat], Awaitable[None]]:
        """A loop that does `work` for each owned shard about every `seconds`; what is away is tried again next time.

        The shards take their turns one after the other, or evenly over the time with `spread`: work that fills a core for
        a good part of a second at once makes every other process of a small machine wait for as long.
        """

        async def run(beat: Beat) -> None:
            loop = asyncio.get_running_loop()
            while True:
                started = loop.time()
                workers = list(self.workers.values())
                for place, worker in enumerate(workers):
                    if spread and place:
                        await asyncio.sleep(started + seconds * place / len(workers) - loop.time())
                    if self.workers.get(worker.shard) is not worker:
                        continue  # handed over meanwhile
                    try:
                        await work(worker)
                    except Retryable as error:
                        log.warning("work failed", what=what, shard=worker.shard, error=str(error)[:200])
                    beat()
                beat()
                spent = loop.time() - started
                await asyncio.sleep(max(0.005, seconds - spent))

        return run


async def subscribe_rates(bus: Bus, rates: RateBook) -> Subscription:
    """Every replica hears the USD rates of quote assets on a queue of its own."""

    async def handle(delivery: Delivery) -> None:
        batch: PriceBatch = delivery.message
        for update in batch.prices:
            rates.take(update)

    queue = Queue(
        consumer=CONSUMER,
        topic=PRICES,
        bindings=tuple(f"price.{symbol}" for symbol in rates.SYMBOLS),
        exclusive=True,
    )
    return await bus.subscribe(queue, handle, name="rates")


async def subscribe_feeds(bus: Bus, shards: Shards) -> Subscription:
    """Every replica hears the state of the feeds."""

    async def handle(delivery: Delivery) -> None:
        shards.on_feed(delivery.message)

    queue = Queue(consumer=CONSUMER, topic=FEEDS, bindings=("status.#",), exclusive=True)
    return await bus.subscribe(queue, handle, name="feeds")

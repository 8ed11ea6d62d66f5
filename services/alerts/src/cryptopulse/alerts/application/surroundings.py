"""What rules need from outside of their shard's queues: values of other shards, watched portfolios, new pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from cryptopulse.alerts.application.evaluate import AbandonedError, ShardEvaluation
from cryptopulse.alerts.application.ports import MarketReader, Portfolios
from cryptopulse.alerts.domain.evaluation import ShardEngine, indicator_value
from cryptopulse.alerts.domain.rules import Firing
from cryptopulse.alerts.domain.thresholds import Number
from cryptopulse.alerts.domain.wiring import Metric
from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)
EVERY_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 30.0
LISTINGS_SECONDS: Final = 10.0


class Listings(Protocol):
    """Which pairs were seen before."""

    async def new_listings(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those (symbol, venue) that are new."""
        ...


class Surroundings:
    """One loop a second; what is away is tried again, and never stops the rest."""

    def __init__(
        self,
        evaluations: Callable[[], list[ShardEvaluation]],
        market: MarketReader,
        listings: Listings,
        portfolios: Portfolios,
        clock: Clock,
    ) -> None:
        self._evaluations = evaluations
        self._market = market
        self._listings = listings
        self._portfolios = portfolios
        self._clock = clock
        self._due: dict[str, float] = {}
        self._watched: frozenset[int] = frozenset()

    async def run(self, beat: Callable[[], None]) -> None:
        """For ever."""
        while True:
            beat()
            for evaluation in self._evaluations():
                looks = [self._foreign]
                if evaluation.is_home("*"):
                    looks += [self._watch, self._look_for_listings]
                for look in looks:
                    await self._look(look, evaluation)
            await asyncio.sleep(EVERY_SECONDS)

    async def _look(
        self, look: Callable[[ShardEvaluation], Awaitable[None]], evaluation: ShardEvaluation
    ) -> None:
        try:
            await look(evaluation)
        except AbandonedError:
            return
        except Retryable as error:
            log.warning("surroundings of a shard are away", shard=evaluation.shard, error=str(error))

    async def _foreign(self, evaluation: ShardEvaluation) -> None:
        for metric in evaluation.engine.foreign():
            found = await self._read(metric)
            if found is not None:
                await evaluation.step(_feeding(metric, *found))

    async def _read(self, metric: Metric) -> tuple[Number, int] | None:
        if metric.kind == "price":
            current = await self._market.price(metric.symbol, metric.source)
            return (
                None if current is None or current.status == "stale" else (current.price, current.received_us)
            )
        update = await self._market.indicator(metric.symbol, metric.source, str(metric.detail[0]))
        if update is None or (metric.detail[1] == "close" and not update.closed):
            return None
        value = indicator_value(update, metric)
        return None if value is None else (value, update.as_of_us)

    async def _watch(self, evaluation: ShardEvaluation) -> None:
        wanted = frozenset(evaluation.engine.portfolios())
        if wanted and (self._is_due("watch", WATCH_SECONDS) or not wanted <= self._watched):
            await self._portfolios.watch(wanted)
            self._watched = wanted

    async def _look_for_listings(self, evaluation: ShardEvaluation) -> None:
        if not self._is_due("listings", LISTINGS_SECONDS):
            return
        catalogue = (await self._market.resolver()).catalogue
        pairs = [(pair.symbol, venue) for pair in catalogue.pairs for venue in pair.venues]
        for symbol, venue in await self._listings.new_listings(pairs):
            await evaluation.step(_listing(symbol, venue))

    def _is_due(self, name: str, every: float) -> bool:
        now = self._clock.monotonic()
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + every
        return True


def _feeding(metric: Metric, value: Number, at_us: int) -> Callable[[ShardEngine, int], list[Firing]]:
    return lambda engine, now: engine.feed(metric, value, at_us, now)


def _listing(symbol: str, venue: str) -> Callable[[ShardEngine, int], list[Firing]]:
    return lambda engine, now: engine.on_listing(symbol, venue, now)

"""The composition root: the only place that creates adapters and reads settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache.client import Pinger, connect
from cryptopulse.common.cache.shards import ShardOwner
from cryptopulse.common.contracts.intervals import PUBLIC_INTERVALS
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Retryable
from cryptopulse.common.runtime.service import Runtime
from cryptopulse.common.security.identity import InternalSigner, InternalVerifier, authenticate
from cryptopulse.common.telemetry.checks import Check
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.indicators.adapters.candle_repository import CandleRepository
from cryptopulse.indicators.adapters.catalogue_repository import CatalogueRepository
from cryptopulse.indicators.adapters.history_requests import IngestorHistoryRequests
from cryptopulse.indicators.adapters.latest_reader import RedisLatestReader
from cryptopulse.indicators.adapters.latest_store import RedisLatestStore
from cryptopulse.indicators.adapters.positions import RedisPositions
from cryptopulse.indicators.adapters.publisher import BusMarketPublisher
from cryptopulse.indicators.adapters.ta_engine import TaEngine
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.application.query_history import HistoryQueries
from cryptopulse.indicators.application.query_trends import TrendQueries
from cryptopulse.indicators.application.rates import RateBook
from cryptopulse.indicators.application.shard import ShardWorker
from cryptopulse.indicators.application.witness import WitnessRound
from cryptopulse.indicators.entrypoints.catalogue import CatalogueConsumer
from cryptopulse.indicators.entrypoints.coins import coin_router, symbol_router
from cryptopulse.indicators.entrypoints.http import indicator_router, price_router
from cryptopulse.indicators.entrypoints.shards import Shards, subscribe_feeds, subscribe_rates
from cryptopulse.indicators.entrypoints.trends import trends_router
from cryptopulse.indicators.settings import Settings

log = get_logger(__name__)


@asynccontextmanager
async def build(settings: Settings, runtime: Runtime) -> AsyncIterator[None]:
    """Create, register, yield, close."""
    facts, clock = settings.facts(), runtime.clock
    redis = connect(settings.redis_url.get_secret_value(), name=runtime.name)
    pinger = Pinger(redis)
    database = Database(
        settings.database_url.get_secret_value(),
        schema=facts.schema,
        role=facts.role,
        application_name=runtime.name,
        max_size=settings.database_connections,
    )
    bus = RabbitBus(settings.rabbitmq_url.get_secret_value(), service=runtime.name, clock=clock)
    signer = InternalSigner(settings.internal_jwt_secret, runtime.name, clock=clock)
    ingestor = ServiceClient(settings.ingestor_url, "ingestor", signer, clock=clock)

    store = CandleRepository(database)
    latest = RedisLatestStore(redis, settings.shards)
    reader = RedisLatestReader(redis)
    view = CatalogueView(reader)
    rates = RateBook()
    engine = TaEngine(settings.worker_processes)
    publisher = BusMarketPublisher(bus, clock, RedisPositions(redis))
    requests = IngestorHistoryRequests(ingestor)

    def worker(shard: int, epoch: int) -> ShardWorker:
        return ShardWorker(
            shard,
            epoch,
            rate=rates.usd,
            store=store,
            latest=latest,
            publisher=publisher,
            requests=requests,
            clock=clock,
            live_sources=None if settings.live_sources == "all" else frozenset({CONSOLIDATED}),
        )

    shards = Shards(bus, settings.shards, worker, prefetch=settings.prefetch)
    owner = ShardOwner(
        redis,
        service=runtime.name,
        replica=runtime.replica_id,
        shards=settings.shards,
        handler=shards,
        clock=clock,
    )
    catalogue = CatalogueConsumer(CatalogueRepository(database, redis), view)

    await database.start()
    await pinger.start()
    await bus.start()
    await subscribe_rates(bus, rates)
    await subscribe_feeds(bus, shards)
    await catalogue.subscribe(bus)

    authenticate(runtime.app, InternalVerifier(settings.internal_jwt_secret, runtime.name, clock=clock))
    cursor = Cursor(settings.internal_jwt_secret)
    queries = HistoryQueries(store, reader, engine)
    for router in (
        price_router(view, queries, store, reader, cursor, clock),
        indicator_router(view, queries, reader, cursor, clock),
        symbol_router(view, cursor),
        coin_router(view, reader, clock),
        trends_router(view, TrendQueries(reader, store), clock),
    ):
        runtime.app.include_router(router)

    runtime.check(
        "rabbitmq", lambda: Check(ok=bus.is_connected, detail="" if bus.is_connected else "not connected")
    )
    runtime.check("redis", pinger.check)
    runtime.check("postgres", database.check)

    _register_loops(settings, runtime, shards, owner, catalogue)
    if settings.witness_seconds:
        rounds = WitnessRound(store, engine)
        runtime.loop(
            "witness",
            _witness(rounds, shards, settings.witness_seconds),
            stall_seconds=settings.witness_seconds + 60,
        )
    _register_upkeep(settings, runtime, store)
    runtime.on_drain("shards", owner.release_all, timeout_seconds=15)
    try:
        yield
    finally:
        engine.close()
        await bus.close()
        await ingestor.close()
        await pinger.close()
        await redis.aclose()
        await database.close()


def _register_loops(
    settings: Settings, runtime: Runtime, shards: Shards, owner: ShardOwner, catalogue: CatalogueConsumer
) -> None:
    runtime.loop("shards", owner.run, stall_seconds=60)
    runtime.loop("catalogue", catalogue.run)
    runtime.loop("pairs", shards.every(1.0, catalogue.note_pairs, "noting of pairs"))
    runtime.loop("prices", shards.every(settings.flush_ms / 1000, _prices, "flush of prices"))
    looks = shards.every(settings.values_ms / 1000, ShardWorker.flush_values, "flush of values", spread=True)
    runtime.loop("values", looks)
    runtime.loop(
        "storage", shards.every(0.25, ShardWorker.store_closed, "storing of candles"), stall_seconds=60
    )
    runtime.loop("snapshots", shards.every(0.05, _snapshots(settings.snapshot_ms), "snapshot"))
    runtime.loop("warming", shards.every(0.5, ShardWorker.warm, "building of series"), stall_seconds=120)
    runtime.loop(
        "holes",
        shards.every(settings.holes_seconds, ShardWorker.ask_for_holes, "search for holes"),
        stall_seconds=7_200,
    )


async def _prices(worker: ShardWorker) -> None:
    worker.tick_clock()
    await worker.flush_prices()


def _snapshots(every_ms: int) -> Callable[[ShardWorker], Awaitable[None]]:
    async def snapshot(worker: ShardWorker) -> None:
        if worker.is_snapshot_due(every_ms):
            await worker.snapshot()

    return snapshot


def _witness(
    rounds: WitnessRound, shards: Shards, seconds: float
) -> Callable[[Callable[[], None]], Awaitable[None]]:
    """Compare one live series after the other with `ta`, one every `seconds`."""

    async def run(beat: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await rounds.check_one([worker.book for worker in shards.workers.values()])
            except Retryable as error:
                log.info("witness not asked", error=str(error)[:200])
            beat()

    return run


def _register_upkeep(settings: Settings, runtime: Runtime, store: CandleRepository) -> None:
    """Retention: once an hour, partitions that are older than they need to be."""

    async def run(beat: Callable[[], None]) -> None:
        while True:
            for interval in PUBLIC_INTERVALS:
                days = settings.retention_days.get(interval)
                if days:
                    try:
                        gone = await store.drop_before(interval, days)
                        if gone:
                            log.info("old candles dropped", interval=interval, partitions=gone)
                    except Retryable as error:
                        log.info("retention postponed", error=str(error)[:200])
                beat()
            await asyncio.sleep(3_600)

    runtime.loop("retention", run, stall_seconds=7_200)

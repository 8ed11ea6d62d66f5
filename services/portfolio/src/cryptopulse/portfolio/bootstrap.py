"""The composition root: creates the adapters, wires the use cases, registers routes, loops and drain steps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptopulse.common.bus.protocols import Subscription
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache import client as cache
from cryptopulse.common.contracts.topics import PORTFOLIO_EVENTS, PRICES, Queue
from cryptopulse.common.database.outbox import OutboxRelay
from cryptopulse.common.database.pool import Database
from cryptopulse.common.runtime.service import Runtime
from cryptopulse.common.security.identity import InternalSigner, InternalVerifier, authenticate
from cryptopulse.common.telemetry.checks import Check
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.portfolio.adapters.books import PostgresBooks
from cryptopulse.portfolio.adapters.catalogue import RedisCatalogue
from cryptopulse.portfolio.adapters.close_reader import HttpCloseReader
from cryptopulse.portfolio.adapters.live_feed import BusValuePublisher, ChangeListener, PriceBoard
from cryptopulse.portfolio.adapters.price_reader import RedisPriceReader
from cryptopulse.portfolio.adapters.wanted import IngestorWantedCoins
from cryptopulse.portfolio.adapters.watched import PostgresWatchedBooks
from cryptopulse.portfolio.application.gains import GainsReader
from cryptopulse.portfolio.application.imports.jobs import ImportJobs
from cryptopulse.portfolio.application.imports.use_case import Importer
from cryptopulse.portfolio.application.ledger import Ledger
from cryptopulse.portfolio.application.live import LiveValues
from cryptopulse.portfolio.application.performance import Performer
from cryptopulse.portfolio.application.valuation import Valuer
from cryptopulse.portfolio.application.worth import Worth
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.entrypoints.books_http import BooksHttp
from cryptopulse.portfolio.entrypoints.gains_http import GainsHttp
from cryptopulse.portfolio.entrypoints.http import routes
from cryptopulse.portfolio.entrypoints.imports_http import ImportsHttp, import_response
from cryptopulse.portfolio.entrypoints.reports_http import ReportsHttp
from cryptopulse.portfolio.settings import PortfolioSettings


@asynccontextmanager
async def build(settings: PortfolioSettings, runtime: Runtime) -> AsyncIterator[None]:
    """Everything this service is made of; closed in the reverse order."""
    use_money_context()
    clock = runtime.clock
    facts = settings.facts()
    database = Database(
        settings.database_url.get_secret_value(),
        schema=facts.schema,
        role=facts.role,
        application_name=runtime.replica_id,
        max_size=settings.database_connections,
    )
    redis = cache.connect(settings.redis_url.get_secret_value(), name=runtime.name)
    pinger = cache.Pinger(redis)
    bus = RabbitBus(settings.rabbitmq_url.get_secret_value(), service=runtime.name, clock=clock)
    signer = InternalSigner(settings.internal_jwt_secret, runtime.name, clock=clock)
    indicators = ServiceClient(str(settings.indicators_url), "indicators", signer, clock=clock)
    ingestor = ServiceClient(str(settings.ingestor_url), "ingestor", signer, clock=clock)
    authenticate(runtime.app, InternalVerifier(settings.internal_jwt_secret, runtime.name, clock=clock))

    catalogue = RedisCatalogue(redis)
    prices = RedisPriceReader(redis, catalogue, clock)
    closes = HttpCloseReader(indicators, catalogue, clock)
    wanted = IngestorWantedCoins(ingestor, settings.wanted_interval_seconds)
    books = PostgresBooks(database, legs_kept=settings.legs_kept)
    ledger = Ledger(books, Worth(prices, closes, catalogue, clock), wanted, clock)
    valuer = Valuer(books, prices, closes, wanted, clock)
    board = PriceBoard(catalogue, clock)
    live = LiveValues(
        PostgresWatchedBooks(database), board, prices, BusValuePublisher(bus), wanted, clock,
        limit=settings.watched_limit, interval_seconds=settings.live_interval_seconds, epoch=int(time.time() * 1000),
    )  # fmt: skip
    relay = OutboxRelay(database, bus)
    importer = Importer(books, ledger, prices, closes, catalogue, clock)
    jobs = ImportJobs(importer, books, clock, lambda found: import_response(found).model_dump_json().encode())

    handlers = [
        BooksHttp(books, ledger, catalogue, Cursor(settings.internal_jwt_secret)),
        ReportsHttp(ledger, valuer, live),
        GainsHttp(
            books, GainsReader(books, valuer, clock), Performer(books, prices, closes, catalogue, clock)
        ),
        ImportsHttp(importer, jobs),
    ]
    runtime.app.include_router(routes(handlers))
    runtime.check("postgres", database.check)
    runtime.check("redis", pinger.check)
    runtime.check(
        "rabbitmq", lambda: Check(ok=bus.is_connected, detail="" if bus.is_connected else "not connected")
    )
    runtime.loop("catalogue", catalogue.run)
    runtime.loop("wanted", wanted.run)
    runtime.loop("live", live.run)
    runtime.loop("outbox", relay.run)
    runtime.loop("imports", jobs.run, stall_seconds=120)

    await database.start()
    await pinger.start()
    await bus.start()
    subscriptions = await _subscribed(bus, board, live, runtime.name)
    runtime.on_drain("outbox", relay.drain, timeout_seconds=3.0)
    try:
        yield
    finally:
        for subscription in subscriptions:
            await subscription.close()
        await bus.close()
        await indicators.close()
        await ingestor.close()
        await pinger.close()
        await redis.aclose()
        await database.close()


async def _subscribed(bus: RabbitBus, board: PriceBoard, live: LiveValues, name: str) -> list[Subscription]:
    """All prices, and what changed in any book, on queues of this replica's own."""
    prices = Queue(consumer=name, topic=PRICES, bindings=("batch.#",), exclusive=True, max_length=200)
    changes = Queue(consumer=name, topic=PORTFOLIO_EVENTS, bindings=("portfolio.#",), exclusive=True)
    return [
        await bus.subscribe(prices, board.on_prices, name="prices"),
        await bus.subscribe(changes, ChangeListener(live).on_change, name="changes"),
    ]

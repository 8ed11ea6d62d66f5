"""The composition root of the alerts service: adapters, use cases, entrypoints, loops, in the order of their life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from cryptopulse.alerts.adapters.changes import listen
from cryptopulse.alerts.adapters.delivery_store import PostgresDeliveryStore
from cryptopulse.alerts.adapters.firing_store import DELIVERIES_CHANNEL, PostgresFiringStore
from cryptopulse.alerts.adapters.market_reader import HttpCandleReader, RedisMarketReader
from cryptopulse.alerts.adapters.notices import PostgresNotices
from cryptopulse.alerts.adapters.pinned import PinnedSender
from cryptopulse.alerts.adapters.portfolios import HttpPortfolios
from cryptopulse.alerts.adapters.rule_repository import RULES_CHANNEL, PostgresRuleRepository
from cryptopulse.alerts.adapters.shard_store import PostgresShardStore
from cryptopulse.alerts.adapters.webhook_repository import PostgresWebhookRepository
from cryptopulse.alerts.application.deliver import DeliveryWorker
from cryptopulse.alerts.application.evaluate import ShardEvaluation
from cryptopulse.alerts.application.manage_rules import RuleManager
from cryptopulse.alerts.application.manage_webhooks import WebhookManager
from cryptopulse.alerts.application.preview import Preview
from cryptopulse.alerts.application.send_trial import SendTrial
from cryptopulse.alerts.application.surroundings import Surroundings
from cryptopulse.alerts.entrypoints.http import alert_routes
from cryptopulse.alerts.entrypoints.http_webhooks import webhook_routes
from cryptopulse.alerts.entrypoints.rule_changes import RuleChanges
from cryptopulse.alerts.entrypoints.stream import ShardStream
from cryptopulse.alerts.settings import AlertsSettings
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache import client as cache
from cryptopulse.common.cache.shards import ShardOwner
from cryptopulse.common.database.outbox import OutboxRelay
from cryptopulse.common.database.pool import Database
from cryptopulse.common.runtime import Check, Runtime
from cryptopulse.common.security.identity import InternalSigner
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.common.web.pagination import Cursor

DRAIN_SECONDS = 8.0


@asynccontextmanager
async def build(  # noqa: PLR0915 - one line per part, in the order of their life
    settings: AlertsSettings, runtime: Runtime
) -> AsyncIterator[None]:
    """Wire everything, and close it in reverse order."""
    clock = runtime.clock
    facts = settings.facts()
    async with AsyncExitStack() as stack:
        db = Database(
            settings.database_url.get_secret_value(),
            schema=facts.schema,
            role=facts.role,
            application_name=runtime.replica_id,
            max_size=settings.database_pool_max,
        )
        await db.start()
        stack.push_async_callback(db.close)
        redis = cache.connect(settings.redis_url.get_secret_value(), name="alerts")
        stack.push_async_callback(redis.aclose)
        pinger = cache.Pinger(redis)
        await pinger.start()
        stack.push_async_callback(pinger.close)
        bus = RabbitBus(settings.rabbitmq_url.get_secret_value(), service="alerts", clock=clock)
        await bus.start()
        stack.push_async_callback(bus.close)
        signer = InternalSigner(settings.internal_jwt_secret, "alerts", clock=clock)
        indicators = ServiceClient(str(settings.indicators_url), "indicators", signer, timeout_seconds=10.0)
        stack.push_async_callback(indicators.close)
        portfolio = ServiceClient(str(settings.portfolio_url), "portfolio", signer)
        portfolios = HttpPortfolios(portfolio)
        stack.push_async_callback(portfolio.close)

        market = RedisMarketReader(redis, clock)
        candles = HttpCandleReader(indicators)
        rules_store = PostgresRuleRepository(db)
        webhooks_store = PostgresWebhookRepository(db)
        shard_store = PostgresShardStore(db)
        firings = PostgresFiringStore(
            db,
            clock,
            budgets={
                "free": settings.budget_free_per_minute,
                "pro": settings.budget_pro_per_minute,
                "enterprise": settings.budget_pro_per_minute,
            },
            default_budget=settings.budget_free_per_minute,
        )
        sender = PinnedSender(
            insecure=settings.webhooks_allow_insecure,
            denied_hosts=frozenset(host.lower() for host in settings.webhooks_denied_hosts),
            total_seconds=settings.webhook_timeout_seconds,
        )
        webhooks = WebhookManager(webhooks_store, sender, clock)
        rules = RuleManager(rules_store, webhooks, market, portfolios, clock)
        cursors = Cursor(settings.internal_jwt_secret)
        preview = Preview(rules, candles, clock)
        runtime.app.include_router(
            alert_routes(rules, rules_store, preview, SendTrial(rules_store, firings, clock), cursors, clock)
        )
        runtime.app.include_router(webhook_routes(webhooks, webhooks_store, cursors, clock))

        def make(shard: int, epoch: int) -> ShardEvaluation:
            return ShardEvaluation(
                shard,
                epoch,
                shards=settings.shards,
                store=shard_store,
                firings=firings,
                candles=candles,
                clock=clock,
            )

        stream = ShardStream(
            bus,
            make,
            shards=settings.shards,
            prefetch=settings.prefetch_messages,
            save_seconds=settings.save_seconds,
        )
        owner = ShardOwner(
            redis,
            service="alerts",
            replica=runtime.replica_id,
            shards=settings.shards,
            handler=stream,
            clock=clock,
        )
        changes = RuleChanges(shard_store, lambda: stream.evaluations, clock)
        notices = PostgresNotices(db, clock)
        worker = DeliveryWorker(
            PostgresDeliveryStore(
                db,
                worker=runtime.replica_id,
                per_endpoint=settings.webhook_endpoint_concurrency,
                lease_seconds=settings.webhook_lease_seconds,
            ),
            sender,
            clock,
            concurrency=settings.webhook_workers,
            disabled=notices.endpoint_disabled,
        )
        surroundings = Surroundings(lambda: stream.evaluations, market, notices, portfolios, clock)
        relay = OutboxRelay(db, bus)

        runtime.check("postgres", db.check)
        runtime.check("redis", pinger.check)
        runtime.check(
            "rabbitmq", lambda: Check(ok=bus.is_connected, detail="" if bus.is_connected else "not connected")
        )
        runtime.loop("shards", owner.run, stall_seconds=60)
        runtime.loop("rule-changes", changes.run)
        runtime.loop("outbox", relay.run)
        runtime.loop("deliveries", worker.run)
        runtime.loop("surroundings", surroundings.run)
        runtime.loop("notices", notices.run)
        runtime.loop("listen", _listening(db, changes, worker))
        runtime.on_drain("shards", owner.release_all, timeout_seconds=DRAIN_SECONDS)
        runtime.on_drain("deliveries", worker.drain, timeout_seconds=DRAIN_SECONDS)
        runtime.on_drain("outbox", relay.drain, timeout_seconds=3.0)
        yield


def _listening(
    db: Database, changes: RuleChanges, worker: DeliveryWorker
) -> Callable[[Callable[[], None]], Any]:
    """The loop that hears of changed rules and new deliveries."""

    def connected() -> None:
        changes.missed()
        worker.wake()

    async def run(beat: Callable[[], None]) -> None:
        await listen(
            db, {RULES_CHANNEL: changes.note, DELIVERIES_CHANNEL: lambda _: worker.wake()}, connected, beat
        )
        await asyncio.sleep(0)

    return run

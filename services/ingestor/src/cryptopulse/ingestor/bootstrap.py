"""The composition root of the ingestor: the only place that makes adapters and the only reader of settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from cryptopulse.common.bus.protocols import Bus
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache.client import Pinger, connect
from cryptopulse.common.clock import Clock
from cryptopulse.common.config import SettingsError
from cryptopulse.common.contracts.values import base_of
from cryptopulse.common.runtime import Check, Runtime
from cryptopulse.common.security.identity import InternalVerifier, authenticate
from cryptopulse.ingestor.adapters.coingecko import feed as coingecko
from cryptopulse.ingestor.adapters.quota_store import QuotaStore
from cryptopulse.ingestor.adapters.redis_stores import (
    RedisHistoryMarks,
    RedisLastIds,
    RedisLease,
    RedisWanted,
)
from cryptopulse.ingestor.adapters.registry import VENUES, Parts
from cryptopulse.ingestor.adapters.rest import ProxiedHttp
from cryptopulse.ingestor.adapters.sockets import PicowsSockets
from cryptopulse.ingestor.application.backfill import Backfill, HistoryDepth
from cryptopulse.ingestor.application.catalogue import VenueCatalogue
from cryptopulse.ingestor.application.feed import VenueFeed
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.ports import Venue
from cryptopulse.ingestor.application.publish import ShardPublisher, TickTopics, flush_seconds_for
from cryptopulse.ingestor.application.reference import PollPlan, ReferencePoller
from cryptopulse.ingestor.application.reference_history import ReferenceHistory
from cryptopulse.ingestor.domain.clock_offset import ClockOffset
from cryptopulse.ingestor.domain.symbols import Part, Wish
from cryptopulse.ingestor.entrypoints import backfill as backfill_loops
from cryptopulse.ingestor.entrypoints import http, poll, stream
from cryptopulse.ingestor.settings import Settings

MONTH_SECONDS = 30 * 86_400.0


@dataclass(slots=True)
class _Base:
    """What every venue is built on."""

    settings: Settings
    clock: Clock
    bus: Bus
    redis: Redis
    quota: QuotaStore
    lease: RedisLease

    @property
    def simulated(self) -> bool:
        return self.settings.feed == "sim"

    def publishers(self, venue: str, offset: ClockOffset, part: str) -> list[ShardPublisher]:
        """One publisher per shard of a venue."""
        settings = self.settings
        streaming = set(settings.venues) - {"coingecko"}  # polled: a batch a minute
        buffers = settings.shards * max(1, len(streaming))
        flush = settings.flush_ms / 1_000 or flush_seconds_for(buffers)
        return [
            ShardPublisher(
                self.bus,
                self.clock,
                venue=venue,
                shard=shard,
                part=part,
                limit=settings.buffer_trades,
                flush_seconds=flush,
                topics=TickTopics.parse(settings.tick_topics),
                simulated=self.simulated,
                offset=offset,
            )
            for shard in range(settings.shards)
        ]


@asynccontextmanager
async def build(settings: Settings, runtime: Runtime) -> AsyncIterator[None]:
    """Wire the service; everything reconnects by itself, so nothing here waits for a backend or a venue."""
    unknown = [name for name in settings.venues if name not in VENUES and name != "coingecko"]
    if unknown:
        known = ", ".join([*VENUES, "coingecko"])
        raise SettingsError([f"CRYPTOPULSE_INGESTOR_VENUES: {', '.join(unknown)} is not one of {known}"])
    clock = runtime.clock
    bus = RabbitBus(settings.rabbitmq_url.get_secret_value(), service="ingestor", clock=clock)
    redis = connect(settings.redis_url.get_secret_value(), name="ingestor")
    pinger = Pinger(redis)
    quota = QuotaStore(redis, clock, address=settings.budget_address)
    base = _Base(settings, clock, bus, redis, quota, RedisLease(redis, clock, runtime.replica_id))
    parts = Parts(quota, clock, _urls(settings), {"coinbase": settings.coinbase_dialect})
    await bus.start()
    await pinger.start()
    runtime.check(
        "bus", lambda: Check(ok=bus.is_connected, detail="" if bus.is_connected else "the broker is away")
    )
    runtime.check("redis", pinger.check)
    authenticate(runtime.app, InternalVerifier(settings.internal_jwt_secret, "ingestor", clock=clock))

    venues = [VENUES[name](parts) for name in settings.venues if name in VENUES]
    depth = HistoryDepth(
        settings.history_minutes_days, settings.history_hours_days, settings.history_days_days
    )
    marks = RedisHistoryMarks(redis, simulated=base.simulated)
    history = Backfill(
        venues, bus, clock, depth, marks=marks, shards=settings.shards, simulated=base.simulated
    )
    ingests: dict[str, Ingest] = {}
    feeds = [_feed(base, venue, history, ingests) for venue in venues]
    poller, reference_publishers = _reference(base, parts, marks, feeds)
    all_publishers = [p for ingest in ingests.values() for p in ingest.publishers]
    stream.register(runtime, feeds, [*all_publishers, *reference_publishers])
    poll.register(runtime, poller)
    backfill_loops.register(runtime, history, feeds, settings.check_seconds)
    runtime.app.include_router(http.IngestHttp(feeds, ingests, history, poller).router())
    try:
        yield
    finally:
        for client in parts.clients:
            await client.close()
        await bus.close()
        await pinger.close()
        await redis.aclose()


def _urls(settings: Settings) -> dict[str, tuple[str, str]]:
    return settings.venue_urls | {
        "binance": (settings.binance_api_url, settings.binance_ws_url),
        "coinbase": (settings.coinbase_api_url, settings.coinbase_ws_url),
    }


def _feed(base: _Base, venue: Venue, history: Backfill, ingests: dict[str, Ingest]) -> VenueFeed:
    settings = base.settings
    part = Part.parse(settings.part)
    if settings.rotate_seconds:
        rotated: Any = venue
        rotated.rules = replace(venue.rules, life_seconds=settings.rotate_seconds)
    offset = ClockOffset()
    publishers = base.publishers(venue.name, offset, str(part))
    ingest = Ingest(venue.name, base.clock, publishers, hold_us=venue.rules.hold_us, shards=settings.shards)
    ingests[venue.name] = ingest
    wish = Wish.parse(",".join(settings.symbols))
    return VenueFeed(
        venue,
        ingest=ingest,
        catalogue=VenueCatalogue(venue, base.bus, base.clock, wish, part, simulated=base.simulated),
        sockets=PicowsSockets(base.clock),
        quota=base.quota,
        last_ids=RedisLastIds(base.redis),
        lease=base.lease,
        backfill=history,
        bus=base.bus,
        clock=base.clock,
        part=str(part),
        offset=offset,
        simulated=base.simulated,
        on_followed=history.first_sight,
    )


def _reference(
    base: _Base, parts: Parts, marks: RedisHistoryMarks, feeds: Sequence[VenueFeed]
) -> tuple[ReferencePoller | None, Sequence[ShardPublisher]]:
    settings = base.settings
    if "coingecko" not in settings.venues:
        return None, []
    key = settings.coingecko_api_key.get_secret_value()
    client = ProxiedHttp(
        settings.coingecko_proxy_prefix,
        "coingecko",
        settings.coingecko_api_url,
        base.quota,
        headers=coingecko.headers_of(settings.coingecko_api_url, key),
    )
    parts.clients.append(client)
    pools = coingecko.pools(
        settings.coingecko_guard_seconds, settings.coingecko_per_minute, settings.coingecko_per_month
    )
    source = coingecko.CoinGeckoSource(client, base.quota, base.clock, pools)
    publishers = base.publishers(source.name, ClockOffset(), "1/1")

    def is_traded(base_asset: str) -> bool:
        return any(base_of(symbol) == base_asset for feed in feeds for symbol in feed.natives)

    history = ReferenceHistory(
        source,
        base.bus,
        base.clock,
        marks,
        is_traded=is_traded,
        shards=settings.shards,
        simulated=base.simulated,
    )
    poller = ReferencePoller(
        source,
        bus=base.bus,
        clock=base.clock,
        quota=base.quota,
        wanted=RedisWanted(base.redis),
        lease=base.lease,
        plan=PollPlan(
            price_seconds=max(settings.coingecko_poll_seconds, settings.coingecko_guard_seconds),
            pages=settings.coingecko_pages,
            call_seconds=MONTH_SECONDS / settings.coingecko_per_month,
        ),
        publishers=publishers,
        history=history,
        shards=settings.shards,
        simulated=base.simulated,
    )
    return poller, publishers

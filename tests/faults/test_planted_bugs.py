"""The test of the tests: eight planted bugs, each found by the check that guards against it; without the bug it passes."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from cryptopulse.common.bus.memory import MemorySubscription
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache import shards
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.portfolio import PortfolioChanged
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.common.contracts.topics import PORTFOLIO_EVENTS, Topic
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.outbox import OUTBOX_SQL, OutboxRelay, enqueue
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.testing.tcp_proxy import TcpProxy
from cryptopulse.indicators.domain.trade_ids import TradeIds
from cryptopulse.ingestor.domain.buffering import TickBuffer
from tests.faults.stand import through
from tests.unit.simulation import Chances, World, ledger, minutes_of

pytestmark = [pytest.mark.planted, pytest.mark.quick]

SCHEMA, ROLE = "portfolio", "cryptopulse_portfolio"
SEEDS = range(12)


# --- the checks --------------------------------------------------------------------------------------------------


class CarefulWorld(World):
    """The simulation, but a shard is handed over in good order more often than its owner dies."""

    async def _worker_dies(self) -> None:
        if self.random.random() < 0.3:
            await super()._worker_dies()
            return
        self.deaths += 1
        await self.worker.close(lost=False)
        await self._worker_starts()


async def candles_equal_the_ledger(world_of: type[World] = World, **planted: bool) -> None:
    """Every trade of the venue's book is in the candles once, for every seed."""
    for seed in SEEDS:
        world = world_of(seed, Chances(), **planted)
        try:
            await world.run()
        except TimeoutError:
            raise AssertionError(f"seed {seed}: messages wait for ever") from None
        finally:
            await world.bus.close()
        assert world.stored() == minutes_of(world.book), f"seed {seed}"


def changed(event_id: str) -> PortfolioChanged:
    return PortfolioChanged(
        id=event_id, user_id="u1", portfolio_id=1, version=1, at_ms=1, kind="transaction", assets=["BTC"]
    )


class Wire:
    """A broker that confirms; `dies_after` publishes the publisher is killed before it can note the confirm."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.dies_after = -1

    async def publish(
        self,
        topic: Topic,
        message: Message,
        *,
        key: str,
        cc: Sequence[str] = (),
        message_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        assert isinstance(message, PortfolioChanged)
        self.heard.append((message_id or "", message.id))
        if len(self.heard) == self.dies_after:
            raise asyncio.CancelledError


@pytest.fixture
async def db(postgres_db: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "0001_outbox.sql").write_text(OUTBOX_SQL)
    await migrate(postgres_db, schema=SCHEMA, role=ROLE, directory=tmp_path)
    database = Database(postgres_db, schema=SCHEMA, role=ROLE, application_name="planted")
    await database.start()
    yield database
    await database.close()


async def told_is_what_is_stored(db: Database, wire: Wire, write: Any) -> None:
    """Ten changes, every third of which fails before its commit: the bus hears of those that are stored, of no other."""
    stored = []
    for number in range(10):
        event_id = f"e{number}"
        try:
            async with db.transaction() as connection:
                await write(connection, event_id)
                if number % 3 == 0:
                    raise RuntimeError("killed before the commit")
            stored.append(event_id)
        except RuntimeError:
            pass
    await OutboxRelay(db, wire).drain()
    assert {event for _, event in wire.heard} == set(stored)


async def a_repeat_has_the_same_id(db: Database, relay: OutboxRelay, wire: Wire) -> None:
    """Killed between the confirm and the mark: what is published again can be told from what is new."""
    async with db.transaction() as connection:
        for number in range(5):
            await enqueue(connection, PORTFOLIO_EVENTS, changed(f"e{number}"), "portfolio.u1.1", f"e{number}")
    wire.dies_after = 3
    with pytest.raises(asyncio.CancelledError):
        await relay.relay_once()
    wire.dies_after = -1
    await relay.drain()
    assert len(wire.heard) == 8
    effects = dict(wire.heard)
    assert sorted(effects.values()) == [f"e{number}" for number in range(5)], "an effect took place twice"


async def a_paused_owner_writes_nothing(redis_url: str) -> None:
    """The old owner wakes after the new one has stored: the new one's state stays."""
    client = redis_asyncio.Redis.from_url(redis_url)
    try:
        assert await shards.save_fenced(client, "shard", 1, b"old", consumer="planted")
        assert await shards.save_fenced(client, "shard", 2, b"new", consumer="planted")
        refused = not await shards.save_fenced(client, "shard", 1, b"woken", consumer="planted")
        assert await shards.load_snapshot(client, "shard") == (2, b"new")
        assert refused
    finally:
        await client.aclose()


def memory_is_bounded_while_the_bus_is_away() -> None:
    """A buffer takes a hundred times its limit: it folds, and no trade goes uncounted."""
    buffer, limit = TickBuffer(64), 64
    trades = ledger(random.Random(1)) * 27
    for trade in trades:
        buffer.add_trade(trade)
    assert len(trades) > limit * 100
    assert buffer.depth <= limit * 2, f"{buffer.depth} wait"
    assert len(buffer.trades) + buffer.conflated_trades == len(trades)


async def a_publish_into_a_partition_ends(url: str, *, seconds: float) -> None:
    """A broker that swallows everything without a word: the publisher is told, in bounded time."""
    host_port = int(url.rpartition("@")[2].partition("/")[0].partition(":")[2])
    async with TcpProxy("127.0.0.1", host_port) as proxy:
        bus = RabbitBus(through(url, proxy.port), service="planted", durable_timeout_seconds=seconds)
        await bus.start()
        assert await bus.wait_connected(20)
        try:
            await bus.publish(PORTFOLIO_EVENTS, changed("e1"), key="portfolio.u1.1")
            proxy.toxics.blackhole = True
            publish = asyncio.ensure_future(
                bus.publish(PORTFOLIO_EVENTS, changed("e2"), key="portfolio.u1.1")
            )
            done, _ = await asyncio.wait({publish}, timeout=4.0)
            publish.cancel()
            assert done, "it waits for ever"
            with pytest.raises(BusUnavailable):
                publish.result()
        finally:
            await bus.close()


# --- without a bug every check passes ------------------------------------------------------------------------------


async def test_without_a_bug_the_route_is_exact() -> None:
    await candles_equal_the_ledger()
    await candles_equal_the_ledger(CarefulWorld)


async def test_without_a_bug_the_outbox_tells_what_is_stored(db: Database) -> None:
    async def write(connection: Any, event_id: str) -> None:
        await enqueue(connection, PORTFOLIO_EVENTS, changed(event_id), "portfolio.u1.1", event_id)

    await told_is_what_is_stored(db, Wire(), write)


async def test_without_a_bug_repeats_have_the_same_id(db: Database) -> None:
    wire = Wire()
    await a_repeat_has_the_same_id(db, OutboxRelay(db, wire), wire)


async def test_without_a_bug_a_paused_owner_is_refused(redis_db: str) -> None:
    await a_paused_owner_writes_nothing(redis_db)


def test_without_a_bug_the_buffer_is_bounded() -> None:
    memory_is_bounded_while_the_bus_is_away()


async def test_without_a_bug_a_publish_ends(rabbit_vhost: str) -> None:
    await a_publish_into_a_partition_ends(rabbit_vhost, seconds=1.0)


# --- the eight -----------------------------------------------------------------------------------------------------


async def test_ack_before_work_is_found() -> None:
    with pytest.raises(AssertionError):
        await candles_equal_the_ledger(ack_before_work=True)


async def test_publish_before_commit_is_found(db: Database) -> None:
    wire = Wire()

    async def write(connection: Any, event_id: str) -> None:
        await wire.publish(PORTFOLIO_EVENTS, changed(event_id), key="portfolio.u1.1", message_id=event_id)

    with pytest.raises(AssertionError):
        await told_is_what_is_stored(db, wire, write)


async def test_no_dedupe_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: TradeIds, trades: Sequence[Trade]) -> Sequence[Trade]:
        self.last_id, self.last_event_us = trades[-1].trade_id, trades[-1].event_us
        return trades

    monkeypatch.setattr(TradeIds, "take", take)
    with pytest.raises(AssertionError):
        await candles_equal_the_ledger()


async def test_no_epoch_is_found(redis_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without = "redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', ARGV[2]) return 1"
    monkeypatch.setattr(shards, "_SAVE", without)
    with pytest.raises(AssertionError):
        await a_paused_owner_writes_nothing(redis_db)


def test_an_unbounded_buffer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TickBuffer, "add_trade", lambda self, trade: self.trades.append(trade))
    with pytest.raises(AssertionError):
        memory_is_bounded_while_the_bus_is_away()


async def test_no_timeout_is_found(rabbit_vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Heartbeats would end the wait as well, later: they are a second net, not this one.
    monkeypatch.setattr("cryptopulse.common.bus.link.HEARTBEAT_SECONDS", 600)
    with pytest.raises(AssertionError):
        await a_publish_into_a_partition_ends(rabbit_vhost, seconds=600.0)


async def test_a_retry_with_a_new_id_is_found(db: Database) -> None:
    class Forgetful(Wire):
        async def publish(
            self,
            topic: Topic,
            message: Message,
            *,
            key: str,
            cc: Sequence[str] = (),
            message_id: str | None = None,
            headers: Mapping[str, Any] | None = None,
        ) -> None:
            await super().publish(topic, message, key=key, message_id=uuid.uuid4().hex)

    wire = Forgetful()
    with pytest.raises(AssertionError):
        await a_repeat_has_the_same_id(db, OutboxRelay(db, wire), wire)


async def test_a_hand_over_without_closing_the_channel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemorySubscription, "close", MemorySubscription.pause)
    with pytest.raises(AssertionError):
        await candles_equal_the_ledger(CarefulWorld)

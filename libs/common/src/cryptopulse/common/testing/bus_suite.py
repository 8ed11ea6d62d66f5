"""What every bus must keep: one suite, run against the memory bus and RabbitMQ.

A subclass gives `bus()` (a started bus on a fresh broker or vhost; call it again for another process on the same one).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cryptopulse.common.bus.protocols import Bus, Delivery, Handler
from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.candles import HistoryBatch
from cryptopulse.common.contracts.ticks import TickBatch
from cryptopulse.common.contracts.topics import ALERT_EVENTS, HISTORY, TICKS, Queue
from cryptopulse.common.errors import Invalid, NoQueueYet, Retryable, StoreUnavailable

WAIT_SECONDS = 10.0

MakeBus = Callable[[], Awaitable[Any]]


def ticks(seq: int) -> TickBatch:
    """A small live message with a number."""
    return TickBatch(venue="binance", shard=0, epoch=1, seq=seq, sent_us=0)


def event(number: int) -> AlertEvent:
    """A small durable message with a number."""
    return AlertEvent(
        id=f"ae_{number}",
        type="alert.triggered",
        user_id="u",
        rule_id="r",
        dedupe_key=str(number),
        at_ms=number,
        symbol="BTC-USD",
        source="consolidated",
        condition="price_above",
        message="",
    )


def live_queue(**changes: Any) -> Queue:
    """A shared, sharded queue of ticks."""
    queue = Queue(consumer="suite", topic=TICKS, bindings=("batch.0.#",), shard=0, shards=1)
    return dataclasses.replace(queue, **changes)


def durable_queue(**changes: Any) -> Queue:
    """A shared durable queue of alert events."""
    queue = Queue(consumer="suite", topic=ALERT_EVENTS, bindings=("alert.#",), delivery_limit=2)
    return dataclasses.replace(queue, **changes)


class Collector:
    """A handler that keeps what it gets and can be told to fail."""

    def __init__(self, outcome: Callable[[Delivery], None] | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self._outcome = outcome
        self._changed = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._changed.set()
        if self._outcome is not None:
            self._outcome(delivery)

    async def until(self, count: int) -> list[Delivery]:
        """Wait until `count` deliveries came."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.deliveries) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.deliveries

    async def quiet(self, seconds: float = 0.3) -> int:
        """How many came after a pause."""
        await asyncio.sleep(seconds)
        return len(self.deliveries)


async def eventually(claim: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `claim` holds, or fail."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await claim():  # noqa: ASYNC110 - a claim about another process has no event to wait for
            await asyncio.sleep(0.05)


@dataclasses.dataclass(frozen=True, slots=True)
class Fragile:
    """A bus whose broker can be told to fall silent, to cut the connection, and to take a new one."""

    bus: Any
    hush: Callable[[], Awaitable[None]]
    die: Callable[[], Awaitable[None]]
    revive: Callable[[], Awaitable[None]]


class BusSuite:
    """The promises of `bus.protocols`, each a test."""

    @pytest.fixture
    async def make_bus(self) -> MakeBus:
        """A factory of started buses on one fresh broker."""
        raise NotImplementedError

    @pytest.fixture
    async def fragile(self) -> Fragile:
        """A started bus with a broker that obeys."""
        raise NotImplementedError

    @pytest.fixture
    async def bus(self, make_bus: MakeBus) -> Bus:
        bus: Bus = await make_bus()
        return bus

    async def test_messages_arrive_whole_and_in_order(self, bus: Bus) -> None:
        handler = Collector()
        await bus.subscribe(live_queue(), handler)
        for seq in range(50):
            await bus.publish(TICKS, ticks(seq), key="batch.0.binance", message_id=f"m{seq}")
        got = await handler.until(50)
        assert [d.message.seq for d in got] == list(range(50))
        assert got[0].message_id == "m0"
        assert got[0].routing_key == "batch.0.binance"
        assert got[0].sent_us > 0
        assert not got[0].redelivered

    async def test_a_hash_matches_zero_words_and_a_star_exactly_one(self, bus: Bus) -> None:
        wide, narrow = Collector(), Collector()
        await bus.subscribe(live_queue(bindings=("batch.#",), shard=None, exclusive=True), wide)
        await bus.subscribe(live_queue(bindings=("batch.*",), shard=None, exclusive=True), narrow)
        for seq, key in enumerate(["batch", "batch.0", "batch.0.binance"]):
            await bus.publish(TICKS, ticks(seq), key=key)
        assert [d.message.seq for d in await wide.until(3)] == [0, 1, 2]
        assert await narrow.quiet() == 1
        assert narrow.deliveries[0].message.seq == 1

    async def test_cc_keys_route_too_and_give_one_copy(self, bus: Bus) -> None:
        handler = Collector()
        queue = live_queue(bindings=("tick.*.BTC-USDT", "batch.#"), shard=None, exclusive=True)
        await bus.subscribe(queue, handler)
        await bus.publish(TICKS, ticks(1), key="other.0", cc=["tick.binance.BTC-USDT"])
        await bus.publish(TICKS, ticks(2), key="batch.0", cc=["tick.binance.BTC-USDT"])
        await bus.publish(TICKS, ticks(3), key="other.0", cc=["tick.binance.ETH-USDT"])
        await handler.until(2)
        assert await handler.quiet() == 2
        assert [d.message.seq for d in handler.deliveries] == [1, 2]

    async def test_every_exclusive_queue_gets_everything(self, make_bus: MakeBus) -> None:
        first, second = await make_bus(), await make_bus()
        one, two = Collector(), Collector()
        queue = live_queue(bindings=("batch.#",), shard=None, exclusive=True)
        await first.subscribe(queue, one)
        await second.subscribe(queue, two)
        await first.publish(TICKS, ticks(7), key="batch.0")
        await one.until(1)
        await two.until(1)

    async def test_a_retryable_failure_is_delivered_again(self, bus: Bus) -> None:
        def fail_once(delivery: Delivery) -> None:
            if not delivery.redelivered:
                raise Retryable("not this time")

        handler = Collector(fail_once)
        await bus.subscribe(durable_queue(), handler)
        await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r", message_id="same")
        got = await handler.until(2)
        assert [d.redelivered for d in got] == [False, True]
        assert {d.message_id for d in got} == {"same"}
        assert await handler.quiet() == 2

    async def test_after_the_delivery_limit_it_is_a_dead_letter(self, bus: Bus) -> None:
        def fail(_: Delivery) -> None:
            raise Retryable("never works")

        handler = Collector(fail)
        queue = durable_queue(delivery_limit=2)
        await bus.subscribe(queue, handler)
        await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
        await handler.until(3)
        await eventually(lambda: self.has_dead_letters(bus, queue, 1))
        assert await handler.quiet() == 3

    async def test_what_is_away_uses_up_no_tries_and_keeps_the_order(self, bus: Bus) -> None:
        tries = 0

        def away(_: Delivery) -> None:
            nonlocal tries
            tries += 1
            if tries < 6:
                raise StoreUnavailable("down for a while")

        handler = Collector(away)
        queue = durable_queue(delivery_limit=2)
        await bus.subscribe(queue, handler)
        for number in (1, 2):
            await bus.publish(ALERT_EVENTS, event(number), key="alert.u.r")
        got = await handler.until(7)
        assert [d.message.id for d in got] == ["ae_1"] * 6 + ["ae_2"]
        assert [d.redelivered for d in got] == [False] + [True] * 5 + [False]
        assert not await self.has_dead_letters(bus, queue, 1)

    async def test_a_message_that_waits_for_what_is_away_goes_to_the_next_owner(
        self, make_bus: MakeBus
    ) -> None:
        def away(_: Delivery) -> None:
            raise StoreUnavailable("down for us")

        first, second = await make_bus(), await make_bus()
        stuck, handler = Collector(away), Collector()
        subscription = await first.subscribe(durable_queue(), stuck)
        await first.publish(ALERT_EVENTS, event(1), key="alert.u.r")
        await stuck.until(5)
        await asyncio.wait_for(subscription.close(), 2)
        await second.subscribe(durable_queue(), handler)
        assert [d.message.id for d in await handler.until(1)] == ["ae_1"]

    async def test_what_an_owner_has_not_seen_uses_up_no_tries_when_it_leaves(
        self, make_bus: MakeBus
    ) -> None:
        bus = await make_bus()
        queue = durable_queue(delivery_limit=2)
        seen: list[str] = []
        first, last = asyncio.Event(), asyncio.Event()

        async def slow(delivery: Delivery) -> None:
            seen.append(delivery.message.id)
            first.set()
            if len(seen) == 12:
                last.set()
            await asyncio.sleep(0.05)

        await (await bus.subscribe(queue, slow)).close()
        for number in range(12):
            await bus.publish(ALERT_EVENTS, event(number), key="alert.u.r")
        for _ in range(5):
            first.clear()
            subscription = await bus.subscribe(queue, slow)
            await asyncio.wait_for(first.wait(), WAIT_SECONDS)
            await subscription.close()
        await bus.subscribe(queue, slow)
        await asyncio.wait_for(last.wait(), WAIT_SECONDS)
        assert seen == [f"ae_{number}" for number in range(12)]
        assert not await self.has_dead_letters(bus, queue, 1)

    async def test_an_invalid_message_is_a_dead_letter_at_once(self, bus: Bus) -> None:
        def refuse(_: Delivery) -> None:
            raise Invalid("not for us")

        handler = Collector(refuse)
        queue = durable_queue()
        await bus.subscribe(queue, handler)
        await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
        await handler.until(1)
        await eventually(lambda: self.has_dead_letters(bus, queue, 1))
        assert await handler.quiet() == 1

    async def test_a_failing_live_message_is_dropped_and_the_next_comes(self, bus: Bus) -> None:
        def fail_first(delivery: Delivery) -> None:
            if delivery.message.seq == 0:
                raise Retryable("too late for this one")

        handler = Collector(fail_first)
        await bus.subscribe(live_queue(), handler)
        await bus.publish(TICKS, ticks(0), key="batch.0")
        await bus.publish(TICKS, ticks(1), key="batch.0")
        await handler.until(2)
        assert await handler.quiet() == 2

    async def test_unacked_messages_go_to_the_next_owner_in_order(self, make_bus: MakeBus) -> None:
        first, second = await make_bus(), await make_bus()
        one, two = Collector(), Collector()
        owner = await first.subscribe(live_queue(), one, manual_ack=True)
        for seq in range(10):
            await first.publish(TICKS, ticks(seq), key="batch.0")
        got = await one.until(10)
        await owner.ack(got[3])
        standby = await second.subscribe(live_queue(), two, manual_ack=True)
        assert await two.quiet() == 0
        await owner.close()
        again = await two.until(6)
        assert [d.message.seq for d in again] == [4, 5, 6, 7, 8, 9]
        assert all(d.redelivered for d in again)
        await standby.close()

    async def test_only_one_consumer_of_a_shard_is_active(self, make_bus: MakeBus) -> None:
        first, second = await make_bus(), await make_bus()
        one, two = Collector(), Collector()
        await first.subscribe(live_queue(), one)
        await second.subscribe(live_queue(), two)
        for seq in range(20):
            await first.publish(TICKS, ticks(seq), key="batch.0")
        await one.until(20)
        assert await two.quiet() == 0

    async def test_pause_waits_for_the_handler_in_hand_and_takes_no_more(self, bus: Bus) -> None:
        started, finish = asyncio.Event(), asyncio.Event()
        done: list[int] = []

        async def slow(delivery: Delivery) -> None:
            started.set()
            await finish.wait()
            done.append(delivery.message.seq)

        handler: Handler = slow
        subscription = await bus.subscribe(live_queue(), handler, manual_ack=True)
        for seq in range(3):
            await bus.publish(TICKS, ticks(seq), key="batch.0")
        await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        pausing = asyncio.create_task(subscription.pause())
        await asyncio.sleep(0.1)
        assert not pausing.done()
        finish.set()
        await asyncio.wait_for(pausing, WAIT_SECONDS)
        await asyncio.sleep(0.2)
        assert done == [0]
        await subscription.close()

    async def test_prefetch_bounds_what_is_unacked(self, bus: Bus) -> None:
        handler = Collector()
        subscription = await bus.subscribe(live_queue(), handler, prefetch=5, manual_ack=True)
        for seq in range(20):
            await bus.publish(TICKS, ticks(seq), key="batch.0")
        await handler.until(5)
        assert await handler.quiet() == 5
        await subscription.ack(handler.deliveries[-1])
        await handler.until(10)
        assert await bus.backlog(live_queue()) == 10

    async def test_a_live_queue_is_bounded_and_keeps_the_newest(self, bus: Bus) -> None:
        queue = live_queue(max_length=10)
        gone = await bus.subscribe(queue, Collector())
        await gone.close()
        for seq in range(50):
            await bus.publish(TICKS, ticks(seq), key="batch.0")
        handler = Collector()
        await eventually(lambda: self.has_backlog(bus, queue, 10))
        await bus.subscribe(queue, handler)
        got = await handler.until(10)
        assert [d.message.seq for d in got] == list(range(40, 50))

    async def test_durable_messages_wait_for_their_consumer(self, bus: Bus) -> None:
        gone = await bus.subscribe(durable_queue(), Collector())
        await gone.close()
        await bus.publish(ALERT_EVENTS, event(5), key="alert.u.r")
        handler = Collector()
        await bus.subscribe(durable_queue(), handler)
        assert (await handler.until(1))[0].message.id == "ae_5"

    async def test_a_mandatory_topic_without_a_queue_refuses_the_publish(self, bus: Bus) -> None:
        message = HistoryBatch(venue="v", symbol="A-B", interval="1m", from_ms=0, to_ms=1, candles=[])
        with pytest.raises(NoQueueYet):
            await bus.publish(HISTORY, message, key="backfill.0.v.A-B")

    async def test_a_live_publish_tells_once_whether_it_was_confirmed(self, fragile: Fragile) -> None:
        told: list[tuple[int, bool]] = []
        bus = fragile.bus
        for seq in range(3):
            await bus.publish(
                TICKS, ticks(seq), key="batch.0", on_settled=lambda ok, n=seq: told.append((n, ok))
            )
        await eventually(lambda: _is(len(told) == 3))
        connections = bus.connections
        await fragile.hush()
        for seq in (3, 4):
            await bus.publish(
                TICKS, ticks(seq), key="batch.0", on_settled=lambda ok, n=seq: told.append((n, ok))
            )
        assert len(told) == 3
        await fragile.die()
        await eventually(lambda: _is(len(told) == 5))
        assert sorted(told) == [(0, True), (1, True), (2, True), (3, False), (4, False)]
        await fragile.revive()
        await eventually(lambda: _is(bus.is_connected and bus.connections > connections))
        await bus.publish(TICKS, ticks(5), key="batch.0", on_settled=lambda ok: told.append((5, ok)))
        await eventually(lambda: _is(told[-1] == (5, True)))
        assert len(told) == 6

    async def test_bindings_can_be_added_and_taken_back(self, bus: Bus) -> None:
        handler = Collector()
        subscription = await bus.subscribe(live_queue(bindings=(), shard=None, exclusive=True), handler)
        await bus.publish(TICKS, ticks(0), key="batch.0")
        await bus.bind(subscription, TICKS, "batch.#")
        await bus.publish(TICKS, ticks(1), key="batch.0")
        await handler.until(1)
        await bus.unbind(subscription, TICKS, "batch.#")
        await bus.publish(TICKS, ticks(2), key="batch.0")
        assert await handler.quiet() == 1
        assert handler.deliveries[0].message.seq == 1

    async def test_a_closed_subscription_gets_nothing(self, bus: Bus) -> None:
        handler = Collector()
        subscription = await bus.subscribe(durable_queue(), handler)
        assert subscription.active
        await subscription.close()
        await eventually(lambda: _not(subscription.active))
        await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
        assert await handler.quiet() == 0

    async def has_dead_letters(self, bus: Bus, queue: Queue, count: int) -> bool:
        """Whether the queue's dead letters hold that many."""
        raise NotImplementedError

    async def has_backlog(self, bus: Bus, queue: Queue, count: int) -> bool:
        """Whether that many are ready."""
        return await bus.backlog(queue) == count


async def _not(claim: bool) -> bool:
    return not claim


async def _is(claim: bool) -> bool:
    return claim

"""The RabbitMQ bus keeps the same promises as the memory bus, and heals after losses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aio_pika
import pytest

from cryptopulse.common.bus.protocols import Bus, Delivery
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.topics import ALERT_EVENTS, TICKS, Queue
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.testing.bus_suite import (
    BusSuite,
    Collector,
    Fragile,
    MakeBus,
    durable_queue,
    event,
    eventually,
    live_queue,
    ticks,
)
from cryptopulse.common.testing.tcp_proxy import TcpProxy


class TestRabbitBus(BusSuite):
    @pytest.fixture
    async def make_bus(self, rabbit_vhost: str) -> AsyncIterator[MakeBus]:
        made: list[RabbitBus] = []

        async def make() -> RabbitBus:
            bus = RabbitBus(rabbit_vhost, service="suite")
            await bus.start()
            assert await bus.wait_connected(15)
            made.append(bus)
            return bus

        yield make
        for bus in made:
            await bus.close()

    @pytest.fixture
    async def fragile(self, rabbit_vhost: str) -> AsyncIterator[Fragile]:
        async with proxied(rabbit_vhost) as (proxy, url), running(url) as bus:

            async def hush() -> None:
                proxy.toxics.blackhole = True

            async def die() -> None:
                proxy.toxics.refuse = True
                proxy.reset()

            async def revive() -> None:
                proxy.toxics.blackhole = proxy.toxics.refuse = False

            yield Fragile(bus, hush, die, revive)

    @pytest.fixture
    def vhost(self, rabbit_vhost: str) -> str:
        return rabbit_vhost

    async def has_dead_letters(self, bus: Bus, queue: Queue, count: int) -> bool:
        dead = Queue(consumer=queue.dead_letters, topic=queue.topic, bindings=())
        return await bus.backlog(_named(dead, queue.dead_letters)) == count

    async def test_consumers_and_bindings_come_back_after_the_connection_is_cut(self, vhost: str) -> None:
        handler, extra = Collector(), Collector()
        async with proxied(vhost) as (proxy, url), running(url) as bus:
            await bus.subscribe(durable_queue(), handler)
            exclusive = await bus.subscribe(live_queue(bindings=(), shard=None, exclusive=True), extra)
            await bus.bind(exclusive, TICKS, "batch.#")
            connections = proxy.connections
            proxy.reset()
            await eventually(
                lambda: _is(proxy.connections >= connections + 2 and bus.is_connected and exclusive.active)
            )
            await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
            await bus.publish(TICKS, ticks(1), key="batch.0")
            await handler.until(1)
            await extra.until(1)

    async def test_a_handler_that_loses_its_cancellation_does_not_hold_up_the_connection(
        self, vhost: str
    ) -> None:
        heard = 0

        async def stubborn(_delivery: Delivery) -> None:
            nonlocal heard
            heard += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.5)

        async with proxied(vhost) as (proxy, url), running(url) as bus:
            await bus.subscribe(durable_queue(), stubborn)
            for number in range(100):
                await bus.publish(ALERT_EVENTS, event(number), key="alert.u.r")
            async with asyncio.timeout(30):
                while not heard:
                    await asyncio.sleep(0.02)
                proxy.reset()
                while bus.is_connected:
                    await asyncio.sleep(0.02)
            async with asyncio.timeout(15):
                while not bus.is_connected:
                    await asyncio.sleep(0.02)

    async def test_a_silent_partition_is_found_by_heartbeats(self, vhost: str) -> None:
        async with proxied(vhost) as (proxy, url), running(url) as bus:
            proxy.toxics.blackhole = True
            with pytest.raises(BusUnavailable):
                await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
            async with asyncio.timeout(25):
                while bus.is_connected:
                    await asyncio.sleep(0.1)
            proxy.toxics.blackhole = False
            assert await bus.wait_connected(10)

    async def test_live_publishes_do_not_hang_on_a_silent_broker(self, vhost: str) -> None:
        async with (
            proxied(vhost) as (proxy, url),
            running(url, confirm_window=4, publish_timeout_seconds=0.5) as bus,
        ):
            proxy.toxics.blackhole = True
            for seq in range(4):
                await bus.publish(TICKS, ticks(seq), key="batch.0")
            with pytest.raises(BusUnavailable, match="window"):
                await bus.publish(TICKS, ticks(4), key="batch.0")

    async def test_a_consumer_whose_queue_was_deleted_is_restored(self, bus: Bus, vhost: str) -> None:
        handler = Collector()
        subscription = await bus.subscribe(durable_queue(), handler)
        async with await aio_pika.connect(vhost) as stranger:
            channel = await stranger.channel()
            await channel.queue_delete(durable_queue().name, if_unused=False)
        await eventually(lambda: _is(not subscription.active))
        await eventually(lambda: _is(subscription.active))
        await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
        await handler.until(1)

    async def test_garbage_from_a_stranger_is_refused_and_the_next_message_comes(
        self, bus: Bus, vhost: str
    ) -> None:
        handler = Collector()
        await bus.subscribe(durable_queue(), handler)
        async with await aio_pika.connect(vhost) as stranger:
            channel = await stranger.channel()
            exchange = await channel.get_exchange("alerts.events", ensure=False)
            await exchange.publish(aio_pika.Message(b"\xff\xfe", type="alert-events.v1"), "alert.u.r")
            await exchange.publish(aio_pika.Message(b"x", type="nonsense.v9"), "alert.u.r")
        await bus.publish(ALERT_EVENTS, event(2), key="alert.u.r")
        assert (await handler.until(1))[0].message.id == "ae_2"
        await eventually(lambda: self.has_dead_letters(bus, durable_queue(), 2))

    async def test_an_absent_broker_is_an_error_for_the_publisher_only(self) -> None:
        bus = RabbitBus("amqp://guest:guest@127.0.0.1:1/", service="suite", durable_timeout_seconds=0.2)
        await bus.start()
        try:
            assert not await bus.wait_connected(0.3)
            assert bus.disconnected_since_us is not None
            with pytest.raises(BusUnavailable):
                await bus.publish(TICKS, ticks(1), key="batch.0")
            with pytest.raises(BusUnavailable):
                await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
            subscription = await bus.subscribe(live_queue(), Collector())
            assert not subscription.active
        finally:
            await bus.close()


def _named(queue: Queue, name: str) -> Queue:
    class _Named(Queue):
        @property
        def name(self) -> str:
            return name

    return _Named(queue.consumer, queue.topic, queue.bindings)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    parts = urlsplit(url)
    async with TcpProxy(parts.hostname or "127.0.0.1", parts.port or 5672) as proxy:
        yield proxy, url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}")


@asynccontextmanager
async def running(url: str, **options: float) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(url, service="suite", durable_timeout_seconds=1.0, **options)  # type: ignore[arg-type] # confirm_window is an int
    await bus.start()
    assert await bus.wait_connected(15)
    try:
        yield bus
    finally:
        await bus.close()


async def _is(claim: bool) -> bool:
    return claim

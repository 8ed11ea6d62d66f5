"""The memory bus keeps the same promises as RabbitMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cryptopulse.common.bus.memory import MemoryBroker, MemoryBus
from cryptopulse.common.bus.protocols import Bus
from cryptopulse.common.contracts.topics import ALERT_EVENTS, TICKS, Queue
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.testing.bus_suite import (
    BusSuite,
    Collector,
    Fragile,
    MakeBus,
    durable_queue,
    event,
    live_queue,
    ticks,
)


class TestMemoryBus(BusSuite):
    @pytest.fixture
    def broker(self) -> MemoryBroker:
        return MemoryBroker()

    @pytest.fixture
    async def make_bus(self, broker: MemoryBroker) -> AsyncIterator[MakeBus]:
        made: list[MemoryBus] = []

        async def make() -> MemoryBus:
            bus = MemoryBus(broker, service="suite")
            await bus.start()
            made.append(bus)
            return bus

        yield make
        for bus in made:
            await bus.close()

    @pytest.fixture
    async def fragile(self, broker: MemoryBroker, bus: Bus) -> Fragile:
        async def hush() -> None:
            broker.silent = True

        async def die() -> None:
            broker.stop()

        async def revive() -> None:
            broker.start()

        return Fragile(bus, hush, die, revive)

    async def has_dead_letters(self, bus: Bus, queue: Queue, count: int) -> bool:
        assert isinstance(bus, MemoryBus)
        return len(bus.broker.dead_letters.get(queue.dead_letters, [])) == count

    async def test_a_stopped_broker_refuses_and_gives_unacked_back(
        self, broker: MemoryBroker, bus: Bus
    ) -> None:
        handler = Collector()
        await bus.subscribe(live_queue(), handler, manual_ack=True)
        await bus.subscribe(durable_queue(), durable := Collector(), manual_ack=True)
        await bus.publish(TICKS, ticks(1), key="batch.0")
        await bus.publish(ALERT_EVENTS, event(1), key="alert.u.r")
        await durable.until(1)
        broker.stop()
        with pytest.raises(BusUnavailable):
            await bus.publish(TICKS, ticks(2), key="batch.0")
        broker.start()
        assert (await durable.until(2))[1].redelivered
        assert await handler.quiet() == 1
